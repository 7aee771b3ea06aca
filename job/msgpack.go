package job

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// deepest is how deep lists and maps may be nested, in msgpack as in
// encoding/json: reading deeper ones would overflow the stack, which no
// program survives.
const deepest = 10_000

// unpack reads msgpack into the variable that into points to. No data makes it
// panic, or take memory out of proportion to its length: the msgpack package
// believes the lengths that it reads, so they are checked before.
func unpack(data []byte, into any, options func(*msgpack.Decoder)) (err error) {
	if err := wellFormed(data); err != nil {
		return err
	}
	defer func() {
		// The package meets a nil where a time is wanted, or a list as the key
		// of a map, with a panic.
		if value := recover(); value != nil {
			err = fmt.Errorf("a value does not fit its place (a nil for a time, a list as a key): %v", value)
		}
	}()
	reader := bytes.NewReader(data)
	decoder := msgpack.GetDecoder()
	decoder.Reset(reader)
	options(decoder)
	if err := decoder.Decode(into); err != nil {
		return err // and the decoder is not used again: Reset leaves some state
	}
	msgpack.PutDecoder(decoder)
	if reader.Len() > 0 {
		return fmt.Errorf("%d bytes too many", reader.Len())
	}
	return nil
}

// Lists of structs are read one by one: the package would make as many at once as
// there are values to come, of which each may be a byte.
func init() {
	msgpack.Register([]Call(nil), nil, listOf(func(c *Call) bool { return c.Task != "" }))
	msgpack.Register([]Callback(nil), nil, listOf(func(c *Callback) bool { return c.On != "" }))
	msgpack.Register([]Chunk(nil), nil, listOf(func(c *Chunk) bool { return c.Name != "" }))
}

// listOf returns how a list is read, up to the first that says nothing.
func listOf[T any](says func(*T) bool) func(*msgpack.Decoder, reflect.Value) error {
	return func(d *msgpack.Decoder, v reflect.Value) error {
		n, err := d.DecodeArrayLen()
		if err != nil || n < 0 {
			v.SetZero()
			return err
		}
		list := make([]T, 0, min(n, 8))
		for i := range n {
			var one T
			if err := d.Decode(&one); err != nil {
				return err
			}
			if !says(&one) {
				return fmt.Errorf("number %d of a list of %d is empty: must be a %T", i, n, one)
			}
			list = append(list, one)
		}
		v.Set(reflect.ValueOf(list))
		return nil
	}
}

var errTruncated = errors.New("msgpack is cut off in the middle")

// wellFormed checks that data consists of complete msgpack values, without
// recursion and without allocating by any length it reads.
//
// What an extension holds is not looked at.
func wellFormed(data []byte) error {
	if len(data) == 0 {
		return errTruncated
	}
	var open []int // of each list or map being read, how many values are to come
	owed := 0      // their sum
	for len(data) > 0 {
		size, children, err := head(data)
		if err != nil {
			return err
		}
		data = data[size:]
		if n := len(open); n > 0 {
			open[n-1]--
			owed--
		}
		if owed+children > len(data) {
			return errTruncated
		}
		if children > 0 {
			open = append(open, children)
			owed += children
		}
		if len(open) > deepest {
			return fmt.Errorf("msgpack is nested deeper than %d", deepest)
		}
		for len(open) > 0 && open[len(open)-1] == 0 {
			open = open[:len(open)-1]
		}
	}
	return nil
}

// head reads the beginning of a value: how many bytes it takes, without the
// values that it holds, and how many those are.
func head(data []byte) (size, children int, err error) {
	code := data[0]
	switch {
	case code <= 0x7f, code >= 0xe0, code == 0xc0, code == 0xc2, code == 0xc3: // small number, nil, bool
		return 1, 0, nil
	case code <= 0x8f: // small map
		return 1, 2 * int(code&0x0f), nil
	case code <= 0x9f: // small list
		return 1, int(code & 0x0f), nil
	case code <= 0xbf: // short string
		size = 1 + int(code&0x1f)
	case code == 0xc1:
		return 0, 0, errors.New("msgpack has no value that begins with c1")
	default:
		field := fields[code-0xc4]
		length, ok := number(data[1:], field.length)
		if !ok {
			return 0, 0, errTruncated
		}
		size = 1 + field.length + field.fixed
		if field.children > 0 {
			return size, field.children * length, nil
		}
		size += length
	}
	if size > len(data) {
		return 0, 0, errTruncated
	}
	return size, 0, nil
}

// fields says, of the codes from c4 to df, how many bytes of length and how
// many others follow, and how many values there are for each one of length.
var fields = [...]struct{ length, fixed, children int }{
	{length: 1}, {length: 2}, {length: 4}, // bin
	{length: 1, fixed: 1}, {length: 2, fixed: 1}, {length: 4, fixed: 1}, // ext
	{fixed: 4}, {fixed: 8}, // float
	{fixed: 1}, {fixed: 2}, {fixed: 4}, {fixed: 8}, // uint
	{fixed: 1}, {fixed: 2}, {fixed: 4}, {fixed: 8}, // int
	{fixed: 2}, {fixed: 3}, {fixed: 5}, {fixed: 9}, {fixed: 17}, // fixext
	{length: 1}, {length: 2}, {length: 4}, // str
	{length: 2, children: 1}, {length: 4, children: 1}, // list
	{length: 2, children: 2}, {length: 4, children: 2}, // map
}

// number reads a length of 0, 1, 2 or 4 bytes.
func number(data []byte, width int) (n int, ok bool) {
	if len(data) < width {
		return 0, false
	}
	var word [4]byte
	copy(word[4-width:], data[:width])
	return int(binary.BigEndian.Uint32(word[:])), true
}
