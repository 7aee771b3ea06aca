package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/vmihailenco/msgpack/v5"
)

// Encoding is how the bytes of a [Value] are written.
type Encoding string

const (
	// MsgPack is the default.
	MsgPack Encoding = ""
	// JSON is used by producers that are not written in Go and by the
	// command line. A handler's result is encoded as its argument was.
	JSON Encoding = "json"
)

// Value is an argument or a result: a Go value, encoded. The zero Value is
// "none": what a task without argument or result carries.
type Value struct {
	Encoding Encoding `msgpack:"enc,omitempty"`
	Data     []byte   `msgpack:"data,omitempty"`
}

// Encode writes v. In both encodings the names of struct fields are those of
// their json tags, so that a struct means the same to a producer in any
// language.
func Encode(v any, encoding Encoding) (Value, error) {
	var data []byte
	var err error
	switch encoding {
	case MsgPack:
		data, err = marshalMsgPack(v)
	case JSON:
		data, err = json.Marshal(v)
	default:
		return Value{}, fmt.Errorf("encode %T: unknown encoding %q", v, encoding)
	}
	if err != nil {
		return Value{}, fmt.Errorf("encode %T: %w", v, err)
	}
	return Value{Encoding: encoding, Data: data}, nil
}

// Decode reads the value into the variable that into points to. The none Value
// leaves it as it is.
func (v Value) Decode(into any) error {
	if v.IsNone() {
		return nil
	}
	var err error
	switch v.Encoding {
	case MsgPack:
		err = unpack(v.Data, into, func(d *msgpack.Decoder) { d.SetCustomStructTag("json") })
	case JSON:
		err = json.Unmarshal(v.Data, into)
	default:
		err = fmt.Errorf("unknown encoding %q", v.Encoding)
	}
	if err != nil {
		return fmt.Errorf("decode into %T: %w", into, err)
	}
	return nil
}

// IsNone reports whether v carries nothing.
func (v Value) IsNone() bool { return len(v.Data) == 0 }

// AsJSON returns the value as JSON, whatever its encoding; the none Value is
// null. Binary data becomes base64 text, as in encoding/json.
func (v Value) AsJSON() (json.RawMessage, error) {
	if v.IsNone() {
		return json.RawMessage("null"), nil
	}
	switch v.Encoding {
	case MsgPack:
	case JSON:
		if !json.Valid(v.Data) {
			return nil, fmt.Errorf("value is marked JSON and is not: %.40q", v.Data)
		}
		return json.RawMessage(v.Data), nil
	default:
		return nil, fmt.Errorf("value as JSON: unknown encoding %q", v.Encoding)
	}
	var shown any
	if err := unpack(v.Data, &shown, func(d *msgpack.Decoder) { d.SetMapDecoder(decodeMap) }); err != nil {
		return nil, fmt.Errorf("value as JSON: %w", err)
	}
	text, err := json.Marshal(shown)
	if err != nil {
		return nil, fmt.Errorf("value as JSON: %w", err)
	}
	return text, nil
}

// MarshalJSON writes what AsJSON returns.
func (v Value) MarshalJSON() ([]byte, error) { return v.AsJSON() }

// UnmarshalJSON takes JSON as it is; null is none.
func (v *Value) UnmarshalJSON(data []byte) error {
	*v = Value{}
	if string(data) != "null" {
		*v = Value{Encoding: JSON, Data: bytes.Clone(data)}
	}
	return nil
}

// AsMsgPack returns the value in msgpack, whatever its encoding; nil for none.
func (v Value) AsMsgPack() (msgpack.RawMessage, error) {
	if v.IsNone() {
		return nil, nil
	}
	switch v.Encoding {
	case MsgPack:
		return v.Data, wellFormed(v.Data)
	case JSON:
	default:
		return nil, fmt.Errorf("value as msgpack: unknown encoding %q", v.Encoding)
	}
	decoder := json.NewDecoder(bytes.NewReader(v.Data))
	decoder.UseNumber()
	var read any
	if err := decoder.Decode(&read); err != nil {
		return nil, fmt.Errorf("value is marked JSON and is not: %.40q", v.Data)
	}
	return marshalMsgPack(numbers(read))
}

// numbers has the numbers of a JSON value written as integers where they are.
func numbers(v any) any {
	switch read := v.(type) {
	case json.Number:
		if n, err := read.Int64(); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(string(read), 10, 64); err == nil {
			return n
		}
		f, _ := read.Float64() // as large as it gets where it is too large
		return f
	case []any:
		for i := range read {
			read[i] = numbers(read[i])
		}
	case map[string]any:
		for key := range read {
			read[key] = numbers(read[key])
		}
	}
	return v
}

// decodeMap reads a map with keys of any kind as JSON can show it: a key that
// is no string is named by its JSON text, or by the string that this is.
func decodeMap(d *msgpack.Decoder) (any, error) {
	n, err := d.DecodeMapLen()
	if err != nil {
		return nil, err
	}
	named := make(map[string]any, n)
	for range n {
		key, err := d.DecodeInterface()
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		name := string(text)
		_ = json.Unmarshal(text, &name) // stays as it is where it is no string
		if _, twice := named[name]; twice {
			return nil, fmt.Errorf("a map has two keys that JSON shows as %q", name)
		}
		if named[name], err = d.DecodeInterface(); err != nil {
			return nil, err
		}
	}
	return named, nil
}

func marshalMsgPack(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := msgpack.NewEncoder(&b)
	encoder.SetCustomStructTag("json")
	encoder.SetSortMapKeys(true)
	encoder.UseCompactInts(true)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
