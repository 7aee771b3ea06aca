package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// jsonSpec is a Spec as a person or a program without msgpack writes it. Only
// the argument is common; everything else has a default.
type jsonSpec struct {
	Version  int               `json:"v"`
	Nonce    Nonce             `json:"nonce"`
	Task     string            `json:"task"`
	Arg      json.RawMessage   `json:"arg"`
	Quotas   []string          `json:"quotas"`
	Priority string            `json:"priority"`
	Timeout  string            `json:"timeout"`
	Keep     string            `json:"keep"`
	Retry    jsonRetry         `json:"retry"`
	Begin    time.Time         `json:"begin"`
	Deadline time.Time         `json:"deadline"`
	Trace    map[string]string `json:"trace"`
	By       string            `json:"by"`
	At       time.Time         `json:"at"`
}

// jsonRetry is a Retry in such a body.
type jsonRetry struct {
	Never      bool    `json:"never"`
	Interrupts int     `json:"interrupts"`
	Max        int     `json:"max"`
	Min        string  `json:"min"`
	Cap        string  `json:"cap"`
	Jitter     float64 `json:"jitter"`
}

func (r jsonRetry) retry() (Retry, error) {
	shortest, err := duration("retry.min", r.Min)
	if err != nil {
		return Retry{}, err
	}
	longest, err := duration("retry.cap", r.Cap)
	return Retry{Never: r.Never, Interrupts: r.Interrupts, Max: r.Max, Min: shortest, Cap: longest, Jitter: r.Jitter}, err
}

// duration reads a duration, 0 for an empty text.
func duration(key, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s %q: must be a duration like 1m30s", key, text)
	}
	return d, nil
}

// decodeJSON reads a body by hand. priority is that of one which says nothing
// of it; of all other keys the zero value says nothing.
func decodeJSON(body []byte, priority Priority) (Spec, error) {
	read := jsonSpec{Version: SpecVersion}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if err := decoder.Decode(&read); err != nil {
		return Spec{}, plain(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Spec{}, errors.New("more text after the object")
	}
	if err := checkKeys(body, "", reflect.TypeFor[jsonSpec]()); err != nil {
		return Spec{}, err
	}
	spec := Spec{
		Version: read.Version, Nonce: read.Nonce, Task: read.Task,
		Quotas: read.Quotas, Priority: priority, Begin: read.Begin.UTC(), Deadline: read.Deadline.UTC(),
		Trace: read.Trace, By: read.By, At: read.At.UTC(),
	}
	if arg := bytes.TrimSpace(read.Arg); len(arg) > 0 && !bytes.Equal(arg, []byte("null")) {
		spec.Arg = Value{Encoding: JSON, Data: arg}
	}
	var err error
	if read.Priority != "" {
		if spec.Priority, err = ParsePriority(read.Priority); err != nil {
			return Spec{}, err
		}
	}
	if spec.Timeout, err = duration("timeout", read.Timeout); err != nil {
		return Spec{}, err
	}
	if spec.Retry, err = read.Retry.retry(); err != nil {
		return Spec{}, err
	}
	if spec.Keep, err = ParseKeep(read.Keep); err != nil {
		return Spec{}, err
	}
	return spec, nil
}

// plain says what a JSON value of the wrong type should be, without the names
// of this program.
func plain(err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err
	}
	var want string
	switch wrong.Type.Kind() {
	case reflect.String, reflect.Array: // the nonce is an array of bytes
		want = "a string"
	case reflect.Slice:
		want = "a list"
	case reflect.Int:
		want = "a whole number"
	case reflect.Float64:
		want = "a number"
	case reflect.Bool:
		want = "true or false"
	default:
		want = "an object"
	}
	return fmt.Errorf("%q is of JSON type %s: must be %s", wrong.Field, wrong.Value, want)
}

// checkKeys refuses keys that known, a struct, does not have. encoding/json
// would take "Arg" for "arg"; others do not.
func checkKeys(object []byte, path string, known reflect.Type) error {
	var found map[string]json.RawMessage
	if err := json.Unmarshal(object, &found); err != nil {
		return err
	}
	for field := range known.Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if nested, ok := found[key]; ok && field.Type == reflect.TypeFor[jsonRetry]() {
			if err := checkKeys(nested, path+key+".", field.Type); err != nil {
				return err
			}
		}
		delete(found, key)
	}
	if len(found) > 0 {
		return fmt.Errorf("unknown key %q", path+slices.Min(slices.Collect(maps.Keys(found))))
	}
	return nil
}
