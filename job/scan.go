package job

import (
	"bytes"
	"encoding/binary"
	"time"
)

// scanner reads msgpack by hand. It knows the forms that are usual in the body
// of a job; ok turns false at any other, at a key that comes twice, and at data that is
// cut off. Then what was read is not to be used: the msgpack package reads it all, and
// says what is wrong.
type scanner struct {
	data []byte
	ok   bool
	seen uint32 // the keys of the outermost map that came, by number
}

// scanSpec reads the body of a job that has nothing out of the ordinary. It reports
// false for any other, and means what the msgpack package would (FuzzScanSpec).
func scanSpec(body []byte, s *Spec) bool {
	in := scanner{data: body, ok: true}
	for range in.fields() {
		in.field(s)
		if !in.ok {
			return false
		}
	}
	return in.ok && len(in.data) == 0
}

// field reads a field of the body.
func (in *scanner) field(s *Spec) {
	switch string(in.raw(textKind)) {
	case "v":
		in.once(0)
		s.Version = int(in.number())
	case "nonce":
		in.once(1)
		in.nonce(&s.Nonce)
	case "task":
		in.once(2)
		s.Task = in.text()
	case "arg":
		in.once(3)
		in.value(&s.Arg)
	case "quotas":
		in.once(4)
		s.Quotas = in.list()
	case "priority":
		in.once(5)
		in.priority(&s.Priority)
	case "to":
		in.once(6)
		s.To = in.text()
	case "timeout":
		in.once(7)
		s.Timeout = time.Duration(in.number())
	case "keep":
		in.once(8)
		s.Keep = Keep(in.number())
	case "begin":
		in.once(9)
		s.Begin = in.time()
	case "deadline":
		in.once(10)
		s.Deadline = in.time()
	case "attempt":
		in.once(11)
		s.Attempt = int(in.number())
	case "parent":
		in.once(12)
		s.Parent = in.parent()
	case "by":
		in.once(13)
		s.By = in.text()
	case "at":
		in.once(14)
		s.At = in.time()
	default:
		in.ok = false
	}
}

// once notes that a key came.
func (in *scanner) once(key uint) {
	in.ok = in.ok && in.seen&(1<<key) == 0
	in.seen |= 1 << key
}

// take takes the next n bytes; none where there are fewer.
func (in *scanner) take(n int) []byte {
	if n > len(in.data) {
		in.ok = false
		return nil
	}
	taken := in.data[:n]
	in.data = in.data[n:]
	return taken
}

func (in *scanner) byte() byte {
	if b := in.take(1); b != nil {
		return b[0]
	}
	return 0
}

// unsigned reads n bytes of a number.
func (in *scanner) unsigned(n int) uint64 {
	var word [8]byte
	copy(word[8-n:], in.take(n))
	return binary.BigEndian.Uint64(word[:])
}

// fields reads how many keys a map has.
func (in *scanner) fields() int {
	switch code := in.byte(); {
	case code&0xf0 == 0x80:
		return int(code & 0x0f)
	case code == 0xde:
		return int(in.unsigned(2))
	}
	in.ok = false
	return 0
}

// kind is what a value with a length is.
type kind bool

const (
	textKind  kind = true
	bytesKind kind = false
)

// raw reads text or bytes, not copied.
func (in *scanner) raw(want kind) []byte {
	code := in.byte()
	length := 0
	switch {
	case want == textKind && code&0xe0 == 0xa0:
		length = int(code & 0x1f)
	case want == textKind && code == 0xd9, want == bytesKind && code == 0xc4:
		length = int(in.unsigned(1))
	case want == textKind && code == 0xda, want == bytesKind && code == 0xc5:
		length = int(in.unsigned(2))
	case want == bytesKind && code == 0xc6:
		length = int(in.unsigned(4))
	default:
		in.ok = false
	}
	return in.take(length)
}

func (in *scanner) text() string { return string(in.raw(textKind)) }

func (in *scanner) nonce(n *Nonce) {
	b := in.raw(bytesKind)
	in.ok = in.ok && len(b) == len(n)
	copy(n[:], b)
}

func (in *scanner) priority(p *Priority) {
	var err error
	*p, err = ParsePriority(in.text())
	in.ok = in.ok && err == nil
}

// list reads a short list of texts.
func (in *scanner) list() []string {
	code := in.byte()
	if code&0xf0 != 0x90 {
		in.ok = false
		return nil
	}
	list := make([]string, code&0x0f)
	for i := range list {
		list[i] = in.text()
	}
	return list
}

// parent reads what [fieldsOf.parentIfAny] writes, in that order.
func (in *scanner) parent() *Parent {
	var p Parent
	for n := range in.fields() {
		switch key := string(in.raw(textKind)); {
		case n == 0 && key == "queue":
			p.Queue = in.text()
		case n == 1 && key == "id":
			p.ID = ID(in.text())
		case n == 2 && key == "nonce":
			in.nonce(&p.Nonce)
		case n == 3 && key == "number":
			p.Number = int(in.number())
		default: // among them that it is a callback
			in.ok = false
			return nil
		}
	}
	return &p
}

// number reads a number that fits an int64.
func (in *scanner) number() int64 {
	switch code := in.byte(); {
	case code <= 0x7f:
		return int64(code)
	case code == 0xcc:
		return int64(in.unsigned(1))
	case code == 0xcd:
		return int64(in.unsigned(2))
	case code == 0xce:
		return int64(in.unsigned(4))
	case code == 0xff: // -1, a special duration
		return -1
	case code == 0xcf:
		if n := in.unsigned(8); n>>63 == 0 {
			return int64(n)
		}
	}
	in.ok = false
	return 0
}

// time reads a timestamp in the forms that this century has.
func (in *scanner) time() time.Time {
	header := in.take(2)
	if header == nil || header[1] != 0xff {
		in.ok = false
		return time.Time{}
	}
	switch header[0] {
	case 0xd6:
		return time.Unix(int64(in.unsigned(4)), 0).UTC()
	case 0xd7:
		n := in.unsigned(8)
		return time.Unix(int64(n&(1<<34-1)), int64(n>>34)).UTC()
	}
	in.ok = false
	return time.Time{}
}

// value reads what [fieldsOf.valueIfAny] writes, in that order.
func (in *scanner) value(v *Value) {
	last := ""
	for range in.fields() {
		switch key := string(in.raw(textKind)); {
		case key == "enc" && last == "":
			v.Encoding = Encoding(in.text())
			last = key
		case key == "data" && last != key:
			// A copy: the body belongs to the message.
			v.Data = bytes.Clone(in.raw(bytesKind))
			last = key
		default:
			in.ok = false
			return
		}
	}
}
