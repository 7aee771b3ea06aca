package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"
)

// jsonSpec is a Spec as a person or a program without msgpack writes it. Only
// the argument is common; everything else has a default. A composition is not
// written like that.
type jsonSpec struct {
	Version   int               `json:"v"`
	Nonce     Nonce             `json:"nonce"`
	Task      string            `json:"task"`
	Arg       json.RawMessage   `json:"arg"`
	Quotas    []string          `json:"quotas"`
	Priority  string            `json:"priority"`
	Timeout   string            `json:"timeout"`
	Keep      string            `json:"keep"`
	Retry     jsonRetry         `json:"retry"`
	Begin     time.Time         `json:"begin"`
	Deadline  time.Time         `json:"deadline"`
	Callbacks []jsonCallback    `json:"callbacks"`
	Trace     map[string]string `json:"trace"`
	By        string            `json:"by"`
	At        time.Time         `json:"at"`
}

// jsonCallback is a Callback in such a body.
type jsonCallback struct {
	On   On       `json:"on"`
	Call jsonCall `json:"call"`
}

// jsonCall is a Call in such a body.
type jsonCall struct {
	Task      string          `json:"task"`
	Arg       json.RawMessage `json:"arg"`
	Queue     string          `json:"queue"`
	Quotas    []string        `json:"quotas"`
	Priority  string          `json:"priority"`
	Timeout   string          `json:"timeout"`
	Keep      string          `json:"keep"`
	Retry     jsonRetry       `json:"retry"`
	Begin     time.Time       `json:"begin"`
	Delay     string          `json:"delay"`
	Within    string          `json:"within"`
	Callbacks []jsonCallback  `json:"callbacks"`
}

func (c jsonCall) call() (call Call, err error) {
	call = Call{Task: c.Task, Arg: jsonValue(c.Arg), Queue: c.Queue, Quotas: c.Quotas, Begin: c.Begin.UTC()}
	if call.Priority, err = ParsePriority(c.Priority); err != nil {
		return Call{}, err
	}
	for key, row := range map[string]struct {
		text string
		into *time.Duration
	}{"timeout": {c.Timeout, &call.Timeout}, "delay": {c.Delay, &call.Delay}, "within": {c.Within, &call.Within}} {
		if *row.into, err = duration(key, row.text); err != nil {
			return Call{}, err
		}
	}
	if call.Keep, err = ParseKeep(c.Keep); err != nil {
		return Call{}, err
	}
	if call.Retry, err = c.Retry.retry(); err != nil {
		return Call{}, err
	}
	call.Callbacks, err = callbacksOf(c.Callbacks)
	return call, err
}

// callbacksOf reads callbacks; nil for none.
func callbacksOf(read []jsonCallback) ([]Callback, error) {
	var callbacks []Callback
	for i, c := range read {
		call, err := c.Call.call()
		if err != nil {
			return nil, fmt.Errorf("callbacks[%d].call: %w", i, err)
		}
		callbacks = append(callbacks, Callback{On: c.On, Call: call})
	}
	return callbacks, nil
}

// jsonValue is a value that is written as it is; null and nothing are none.
func jsonValue(text json.RawMessage) Value {
	text = bytes.TrimSpace(text)
	if len(text) == 0 || bytes.Equal(text, []byte("null")) {
		return Value{}
	}
	return Value{Encoding: JSON, Data: text}
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
	if err := checkKeys(json.NewDecoder(bytes.NewReader(body)), "", reflect.TypeFor[jsonSpec]()); err != nil {
		return Spec{}, err
	}
	spec := Spec{
		Version: read.Version, Nonce: read.Nonce, Task: read.Task,
		Arg: jsonValue(read.Arg), Quotas: read.Quotas, Priority: priority, Begin: read.Begin.UTC(), Deadline: read.Deadline.UTC(),
		Trace: read.Trace, By: read.By, At: read.At.UTC(),
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
	if spec.Callbacks, err = callbacksOf(read.Callbacks); err != nil {
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

// checkKeys refuses keys that known, a struct or a list of them, does not have.
// encoding/json would take "Arg" for "arg"; others do not. What it reads, a value
// that is JSON, is read once.
func checkKeys(d *json.Decoder, path string, known reflect.Type) error {
	opening, err := d.Token()
	if err != nil || opening == nil { // null
		return err
	}
	for i := 0; d.More(); i++ {
		var value reflect.Type
		var at string
		if known.Kind() == reflect.Slice {
			value, at = known.Elem(), fmt.Sprintf("%s[%d]", path, i)
		} else if value, at, err = keyOf(d, path, known); err != nil {
			return err
		}
		if !hasKeys(value) {
			var skipped json.RawMessage
			err = d.Decode(&skipped)
		} else {
			err = checkKeys(d, at, value)
		}
		if err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// keyOf reads the next key of an object, and returns the type of its value and where
// that is.
func keyOf(d *json.Decoder, path string, known reflect.Type) (value reflect.Type, at string, err error) {
	read, err := d.Token()
	if err != nil {
		return nil, "", err
	}
	at = fmt.Sprint(read)
	if path != "" {
		at = path + "." + at
	}
	for field := range known.Fields() {
		if field.Tag.Get("json") == read {
			return field.Type, at, nil
		}
	}
	if read == "parts" {
		return nil, "", fmt.Errorf("%q: a composition is not put in JSON: put it with the command line (asyncnats put --parallel) or the Go package", at)
	}
	return nil, "", fmt.Errorf("unknown key %q", at)
}

// hasKeys reports whether keys are to be looked at in values of a type.
func hasKeys(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[jsonRetry](), reflect.TypeFor[jsonCallback](), reflect.TypeFor[[]jsonCallback](), reflect.TypeFor[jsonCall]():
		return true
	}
	return false
}
