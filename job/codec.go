package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// EncodeSpec writes the body of a job's message.
func EncodeSpec(s Spec) ([]byte, error) {
	s.At = s.At.UTC()
	data, err := encode(s)
	if err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	return data, nil
}

// DecodeSpec reads the body of a job's message: msgpack, or JSON where it
// begins with a brace (which no msgpack map does). lane is the task of the
// lane that brought it, and what a JSON body need not repeat; nonce is the
// identity of a body that brings none. Keys that this version does not know
// are refused, for they may change what the job means.
//
// The error says what is wrong with the body; the spec returned with it holds
// whatever could be read and always has a nonce.
func DecodeSpec(body []byte, lane string, nonce Nonce) (Spec, error) {
	spec, err := decodeSpec(body)
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
	case spec.Task == "" && byHand:
		spec.Task = lane
	}
	if err := spec.Check(); err != nil {
		return spec, err
	}
	if spec.Task != lane {
		return spec, fmt.Errorf("body is of task %q and was published on the lane of task %q", spec.Task, lane)
	}
	return spec, nil
}

func decodeSpec(body []byte) (Spec, error) {
	if isJSON(body) {
		return decodeJSON(body)
	}
	var spec Spec
	if err := decode(body, &spec); err != nil {
		return Spec{Nonce: spec.Nonce}, err
	}
	spec.At = spec.At.UTC()
	return spec, nil
}

func isJSON(body []byte) bool {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{'
}

// jsonSpec is a Spec as a person or a program without msgpack writes it. Only
// the argument is common; everything else has a default.
type jsonSpec struct {
	Version int             `json:"v"`
	Nonce   Nonce           `json:"nonce"`
	Task    string          `json:"task"`
	Arg     json.RawMessage `json:"arg"`
	Timeout string          `json:"timeout"`
	Keep    string          `json:"keep"`
	Retry   Retry           `json:"retry"`
	By      string          `json:"by"`
	At      time.Time       `json:"at"`
}

func decodeJSON(body []byte) (Spec, error) {
	read := jsonSpec{Version: SpecVersion}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return Spec{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Spec{}, errors.New("more text after the object")
	}
	spec := Spec{
		Version: read.Version, Nonce: read.Nonce, Task: read.Task,
		Retry: read.Retry, By: read.By, At: read.At.UTC(),
	}
	if arg := bytes.TrimSpace(read.Arg); len(arg) > 0 && !bytes.Equal(arg, []byte("null")) {
		spec.Arg = Value{Encoding: JSON, Data: arg}
	}
	var err error
	if read.Timeout != "" {
		if spec.Timeout, err = time.ParseDuration(read.Timeout); err != nil {
			return spec, fmt.Errorf("timeout: %w", err)
		}
	}
	if spec.Keep, err = ParseKeep(read.Keep); err != nil {
		return spec, err
	}
	return spec, nil
}

// EncodeRecord writes a record.
func EncodeRecord(r Record) ([]byte, error) {
	r.Put, r.Started, r.Ended = r.Put.UTC(), r.Started.UTC(), r.Ended.UTC()
	data, err := encode(r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return data, nil
}

// DecodeRecord reads a record. Keys that this version does not know are
// skipped: a record is a fact, and what is known of it stays true.
func DecodeRecord(data []byte) (Record, error) {
	var r Record
	if err := msgpack.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("record cannot be read: %w", err)
	}
	if r.Version != RecordVersion {
		return Record{}, fmt.Errorf("record has version %d, this program reads version %d", r.Version, RecordVersion)
	}
	r.Put, r.Started, r.Ended = r.Put.UTC(), r.Started.UTC(), r.Ended.UTC()
	return r, nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := msgpack.GetEncoder()
	defer msgpack.PutEncoder(encoder)
	encoder.Reset(&b)
	encoder.UseCompactInts(true)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decode(data []byte, into any) error {
	reader := bytes.NewReader(data)
	decoder := msgpack.GetDecoder()
	defer msgpack.PutDecoder(decoder)
	decoder.Reset(reader)
	decoder.DisallowUnknownFields(true)
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if reader.Len() > 0 {
		return fmt.Errorf("%d bytes too many", reader.Len())
	}
	return nil
}
