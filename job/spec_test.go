package job_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
)

// other is the nonce of a body that brings none.
var other = job.Nonce{0xff, 15: 1}

func jsonArg(text string) job.Value { return job.Value{Encoding: job.JSON, Data: []byte(text)} }

func TestDecodeJSONBody(t *testing.T) {
	rows := map[string]struct {
		body string
		want job.Spec // with Version 1, Task text.shout and the nonce of the place where it is absent
	}{
		"empty":            {`{}`, job.Spec{}},
		"white space":      {" \t\r\n{ \n } \n", job.Spec{}},
		"argument":         {`{"arg":"hello"}`, job.Spec{Arg: jsonArg(`"hello"`)}},
		"argument 0":       {`{"arg":0}`, job.Spec{Arg: jsonArg(`0`)}},
		"argument false":   {`{"arg":false}`, job.Spec{Arg: jsonArg(`false`)}},
		"argument object":  {`{"arg": {"Unknown": [1, 2.50]} }`, job.Spec{Arg: jsonArg(`{"Unknown": [1, 2.50]}`)}},
		"argument null":    {`{"arg": null}`, job.Spec{}},
		"version":          {`{"v":1}`, job.Spec{}},
		"task":             {`{"task":"text.shout"}`, job.Spec{}},
		"nonce":            {`{"nonce":"000102030405060708090a0b0c0d0e0f"}`, job.Spec{Nonce: nonce}},
		"nonce of zeroes":  {`{"nonce":"00000000000000000000000000000000"}`, job.Spec{}},
		"timeout":          {`{"timeout":"1m30s"}`, job.Spec{Timeout: 90 * time.Second}},
		"keep":             {`{"keep":"1h"}`, job.Spec{Keep: job.KeepFor(time.Hour)}},
		"keep none":        {`{"keep":"none"}`, job.Spec{Keep: job.KeepNone}},
		"keep default":     {`{"keep":"default"}`, job.Spec{}},
		"retry":            {`{"retry":{"interrupts":3}}`, job.Spec{Retry: job.Retry{Interrupts: 3}}},
		"retry forever":    {`{"retry":{"interrupts":-1}}`, job.Spec{Retry: job.Retry{Interrupts: job.Forever}}},
		"retry never":      {`{"retry":{"never":true}}`, job.Spec{Retry: job.Retry{Never: true}}},
		"trace":            {`{"trace":{"baggage":"a=b"}}`, job.Spec{Trace: map[string]string{"baggage": "a=b"}}},
		"by":               {`{"by":"web-1"}`, job.Spec{By: "web-1"}},
		"at, in some zone": {`{"at":"2026-03-04T08:06:07.89+03:00"}`, job.Spec{At: put}},
		"callbacks": {`{"callbacks":[{"on":"any","call":{"task":"a.b"}},{"call":{"arg":[ 1 ],"within":"1h","task":"c","callbacks":[{"on":"failure","call":{"task":"d"}}],"begin":"2026-03-04T08:06:07.89+03:00"},"on":"success"}]}`, job.Spec{Callbacks: []job.Callback{
			{On: job.OnAny, Call: job.Call{Task: "a.b"}},
			{On: job.OnSuccess, Call: job.Call{
				Task: "c", Arg: jsonArg("[ 1 ]"), Begin: put, Within: time.Hour,
				Callbacks: []job.Callback{{On: job.OnFailure, Call: job.Call{Task: "d"}}},
			}},
		}}},
		"no callbacks": {`{"callbacks":[]}`, job.Spec{}},
		"absent in a callback": {`{"callbacks":[{"on":"any","call":{"task":"a","arg":null,"queue":null,"quotas":null,"priority":null,"timeout":null,"keep":null,"retry":null,"begin":null,"delay":null,"within":null,"callbacks":null}}]}`,
			job.Spec{Callbacks: []job.Callback{{On: job.OnAny, Call: job.Call{Task: "a"}}}}},
		"everything absent": {`{"v":null,"callbacks":null,"nonce":null,"task":null,"arg":null,"timeout":null,"keep":null,"retry":null,"by":null,"at":null}`, job.Spec{}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			want := row.want
			want.Version, want.Task = 1, "text.shout"
			if want.Nonce.IsZero() {
				want.Nonce = other
			}
			got, err := job.DecodeSpec([]byte(row.body), "text.shout", nil, job.Normal, other)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeJSONBodyRefused(t *testing.T) {
	rows := map[string]struct{ body, want string }{
		"unknown key":            {`{"urgency":3}`, `unknown key "urgency" (docs/protocol.md`},
		"unknown key of retry":   {`{"retry":{"limit":3}}`, `unknown key "retry.limit"`},
		"unknown key of trace":   {`{"trace":{"span":"1"}}`, `unknown key "span" in trace: must be one of`},
		"parts":                  {`{"task":"parallel","parts":{"form":"parallel"}}`, `"parts": a composition is not put in JSON: put it with the command line`},
		"parts of a callback":    {`{"callbacks":[{"on":"any","call":{"task":"parallel","parts":null}}]}`, `"callbacks[0].call.parts": a composition is not put in JSON`},
		"parent":                 {`{"parent":{"queue":"default"}}`, `unknown key "parent"`},
		"callbacks as an object": {`{"callbacks":{"on":"any"}}`, `"callbacks" is of JSON type object: must be a list`},
		"callback as text":       {`{"callbacks":["ops.page"]}`, `"callbacks" is of JSON type string: must be an object`},
		"call as text":           {`{"callbacks":[{"on":"any","call":"ops.page"}]}`, `"callbacks.call" is of JSON type string: must be an object`},
		"on as a number":         {`{"callbacks":[{"on":1}]}`, `"callbacks.on" is of JSON type number: must be a string`},
		"unknown on":             {`{"callbacks":[{"on":"error","call":{"task":"a"}}]}`, `callback a is put on "error": must be success, failure or any`},
		"callback without on":    {`{"callbacks":[{"call":{"task":"a"}}]}`, `callback a is put on "": must be`},
		"callback without call":  {`{"callbacks":[{"on":"any"}]}`, `callback on any: call of : `},
		"null for a callback":    {`{"callbacks":[null]}`, `is put on "": must be`},
		"unknown in a callback":  {`{"callbacks":[{"on":"any","call":{"task":"a"},"if":1}]}`, `unknown key "callbacks[0].if"`},
		"unknown in a call":      {`{"callbacks":[{"on":"any","call":{"task":"a"}},{"on":"any","call":{"Task":"a"}}]}`, `unknown key "callbacks[1].call.Task"`},
		"nonce of a call":        {`{"callbacks":[{"on":"any","call":{"task":"a","nonce":"00"}}]}`, `unknown key "callbacks[0].call.nonce"`},
		"unknown deep down":      {`{"callbacks":[{"on":"any","call":{"task":"a","callbacks":[{"on":"any","call":{"task":"b","retry":{"limit":1}}}]}}]}`, `unknown key "callbacks[0].call.callbacks[0].call.retry.limit"`},
		"timeout of a call":      {`{"callbacks":[{"on":"any","call":{"task":"a","timeout":"soon"}}]}`, `callbacks[0].call: timeout "soon": must be a duration`},
		"delay of a call":        {`{"callbacks":[{"on":"any","call":{"task":"a","delay":"1"}}]}`, `callbacks[0].call: delay "1": must be a duration`},
		"negative delay":         {`{"callbacks":[{"on":"any","call":{"task":"a","delay":"-1s"}}]}`, `must not be negative`},
		"keep of a call":         {`{"callbacks":[{"on":"any","call":{"task":"a","keep":"long"}}]}`, `callbacks[0].call: keep "long"`},
		"retry of a call":        {`{"callbacks":[{"on":"any","call":{"task":"a","retry":{"min":"x"}}}]}`, `callbacks[0].call: retry.min "x"`},
		"priority of a call":     {`{"callbacks":[{"on":"any","call":{"task":"a","priority":"urgent"}}]}`, `callbacks[0].call: `},
		"queue of a call":        {`{"callbacks":[{"on":"any","call":{"task":"a","queue":"a b"}}]}`, `callback on any: `},
		"trace as text":          {`{"trace":"00-1"}`, `"trace" is of JSON type string: must be an object`},
		"number in trace":        {`{"trace":{"baggage":1}}`, `is of JSON type number: must be a string`},
		"key in capitals":        {`{"Arg":3}`, `unknown key "Arg"`},
		"retry key in capitals":  {`{"retry":{"NEVER":true}}`, `unknown key "retry.NEVER"`},
		"attempt by hand":        {`{"attempt":1}`, `unknown key "attempt"`},
		"newer version":          {`{"v":2}`, "body has version 2, this program reads version 1: use the same release on both sides, dispatchers first"},
		"newer with newer keys":  {`{"v":2,"urgency":3}`, "body has version 2"},
		"version 0":              {`{"v":0}`, "body has version 0"},
		"other task":             {`{"task":"text.whisper"}`, `body is of task "text.whisper" and was published on the lane of task "text.shout"`},
		"illegal task":           {`{"task":"a b"}`, "must be 1 to 128 letters"},
		"short nonce":            {`{"nonce":"00"}`, "nonce of 2 characters: want 32 hexadecimal digits"},
		"long nonce":             {`{"nonce":"000102030405060708090a0b0c0d0e0f10"}`, "nonce of 34 characters"},
		"nonce of other letters": {`{"nonce":"z00102030405060708090a0b0c0d0e0f"}`, "nonce: "},
		"nonce as number":        {`{"nonce":1}`, `"nonce" is of JSON type number: must be a string`},
		"timeout as number":      {`{"timeout":30}`, `"timeout" is of JSON type number: must be a string`},
		"timeout without unit":   {`{"timeout":"30"}`, `timeout "30": must be a duration like 1m30s`},
		"negative timeout":       {`{"timeout":"-1s"}`, "timeout -1s is negative"},
		"negative keep":          {`{"keep":"-1s"}`, "must be none, default or a positive duration"},
		"keep as number":         {`{"keep":60}`, `"keep" is of JSON type number`},
		"retry as text":          {`{"retry":"never"}`, `"retry" is of JSON type string: must be an object`},
		"never as number":        {`{"retry":{"never":1}}`, `"retry.never" is of JSON type number: must be true or false`},
		"interrupts as text":     {`{"retry":{"interrupts":"3"}}`, `"retry.interrupts" is of JSON type string: must be a whole number`},
		"negative interrupts":    {`{"retry":{"interrupts":-2}}`, "interrupts -2: must be 0"},
		"contradiction":          {`{"retry":{"never":true,"interrupts":1}}`, "exclude each other"},
		"time of no zone":        {`{"at":"2026-03-04"}`, "body cannot be read"},
		"two objects":            {`{}{}`, "more text after the object"},
		"begin, far ahead":       {`{"begin":"9999-12-31T23:59:59Z"}`, "begin 9999-12-31T23:59:59Z: must lie between the years 1700 and 2250"},
		"begin, long ago":        {`{"begin":"1066-10-14T09:00:00Z"}`, "begin 1066-10-14T09:00:00Z: must lie"},
		"deadline, far ahead":    {`{"deadline":"2250-01-01T00:00:00Z"}`, "deadline 2250-01-01T00:00:00Z: must lie"},
		"within ages":            {`{"callbacks":[{"on":"any","call":{"task":"a","delay":"800000h","within":"80000h"}}]}`, "100 years at most, together"},
		"trailing text":          {`{} x`, "more text after the object"},
		"trailing NUL":           {"{}\x00", "more text after the object"},
		"cut off":                {`{"arg":`, "unexpected EOF"},
		"single quotes":          {`{'arg':1}`, "invalid character"},
		"too deep":               {`{"arg":` + strings.Repeat("[", 1<<20), "depth"},
		"byte order mark":        {"\ufeff{}", "neither a msgpack map nor a JSON object"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { refused(t, []byte(row.body), row.want) })
	}
}

// refused checks that a body is refused with a text, and that the spec that
// comes with the error has a nonce.
func refused(t *testing.T, body []byte, want string) {
	t.Helper()
	spec, err := job.DecodeSpec(body, "text.shout", nil, job.Normal, other)
	checkError(t, "body", err, want)
	if spec.Nonce.IsZero() {
		t.Error("the spec has no nonce")
	}
}

// fields is a msgpack body under construction.
type fields map[string]any

func body(t *testing.T, change fields) []byte {
	t.Helper()
	whole := fields{"v": 1, "nonce": nonce[:], "task": "text.shout"}
	for key, value := range change {
		whole[key] = value
		if value == absent {
			delete(whole, key)
		}
	}
	data, err := msgpack.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const absent = "absent"

func TestDecodeMsgpackBodyRefused(t *testing.T) {
	rows := map[string]struct {
		change fields
		want   string
	}{
		"unknown key":              {fields{"urgency": 3}, `unknown field "urgency" (docs/protocol.md`},
		"unknown key of arg":       {fields{"arg": fields{"encoding": "json"}}, `unknown field "encoding"`},
		"unknown key of retry":     {fields{"retry": fields{"limit": 3}}, `unknown field "limit"`},
		"unknown key of trace":     {fields{"trace": fields{"span": "1"}}, `unknown key "span" in trace`},
		"trace as text":            {fields{"trace": "00-1"}, "body cannot be read"},
		"newer version":            {fields{"v": 2}, "body has version 2, this program reads version 1: use the same release"},
		"newer with newer keys":    {fields{"v": 2, "aaa": 1, "zzz": 1}, "body has version 2"},
		"no version":               {fields{"v": absent}, "body has version 0"},
		"no nonce":                 {fields{"nonce": absent}, "body has no nonce: draw 16 random bytes for each job"},
		"nil nonce":                {fields{"nonce": nil}, "body has no nonce"},
		"nonce of zeroes":          {fields{"nonce": make([]byte, 16)}, "body has no nonce"},
		"short nonce":              {fields{"nonce": nonce[:15]}, "nonce of 15 bytes: want 16"},
		"long nonce":               {fields{"nonce": append(nonce[:], 0)}, "nonce of 17 bytes: want 16"},
		"nonce in hexadecimal":     {fields{"nonce": nonce.String()}, "nonce of 32 bytes: want 16"},
		"nonce as number":          {fields{"nonce": 7}, "body cannot be read"},
		"no task":                  {fields{"task": absent}, "illegal task name"},
		"other task":               {fields{"task": "text.whisper"}, `published on the lane of task "text.shout"`},
		"illegal task":             {fields{"task": "text.*"}, "illegal task name"},
		"unknown encoding":         {fields{"arg": fields{"enc": "yaml", "data": []byte("a")}}, `unknown encoding "yaml": must be "json", or absent for msgpack`},
		"negative timeout":         {fields{"timeout": -1}, "timeout -1ns is negative"},
		"timeout beyond 63 bits":   {fields{"timeout": uint64(1 << 63)}, "is negative"},
		"negative keep":            {fields{"keep": -2}, "use KeepNone"},
		"negative interrupts":      {fields{"retry": fields{"interrupts": -2}}, "interrupts -2: must be 0"},
		"contradiction":            {fields{"retry": fields{"never": true, "interrupts": 2}}, "exclude each other"},
		"negative attempt":         {fields{"attempt": -1}, "attempt -1 is negative"},
		"attempt as text":          {fields{"attempt": "1"}, "body cannot be read"},
		"again as number":          {fields{"again": 1}, "body cannot be read"},
		"nil time":                 {fields{"at": nil}, "a nil for a time"},
		"time as number":           {fields{"at": 1700000000}, "body cannot be read"},
		"argument outside of data": {fields{"arg": "hello"}, "body cannot be read"},
		"several at once":          {fields{"timeout": -1, "attempt": -1, "v": 3}, "attempt -1 is negative"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { refused(t, body(t, row.change), row.want) })
	}
}

func TestDecodeOddBodies(t *testing.T) {
	whole := body(t, nil)
	list, err := msgpack.Marshal([]any{1, nonce[:], "text.shout"})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		body []byte
		want string
	}{
		"nil":            {nil, `neither a msgpack map nor a JSON object, but "": the least is {}`},
		"white space":    {[]byte(" \n"), "neither a msgpack map nor a JSON object"},
		"plain text":     {[]byte("hello"), `neither a msgpack map nor a JSON object, but "hello"`},
		"JSON string":    {[]byte(`"hello"`), "neither a msgpack map nor a JSON object"},
		"JSON list":      {[]byte(`[1]`), "neither a msgpack map nor a JSON object"},
		"msgpack nil":    {[]byte{0xc0}, "neither a msgpack map nor a JSON object"},
		"msgpack list":   {list, "neither a msgpack map nor a JSON object"},
		"empty map":      {[]byte{0x80}, "no nonce"},
		"trailing byte":  {append(body(t, nil), 0xc0), "1 bytes too many"},
		"trailing text":  {append(body(t, nil), "{}"...), "2 bytes too many"},
		"two bodies":     {append(body(t, nil), whole...), "bytes too many"},
		"unknown code":   {[]byte{0x81, 0xc1, 0xc0}, "no value that begins with c1"},
		"huge nonce":     {[]byte{0x81, 0xa5, 'n', 'o', 'n', 'c', 'e', 0xc6, 0xff, 0xff, 0xff, 0xff}, "cut off"},
		"huge map":       {[]byte{0xdf, 0xff, 0xff, 0xff, 0xff}, "cut off"},
		"deep nesting":   {append([]byte{0x81, 0xa1, 'x'}, strings.Repeat("\x91", 5000)...), "cut off"},
		"deep and whole": {append(append([]byte{0x81, 0xa1, 'x'}, strings.Repeat("\x91", 1<<20)...), 0xc0), "nested deeper"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, row.body, row.want) })
	}
}

// TestDecodeTruncated cuts bodies off at every byte.
func TestDecodeTruncated(t *testing.T) {
	for name, spec := range specs {
		whole, err := job.EncodeSpec(spec)
		if err != nil {
			t.Fatal(err)
		}
		for n := range whole {
			if _, err := job.DecodeSpec(whole[:n], spec.Task, spec.Quotas, spec.Priority, other); err == nil {
				t.Errorf("%s: the first %d of %d bytes were taken for a body", name, n, len(whole))
			}
		}
	}
	text := `{"nonce":"000102030405060708090a0b0c0d0e0f","task":"text.shout","arg":{"a":["b",1]},"retry":{"interrupts":2}}`
	for n := range text {
		if _, err := job.DecodeSpec([]byte(text[:n]), "text.shout", nil, job.Normal, other); err == nil {
			t.Errorf("%q was taken for a body", text[:n])
		}
	}
}

// TestRefusedBodyKeepsItsNonce proves that a job whose body cannot be read has
// the identity by which its producer waits for it.
func TestRefusedBodyKeepsItsNonce(t *testing.T) {
	text := func(s string) []byte { return []byte(`{"nonce":"` + nonce.String() + `",` + s + `}`) }
	for name, body := range map[string][]byte{
		"newer version":            body(t, fields{"v": 2, "aaa": 1}),
		"unknown key":              body(t, fields{"zzz": fields{"a": []any{1, nil}}}),
		"wrong type":               body(t, fields{"attempt": "x"}),
		"negative":                 body(t, fields{"attempt": -1}),
		"other task":               body(t, fields{"task": "a"}),
		"nil time":                 body(t, fields{"at": nil}),
		"JSON, newer version":      text(`"v":2,"aaa":1`),
		"JSON, unknown key":        text(`"aaa":1`),
		"JSON, wrong type":         text(`"timeout":1`),
		"JSON, timeout not so":     text(`"timeout":"soon"`),
		"JSON, keep not so":        text(`"keep":"long"`),
		"JSON, time not so":        text(`"at":"soon"`),
		"JSON, unknown in a retry": text(`"retry":{"x":1}`),
	} {
		spec, err := job.DecodeSpec(body, "text.shout", nil, job.Normal, other)
		if err == nil || spec.Nonce != nonce {
			t.Errorf("%s: nonce %v, err %v", name, spec.Nonce, err)
		}
	}
}
