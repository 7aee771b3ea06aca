package job

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// TestHead tries every code against the msgpack package: of each, followed by
// enough bytes, both must see a value of the same length.
func TestHead(t *testing.T) {
	for code := range 256 {
		data := append([]byte{byte(code)}, bytes.Repeat([]byte{0}, 64)...)
		reader := bytes.NewReader(data)
		wantErr := msgpack.NewDecoder(reader).Skip()
		want := len(data) - reader.Len()
		size, children, err := head(data)
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%02x: %v, want %v", code, err, wantErr)
		}
		// A child is a small number here, of one byte.
		if err == nil && size+children != want {
			t.Errorf("%02x: %d bytes and %d values, want %d", code, size, children, want)
		}
	}
}

// TestHeadOfEveryLength tries the codes that have a length, with lengths of
// every width.
func TestHeadOfEveryLength(t *testing.T) {
	for code := 0xc4; code <= 0xdf; code++ {
		for _, length := range []string{"\x01", "\x00\x01", "\x00\x00\x00\x01", "\x00\x00\x01\x01"} {
			data := append([]byte{byte(code)}, length+strings.Repeat("\x00", 1000)...)
			reader := bytes.NewReader(data)
			if err := msgpack.NewDecoder(reader).Skip(); err != nil {
				continue // longer than the data, which is TestHeadTruncated's
			}
			size, children, err := head(data)
			if want := len(data) - reader.Len(); err != nil || size+children != want {
				t.Errorf("%02x with length % x: %d bytes and %d values, %v; want %d", code, length, size, children, err, want)
			}
		}
	}
}

func TestHeadTruncated(t *testing.T) {
	for code := range 256 {
		data := append([]byte{byte(code)}, strings.Repeat("\xff", 8)...)
		for n := 1; n <= len(data); n++ {
			size, _, err := head(data[:n])
			if err == nil && size > n {
				t.Errorf("% x: %d bytes of %d", data[:n], size, n)
			}
		}
	}
}

func TestWellFormedDepth(t *testing.T) {
	for name, nest := range map[string]struct{ open, inner string }{
		"lists":      {"\x91", "\xc0"},
		"long lists": {"\xdd\x00\x00\x00\x01", "\xc0"},
		"maps":       {"\x81\xa1k", "\xc0"},
		"keys":       {"\x81", "\xc0" + strings.Repeat("\xc0", deepest)},
	} {
		if err := wellFormed([]byte(strings.Repeat(nest.open, deepest) + nest.inner)); err != nil {
			t.Errorf("%s, %d deep: %v", name, deepest, err)
		}
		if err := wellFormed([]byte(strings.Repeat(nest.open, deepest+1) + nest.inner + "\xc0")); err == nil {
			t.Errorf("%s, %d deep: no error", name, deepest+1)
		}
	}
	wide := strings.Repeat("\x91\xc0", deepest+1)
	if err := wellFormed([]byte("\xdd\x00\x00\x27\x11" + wide)); err != nil {
		t.Errorf("many lists beside each other: %v", err)
	}
}

// TestDeepestSurvives reads what is nested as deep as is allowed, in every way
// in which bodies and values are read.
func TestDeepestSurvives(t *testing.T) {
	deep := []byte(strings.Repeat("\x81\xa1k", deepest-1) + "\xc0")
	if _, err := (Value{Data: deep}).AsJSON(); err != nil {
		t.Error(err)
	}
	var list []any
	if err := (Value{Data: []byte("\x91" + string(deep))}).Decode(&list); err != nil {
		t.Error(err)
	}
	record := "\x82\xa1v\x01\xa1x" + string(deep)
	if _, err := DecodeRecord([]byte(record)); err != nil {
		t.Error(err)
	}
}

// TestMemory proves that short bodies do not take much memory by the lengths
// that they name.
func TestMemory(t *testing.T) {
	lengths := strings.Repeat("\xdd\x00\x0f\x00\x00", 200)
	for name, data := range map[string]string{
		"list": "\xdd\xff\xff\xff\xff", "map": "\xdf\xff\xff\xff\xff", "binary": "\xc6\xff\xff\xff\xff",
		"text": "\xdb\xff\xff\xff\xff", "extension": "\xc9\xff\xff\xff\xff\x01", "nested": lengths,
		"nonce": "\x81\xa5nonce\xc6\xff\xff\xff\xff", "unknown": "\x81\xa1x\xdd\xff\xff\xff\xff",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, specErr := DecodeSpec([]byte(data), "a", nil, Normal, Nonce{})
		_, recordErr := DecodeRecord([]byte(data))
		_, jsonErr := Value{Data: []byte(data)}.AsJSON()
		var into map[string]any
		decodeErr := Value{Data: []byte(data)}.Decode(&into)
		runtime.ReadMemStats(&after)
		if specErr == nil || recordErr == nil || jsonErr == nil || decodeErr == nil {
			t.Errorf("%s: no error: %v, %v, %v, %v", name, specErr, recordErr, jsonErr, decodeErr)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("%s: %d bytes took %d bytes of memory", name, len(data), took)
		}
	}
}

// TestMemoryOfLists proves that lists of things that say nothing are not made before
// they are looked at.
func TestMemoryOfLists(t *testing.T) {
	const n = 1 << 20
	for name, head := range map[string]string{
		"callbacks": "\x81\xa9callbacks", "calls": "\x81\xa5parts\x81\xa5calls", "chunks": "\x81\xa5parts\x81\xa6chunks",
		"callbacks of a call": "\x81\xa5parts\x81\xa5calls\x91\x82\xa4task\xa1a\xa9callbacks",
	} {
		for _, element := range []string{"\x80", "\xc0", "\x00"} {
			data := []byte(head + "\xdd\x00\x10\x00\x00" + strings.Repeat(element, n))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, specErr := DecodeSpec(data, "a", nil, Normal, Nonce{})
			_, recordErr := DecodeRecord(data)
			runtime.ReadMemStats(&after)
			if specErr == nil || recordErr == nil {
				t.Errorf("%s of %x: no error: %v, %v", name, element, specErr, recordErr)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > n {
				t.Errorf("%s of %x: %d bytes took %d bytes of memory", name, element, n, took)
			}
		}
	}
}
