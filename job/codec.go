package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
)

// EncodeSpec writes the body of a job's message.
func EncodeSpec(s Spec) ([]byte, error) {
	s.At, s.Begin, s.Deadline = s.At.UTC(), s.Begin.UTC(), s.Deadline.UTC()
	data, err := appendSpec(make([]byte, 0, specSize(&s)), &s)
	if err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	return data, nil
}

// DecodeSpec reads the body of a job's message: msgpack, or JSON where it
// begins with a brace (which no msgpack map does). task, quotas and priority
// are those of the lane that brought it, which a JSON body need not repeat;
// nonce is the identity of a body that brings none. Keys that this version does
// not know are refused, for they may change what the job means.
//
// The error says what is wrong with the body; the spec returned with it holds
// whatever could be read and always has a nonce.
func DecodeSpec(body []byte, task string, quotas []string, priority Priority, nonce Nonce) (Spec, error) {
	spec, err := decodeSpec(body, priority)
	byHand := isJSON(body)
	anonymous := spec.Nonce.IsZero()
	if anonymous {
		spec.Nonce = nonce
	}
	switch {
	case err != nil:
		return spec, fmt.Errorf("body cannot be read: %w", err)
	case anonymous && !byHand:
		return spec, errors.New("body has no nonce: draw 16 random bytes for each job")
	}
	if byHand && spec.Task == "" {
		spec.Task = task
	}
	if byHand && spec.Quotas == nil {
		spec.Quotas = quotas
	}
	if err := spec.Check(); err != nil {
		return spec, err
	}
	if spec.Task != task {
		return spec, fmt.Errorf("body is of task %q and was published on the lane of task %q", spec.Task, task)
	}
	if !slices.Equal(spec.Quotas, quotas) {
		return spec, fmt.Errorf("body names quotas %q and was published on a lane with quotas %q", spec.Quotas, quotas)
	}
	if spec.Priority != priority {
		return spec, fmt.Errorf("body has priority %v and was published on a lane of priority %v", spec.Priority, priority)
	}
	return spec, nil
}

func decodeSpec(body []byte, priority Priority) (Spec, error) {
	if isJSON(body) {
		spec, err := decodeJSON(body, priority)
		if err != nil {
			var id identity
			_ = json.Unmarshal(body, &id) // what cannot be read is absent
			return id.explain(err)
		}
		return spec, nil
	}
	if !isMap(body) {
		return Spec{}, fmt.Errorf("it is neither a msgpack map nor a JSON object, but %.40q: the least is {}", body)
	}
	var spec Spec
	if scanSpec(body, &spec) {
		return spec, nil
	}
	return unpackSpec(body)
}

// unpackSpec reads any body that is msgpack.
func unpackSpec(body []byte) (Spec, error) {
	var spec Spec
	if err := unpack(body, &spec, strict); err != nil {
		var id identity
		_ = unpack(body, &id, lenient)
		return id.explain(err)
	}
	spec.At, spec.Begin, spec.Deadline = spec.At.UTC(), spec.Begin.UTC(), spec.Deadline.UTC()
	return spec, nil
}

// identity is what is read of a body that cannot be read as a whole.
type identity struct {
	Version int   `msgpack:"v" json:"v"`
	Nonce   Nonce `msgpack:"nonce" json:"nonce"`
}

// explain says why a body cannot be read, by its version where that is newer.
func (id identity) explain(err error) (Spec, error) {
	if id.Version > SpecVersion {
		err = versionError(id.Version)
	} else {
		err = fmt.Errorf("%w (docs/protocol.md says what a body holds; where its producer is newer, upgrade this program)", err)
	}
	return Spec{Nonce: id.Nonce}, err
}

// isMap reports whether data begins as a msgpack map. Lists are refused, for
// the msgpack package would read one as the fields in the order of the struct.
func isMap(data []byte) bool {
	return len(data) > 0 && (data[0]&0xf0 == 0x80 || data[0] == 0xde || data[0] == 0xdf)
}

func isJSON(body []byte) bool {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{'
}

// EncodeRecord writes a record.
func EncodeRecord(r Record) ([]byte, error) {
	r.Put, r.Started, r.Ended, r.Due = r.Put.UTC(), r.Started.UTC(), r.Ended.UTC(), r.Due.UTC()
	data, err := appendRecord(make([]byte, 0, recordSize(&r)), &r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return data, nil
}

// DecodeRecord reads a record. Keys that this version does not know are
// skipped: a record is a fact, and what is known of it stays true.
func DecodeRecord(data []byte) (Record, error) {
	if !isMap(data) {
		return Record{}, fmt.Errorf("record cannot be read: it is no msgpack map, but %.40q", data)
	}
	var r Record
	if err := unpack(data, &r, lenient); err != nil {
		return Record{}, fmt.Errorf("record cannot be read: %w", err)
	}
	if r.Version != RecordVersion {
		return Record{}, fmt.Errorf("record has version %d, this program reads version %d", r.Version, RecordVersion)
	}
	r.Put, r.Started, r.Ended, r.Due = r.Put.UTC(), r.Started.UTC(), r.Ended.UTC(), r.Due.UTC()
	if r.Outcome != nil && r.Outcome.Failure != nil {
		r.Outcome.Failure.At = r.Outcome.Failure.At.UTC()
	}
	for i := range r.Past {
		r.Past[i].At = r.Past[i].At.UTC()
	}
	return r, nil
}

// specSize and recordSize are how many bytes are enough for most.
func specSize(s *Spec) int { return 192 + len(s.Task) + len(s.By) + len(s.Arg.Data) }

func recordSize(r *Record) int {
	size := 320 + len(r.Task) + len(r.By)
	if r.Outcome != nil {
		size += len(r.Outcome.Result.Data)
	}
	return size
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := msgpack.GetEncoder()
	defer msgpack.PutEncoder(encoder)
	encoder.Reset(&b)
	encoder.UseCompactInts(true)
	encoder.SetSortMapKeys(true)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func strict(d *msgpack.Decoder) { d.DisallowUnknownFields(true) }

func lenient(*msgpack.Decoder) {}

// EncodeCalls writes parts of a composition.
func EncodeCalls(calls []Call) ([]byte, error) {
	data, err := encode(calls)
	if err != nil {
		return nil, fmt.Errorf("encode parts: %w", err)
	}
	return data, nil
}

// DecodeCalls reads parts of a composition. Keys that this version does not know
// are refused, as those of a body are.
func DecodeCalls(data []byte) ([]Call, error) {
	var calls []Call
	if err := unpack(data, &calls, strict); err != nil {
		return nil, fmt.Errorf("parts cannot be read: %w", err)
	}
	for i, call := range calls {
		if err := call.Check(); err != nil {
			return nil, fmt.Errorf("part %d: %w", i, err)
		}
	}
	return calls, nil
}
