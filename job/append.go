package job

import (
	"encoding/binary"
	"math"
	"time"
)

// The body of a job and its record are written for each job that is put and
// performed. The msgpack package does that by reflection, which was a third of a
// dispatcher's work; so they are written here by hand, to the byte as it would
// (TestByHand). What few jobs have is left to it: callbacks, parts, failures, policies, traces.

// fieldsOf writes a msgpack map whose keys are the fields of a struct, of which
// those that are empty are left out. Begin with newFields.
type fieldsOf struct {
	data  []byte
	start int // of the map
	count int
	err   error // the first that there was
}

// newFields begins a map of at most 0xffff fields at the end of data. The map's
// header has three bytes until end makes it as short as it can be.
func newFields(data []byte) fieldsOf { return fieldsOf{data: append(data, 0, 0, 0), start: len(data)} }

// end completes the map, and returns all that is written.
func (f *fieldsOf) end() ([]byte, error) {
	if f.count < 16 {
		f.data[f.start] = 0x80 | byte(f.count)
		f.data = append(f.data[:f.start+1], f.data[f.start+3:]...)
	} else {
		f.data[f.start] = 0xde
		binary.BigEndian.PutUint16(f.data[f.start+1:], uint16(f.count))
	}
	return f.data, f.err
}

// key begins a field, whose value is to be appended to data.
func (f *fieldsOf) key(name string) {
	f.count++
	f.data = appendString(f.data, name)
}

// begin begins a field that is a map itself, and close completes it. It is no function
// that takes one: that would allocate, for each job.
func (f *fieldsOf) begin(name string) fieldsOf {
	f.key(name)
	return newFields(f.data)
}

func (f *fieldsOf) close(in *fieldsOf) {
	data, err := in.end()
	f.data = data
	if f.err == nil {
		f.err = err
	}
}

func (f *fieldsOf) text(name, s string) {
	f.key(name)
	f.data = appendString(f.data, s)
}

func (f *fieldsOf) number(name string, n int64) {
	f.key(name)
	f.data = appendInt(f.data, n)
}

func (f *fieldsOf) nonce(name string, n Nonce) {
	f.key(name)
	f.data = appendBytes(f.data, n[:])
}

// textIfAny, and all of that kind, leave an empty field out.
func (f *fieldsOf) textIfAny(name, s string) {
	if s != "" {
		f.text(name, s)
	}
}

func (f *fieldsOf) numberIfAny(name string, n int64) {
	if n != 0 {
		f.number(name, n)
	}
}

func (f *fieldsOf) boolIfAny(name string, set bool) {
	if set {
		f.key(name)
		f.data = append(f.data, 0xc3)
	}
}

func (f *fieldsOf) timeIfAny(name string, t time.Time) {
	if !t.IsZero() {
		f.key(name)
		f.data = appendTime(f.data, t)
	}
}

func (f *fieldsOf) listIfAny(name string, list []string) {
	if len(list) == 0 {
		return
	}
	f.key(name)
	f.data = appendListHeader(f.data, len(list))
	for _, s := range list {
		f.data = appendString(f.data, s)
	}
}

func (f *fieldsOf) priorityIfAny(name string, p Priority) {
	if p == Normal {
		return
	}
	if err := p.Check(); err != nil && f.err == nil {
		f.err = err
	}
	f.text(name, p.String())
}

func (f *fieldsOf) valueIfAny(name string, v Value) {
	if v.Encoding == "" && len(v.Data) == 0 {
		return
	}
	in := f.begin(name)
	in.textIfAny("enc", string(v.Encoding))
	if len(v.Data) > 0 {
		in.key("data")
		in.data = appendBytes(in.data, v.Data)
	}
	f.close(&in)
}

func (f *fieldsOf) parentIfAny(name string, p *Parent) {
	if p == nil {
		return
	}
	in := f.begin(name)
	in.text("queue", p.Queue)
	in.text("id", string(p.ID))
	in.nonce("nonce", p.Nonce)
	in.boolIfAny("callback", p.Callback)
	in.numberIfAny("number", int64(p.Number))
	f.close(&in)
}

// other writes what is not written by hand; set says that it is not empty.
func (f *fieldsOf) other(name string, set bool, v any) {
	if !set {
		return
	}
	data, err := encode(v)
	if err != nil && f.err == nil {
		f.err = err
	}
	f.key(name)
	f.data = append(f.data, data...)
}

// appendSpec writes the body of a job.
func appendSpec(data []byte, s *Spec) ([]byte, error) {
	f := newFields(data)
	f.number("v", int64(s.Version))
	f.nonce("nonce", s.Nonce)
	f.text("task", s.Task)
	f.valueIfAny("arg", s.Arg)
	f.listIfAny("quotas", s.Quotas)
	f.priorityIfAny("priority", s.Priority)
	f.textIfAny("to", s.To)
	f.numberIfAny("timeout", int64(s.Timeout))
	f.numberIfAny("keep", int64(s.Keep))
	if s.Retry != (Retry{}) {
		f.other("retry", true, s.Retry)
	}
	f.timeIfAny("begin", s.Begin)
	f.timeIfAny("deadline", s.Deadline)
	f.numberIfAny("attempt", int64(s.Attempt))
	f.boolIfAny("again", s.Again)
	f.other("callbacks", len(s.Callbacks) > 0, s.Callbacks)
	f.other("parts", s.Parts != nil, s.Parts)
	f.parentIfAny("parent", s.Parent)
	f.other("trace", len(s.Trace) > 0, s.Trace)
	f.textIfAny("by", s.By)
	f.timeIfAny("at", s.At)
	return f.end()
}

// appendRecord writes a record.
func appendRecord(data []byte, r *Record) ([]byte, error) {
	f := newFields(data)
	f.number("v", int64(r.Version))
	f.nonce("nonce", r.Nonce)
	f.text("task", r.Task)
	f.listIfAny("quotas", r.Quotas)
	f.priorityIfAny("priority", r.Priority)
	f.textIfAny("to", r.To)
	f.text("state", string(r.State))
	in := f.begin("attempt")
	in.number("n", int64(r.Attempt.Number))
	in.key("token")
	in.data = appendUint(in.data, uint64(r.Attempt.Token))
	in.text("dispatcher", r.Attempt.Dispatcher)
	in.text("agent", r.Attempt.Agent)
	f.close(&in)
	f.numberIfAny("errors", int64(r.Errors))
	f.numberIfAny("interrupts", int64(r.Interrupts))
	f.numberIfAny("snoozes", int64(r.Snoozes))
	f.numberIfAny("message", int64(r.Message))
	f.timeIfAny("due", r.Due)
	f.other("past", len(r.Past) > 0, r.Past)
	f.other("callbacks", len(r.Callbacks) > 0, r.Callbacks)
	f.other("called", len(r.Called) > 0, r.Called)
	f.other("parts", r.Parts != nil, r.Parts)
	f.parentIfAny("parent", r.Parent)
	if r.Outcome != nil {
		in := f.begin("outcome")
		in.valueIfAny("result", r.Outcome.Result)
		in.other("failure", r.Outcome.Failure != nil, r.Outcome.Failure)
		f.close(&in)
	}
	f.textIfAny("by", r.By)
	f.timeIfAny("put", r.Put)
	f.timeIfAny("started", r.Started)
	f.timeIfAny("ended", r.Ended)
	return f.end()
}

func appendUint(data []byte, n uint64) []byte {
	switch {
	case n <= math.MaxInt8:
		return append(data, byte(n))
	case n <= math.MaxUint8:
		return append(data, 0xcc, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(data, 0xcd), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(data, 0xce), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(data, 0xcf), n)
}

func appendInt(data []byte, n int64) []byte {
	switch {
	case n >= 0:
		return appendUint(data, uint64(n))
	case n >= -32:
		return append(data, byte(n))
	case n >= math.MinInt8:
		return append(data, 0xd0, byte(n))
	case n >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(data, 0xd1), uint16(n))
	case n >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(data, 0xd2), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(data, 0xd3), uint64(n))
}

func appendString(data []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		data = append(data, 0xa0|byte(n))
	case n <= math.MaxUint8:
		data = append(data, 0xd9, byte(n))
	case n <= math.MaxUint16:
		data = binary.BigEndian.AppendUint16(append(data, 0xda), uint16(n))
	default:
		data = binary.BigEndian.AppendUint32(append(data, 0xdb), uint32(n))
	}
	return append(data, s...)
}

func appendBytes(data, b []byte) []byte {
	switch n := len(b); {
	case n <= math.MaxUint8:
		data = append(data, 0xc4, byte(n))
	case n <= math.MaxUint16:
		data = binary.BigEndian.AppendUint16(append(data, 0xc5), uint16(n))
	default:
		data = binary.BigEndian.AppendUint32(append(data, 0xc6), uint32(n))
	}
	return append(data, b...)
}

func appendListHeader(data []byte, n int) []byte {
	switch {
	case n < 16:
		return append(data, 0x90|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(data, 0xdc), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(data, 0xdd), uint32(n))
}

// appendTime writes the timestamp extension, in as many bytes as it needs.
func appendTime(data []byte, t time.Time) []byte {
	seconds, nanoseconds := uint64(t.Unix()), uint64(t.Nanosecond())
	switch {
	case seconds>>34 != 0:
		data = append(data, 0xc7, 12, 0xff)
		data = binary.BigEndian.AppendUint32(data, uint32(nanoseconds))
		return binary.BigEndian.AppendUint64(data, seconds)
	case nanoseconds == 0 && seconds <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(data, 0xd6, 0xff), uint32(seconds))
	}
	return binary.BigEndian.AppendUint64(append(data, 0xd7, 0xff), nanoseconds<<34|seconds)
}
