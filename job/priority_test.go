package job_test

import (
	"encoding/json"
	"testing"

	"github.com/asyncnats/asyncnats/job"
)

func TestPriority(t *testing.T) {
	for text, want := range map[string]job.Priority{"high": job.High, "normal": job.Normal, "low": job.Low} {
		if got, err := job.ParsePriority(text); err != nil || got != want || got.String() != text || got.Check() != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		data, err := json.Marshal(want)
		var got job.Priority
		if err != nil || string(data) != `"`+text+`"` || json.Unmarshal(data, &got) != nil || got != want {
			t.Errorf("%s in JSON: %s, %v, %v", text, data, got, err)
		}
	}
	if p, err := job.ParsePriority(""); err != nil || p != job.Normal {
		t.Errorf("no text: %v, %v", p, err)
	}
	for _, text := range []string{"High", "urgent", "1", " low", "priority(2)"} {
		_, err := job.ParsePriority(text)
		checkError(t, text, err, "must be high, normal or low")
	}
	for _, p := range []job.Priority{-2, 2, 127} {
		checkError(t, p.String(), p.Check(), "must be Low, Normal or High")
		spec := job.Spec{Version: 1, Nonce: nonce, Task: "a", Priority: p}
		checkError(t, p.String(), spec.Check(), "must be Low, Normal or High")
		_, err := job.EncodeSpec(spec)
		checkError(t, p.String(), err, "must be Low, Normal or High")
		if data, err := json.Marshal(p); err == nil {
			t.Errorf("%v in JSON: %s", p, data)
		}
	}
}

// A body whose priority is not its lane's is refused; one by hand that says
// nothing has its lane's.
func TestDecodePriority(t *testing.T) {
	for name, row := range map[string]struct {
		body string
		lane job.Priority
		says string // of the error, empty for none
	}{
		"nothing said":             {`{}`, job.High, ""},
		"null":                     {`{"priority":null}`, job.Low, ""},
		"no text":                  {`{"priority":""}`, job.Low, ""},
		"repeated":                 {`{"priority":"high"}`, job.High, ""},
		"normal, said":             {`{"priority":"normal"}`, job.Normal, ""},
		"normal on another lane":   {`{"priority":"normal"}`, job.High, "body has priority normal and was published on a lane of priority high"},
		"high on the normal lane":  {`{"priority":"high"}`, job.Normal, "body has priority high and was published on a lane of priority normal"},
		"the opposite of its lane": {`{"priority":"low"}`, job.High, "body has priority low and was published on a lane of priority high"},
		"none that there is":       {`{"priority":"urgent"}`, job.High, `unknown priority "urgent": must be high, normal or low`},
		"a number":                 {`{"priority":1}`, job.High, `"priority" is of JSON type number: must be a string`},
		"a key in another letter":  {`{"Priority":"high"}`, job.High, `unknown key "Priority"`},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := job.DecodeSpec([]byte(row.body), "text.shout", nil, row.lane, other)
			if row.says != "" {
				checkError(t, "body", err, row.says)
			} else if err != nil || spec.Priority != row.lane {
				t.Errorf("priority %v, %v; want %v", spec.Priority, err, row.lane)
			}
		})
	}
	// A body that a program wrote says it, always.
	for _, has := range []job.Priority{job.Low, job.Normal, job.High} {
		data, err := job.EncodeSpec(job.Spec{Version: 1, Nonce: nonce, Task: "text.shout", Priority: has})
		if err != nil {
			t.Fatal(err)
		}
		for _, lane := range []job.Priority{job.Low, job.Normal, job.High} {
			spec, err := job.DecodeSpec(data, "text.shout", nil, lane, other)
			if has != lane {
				checkError(t, "msgpack", err, "and was published on a lane of priority "+lane.String())
			} else if err != nil || spec.Priority != has {
				t.Errorf("msgpack of priority %v: %v, %v", has, spec.Priority, err)
			}
		}
	}
	for name, value := range map[string]any{"a number": 1, "another word": "urgent", "nil": nil} {
		_, err := job.DecodeSpec(body(t, fields{"priority": value}), "text.shout", nil, job.High, other)
		if err == nil {
			t.Errorf("%s in msgpack: no error", name)
		}
	}
	if _, err := job.DecodeSpec(body(t, fields{"priority": "normal"}), "text.shout", nil, job.Normal, other); err != nil {
		t.Errorf("normal in msgpack: %v", err)
	}
}
