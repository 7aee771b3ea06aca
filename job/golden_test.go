package job_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

// go test ./job -update writes the golden files and what the documentation
// repeats of them. A changed golden file of a spec or a record is a changed
// protocol: jobs of the old release are waiting in queues.
var update = flag.Bool("update", false, "write the golden files and the documentation's copies of them")

var (
	nonce = job.Nonce{0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f}
	put   = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)
	first = job.Attempt{
		Number: 1, Token: 0x1122334455667788,
		Dispatcher: "3f0e5b4e-8a41-4a53-9d3c-7a2f6f0a1b2c", Agent: "main",
	}
)

// specs are the bodies of the golden files.
var specs = map[string]job.Spec{
	"spec-minimal": {Version: 1, Nonce: nonce, Task: "text.shout"},
	"spec-full": {
		Version: 1, Nonce: nonce, Task: "image.thumbnail",
		Arg:     job.Value{Encoding: job.JSON, Data: []byte(`{"name":"cat.png"}`)},
		Timeout: 90 * time.Second,
		Keep:    job.KeepFor(30 * time.Minute),
		Retry:   job.Retry{Interrupts: 2},
		By:      "web-1",
		At:      put,
	},
	"spec-again": {
		Version: 1, Nonce: nonce, Task: "text.shout",
		Arg:     job.Value{Data: []byte{0xa5, 'h', 'e', 'l', 'l', 'o'}},
		Keep:    job.KeepNone,
		Retry:   job.Retry{Never: true},
		Attempt: 2,
		Again:   true,
	},
	"spec-timed": {
		Version: 1, Nonce: nonce, Task: "text.shout",
		Begin: put.Add(time.Hour), Deadline: put.Add(2 * time.Hour),
		Retry: job.Retry{Max: 4, Min: 2 * time.Second, Cap: time.Minute, Jitter: 0.5},
	},
	"spec-trace": {
		Version: 1, Nonce: nonce, Task: "text.shout",
		Trace: map[string]string{
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			"tracestate":  "vendor=abc",
			"baggage":     "tenant=acme,user=ada",
		},
	},
	"spec-quotas":   {Version: 1, Nonce: nonce, Task: "image.thumbnail", Quotas: []string{"db", "gpu"}},
	"spec-priority": {Version: 1, Nonce: nonce, Task: "image.thumbnail", Quotas: []string{"gpu"}, Priority: job.High},

	"spec-callbacks":    callbacksSpec,
	"spec-parent":       parentSpec,
	"spec-parts":        partsSpec,
	"spec-parts-beside": besideSpec,
}

// records are the records of the golden files.
var records = map[string]job.Record{
	"record-active": {
		Version: 1, Nonce: nonce, Task: "text.shout", State: job.Active,
		Attempt: job.Attempt{Number: 2, Token: 42, Dispatcher: first.Dispatcher, Agent: "main"}, Tally: job.Tally{Interrupts: 1},
		Put: put, Started: put.Add(20 * time.Second),
	},
	"record-completed": {
		Version: 1, Nonce: nonce, Task: "text.shout", State: job.Completed, Attempt: first,
		Outcome: &job.Outcome{Result: job.Value{Data: []byte{0xa5, 'H', 'E', 'L', 'L', 'O'}}},
		By:      "web-1", Put: put, Started: put.Add(time.Millisecond), Ended: put.Add(5 * time.Millisecond),
	},
	"record-failed": {
		Version: 1, Nonce: nonce, Task: "text.shout", State: job.Completed, Attempt: first,
		Outcome: &job.Outcome{Failure: &job.Failure{
			Kind: job.KindPanic, Message: "out of breath", Type: "string", Stack: "goroutine 7 [running]:\n…",
			Attempt: 1, Dispatcher: first.Dispatcher, Agent: "main", At: put.Add(5 * time.Millisecond),
		}},
		By: "web-1", Put: put, Started: put.Add(time.Millisecond), Ended: put.Add(5 * time.Millisecond),
	},
	"record-retrying": {
		Version: 1, Nonce: nonce, Task: "text.shout", State: job.Retrying, Attempt: first,
		Tally: job.Tally{Errors: 2, Snoozes: 1}, Message: 1, Due: put.Add(time.Minute),
		Past: []job.Failure{{Kind: job.KindError, Message: "no answer", Type: "*net.OpError", Attempt: 1, At: put.Add(5 * time.Millisecond)}},
		Put:  put, Started: put.Add(time.Millisecond), Ended: put.Add(5 * time.Millisecond),
	},
	"record-quotas": {
		Version: 1, Nonce: nonce, Task: "image.thumbnail", Quotas: []string{"db", "gpu"}, State: job.Active, Attempt: first,
		Put: put, Started: put.Add(time.Millisecond),
	},
	"record-priority": {
		Version: 1, Nonce: nonce, Task: "image.thumbnail", Priority: job.Low, State: job.Active, Attempt: first,
		Put: put, Started: put.Add(time.Millisecond),
	},

	"record-waiting":         waitingRecord,
	"record-waiting-task":    delegatedRecord,
	"record-called":          calledRecord,
	"record-added-callbacks": addedRecord,
}

// dead are the entries of the golden files.
var dead = map[string]job.Dead{
	"dead":     {Version: 1, Body: encoded(specs["spec-minimal"]), Record: records["record-failed"]},
	"dead-cut": {Version: 1, Body: encoded(specs["spec-minimal"]), Record: records["record-failed"], Cut: []string{job.CutStack, job.CutArg}},
}

// encoded is a spec as its message has it.
func encoded(spec job.Spec) []byte {
	data, err := job.EncodeSpec(spec)
	if err != nil {
		panic(err)
	}
	return data
}

func TestGoldenSpecs(t *testing.T) {
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			data, err := job.EncodeSpec(spec)
			if err != nil {
				t.Fatal(err)
			}
			stored := golden(t, name+".hex", annotate(t, data))
			got, err := job.DecodeSpec(undump(t, stored), spec.Task, spec.Quotas, spec.Priority, job.Nonce{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(spec, got); diff != "" {
				t.Errorf("decoded from the golden file (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGoldenJSONBodies reads the bodies written by hand, which say the same
// as the msgpack ones of the same name.
func TestGoldenJSONBodies(t *testing.T) {
	for _, name := range []string{"spec-minimal", "spec-full", "spec-timed", "spec-trace", "spec-quotas", "spec-priority", "spec-callbacks"} {
		body, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := job.DecodeSpec(body, specs[name].Task, specs[name].Quotas, specs[name].Priority, job.Nonce{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(specs[name], got); diff != "" {
			t.Errorf("%s (-msgpack +json):\n%s", name, diff)
		}
	}
}

func TestGoldenRecords(t *testing.T) {
	for name, record := range records {
		t.Run(name, func(t *testing.T) {
			data, err := job.EncodeRecord(record)
			if err != nil {
				t.Fatal(err)
			}
			stored := golden(t, name+".hex", annotate(t, data))
			got, err := job.DecodeRecord(undump(t, stored))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(record, got); diff != "" {
				t.Errorf("decoded from the golden file (-want +got):\n%s", diff)
			}
			text, err := json.MarshalIndent(record, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", string(text)+"\n")
		})
	}
}

func TestGoldenDead(t *testing.T) {
	for name, entry := range dead {
		t.Run(name, func(t *testing.T) {
			data, err := job.EncodeDead(entry)
			if err != nil {
				t.Fatal(err)
			}
			stored := golden(t, name+".hex", annotate(t, data))
			got, err := job.DecodeDead(undump(t, stored))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(entry, got); diff != "" {
				t.Errorf("decoded from the golden file (-want +got):\n%s", diff)
			}
		})
	}
}

// TestVectorsOfTheDocumentation holds the golden files against their copies
// in docs/protocol.md.
func TestVectorsOfTheDocumentation(t *testing.T) {
	for _, name := range []string{"spec-minimal", "spec-full", "spec-again", "spec-priority", "spec-trace", "spec-callbacks", "spec-parent",
		"spec-parts", "spec-parts-beside", "calls", "record-active", "record-completed", "record-failed", "record-waiting", "record-waiting-task", "record-called",
		"outcomes", "bound", "dead", "note"} {
		dump, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
		if err != nil {
			t.Fatal(err)
		}
		section(t, "../docs/protocol.md", name, "```text\n"+string(dump)+"```\n")
	}
	body, err := os.ReadFile("testdata/spec-full.json")
	if err != nil {
		t.Fatal(err)
	}
	section(t, "../docs/protocol.md", "spec-full in JSON", "```json\n"+string(body)+"```\n")
	if body, err = os.ReadFile("testdata/spec-callbacks.json"); err != nil {
		t.Fatal(err)
	}
	section(t, "../docs/protocol.md", "spec-callbacks in JSON", "```json\n"+string(body)+"```\n")
}

// TestTimesAreUTC proves that what is decoded does not depend on the time
// zone of the program, nor what is encoded.
func TestTimesAreUTC(t *testing.T) {
	zone := time.FixedZone("somewhere", 3*60*60)
	spec := specs["spec-full"]
	spec.At = spec.At.In(zone)
	record := records["record-failed"]
	record.Put, record.Started, record.Ended = put.In(zone), put.In(zone), put.In(zone)
	data, err := job.EncodeSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := job.EncodeSpec(specs["spec-full"]); !bytes.Equal(data, want) {
		t.Error("the time zone changes the body")
	}
	if spec, err = job.DecodeSpec(data, spec.Task, spec.Quotas, spec.Priority, nonce); err != nil || spec.At.Location() != time.UTC {
		t.Errorf("spec: %v, %v", spec.At, err)
	}
	if data, err = job.EncodeRecord(record); err != nil {
		t.Fatal(err)
	}
	if record, err = job.DecodeRecord(data); err != nil {
		t.Fatal(err)
	}
	for field, at := range map[string]time.Time{"put": record.Put, "started": record.Started, "ended": record.Ended, "at": record.Outcome.Failure.At} {
		if at.Location() != time.UTC {
			t.Errorf("%s is in %v", field, at.Location())
		}
	}
}

// TestEmptyOutcome proves that a job without a result has an outcome all the
// same, by which it is known to have succeeded.
func TestEmptyOutcome(t *testing.T) {
	record := records["record-completed"]
	record.Outcome = &job.Outcome{}
	data, err := job.EncodeRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	got, err := job.DecodeRecord(data)
	if err != nil || got.Outcome == nil || !got.Outcome.Succeeded() {
		t.Errorf("outcome %v, err %v", got.Outcome, err)
	}
}

func TestDecodeRecordRefused(t *testing.T) {
	whole, err := job.EncodeRecord(records["record-failed"])
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := job.DecodeRecord(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were taken for a record", n, len(whole))
		}
	}
	for name, row := range map[string]struct{ data, want string }{
		"nothing":        {"", "no msgpack map"},
		"JSON":           {"{}", "no msgpack map"},
		"list":           {"\x91\x01", "no msgpack map"},
		"no version":     {"\x80", "record has version 0, this program reads version 1"},
		"newer version":  {"\x81\xa1v\x02", "record has version 2"},
		"nil time":       {"\x81\xa3put\xc0", "a nil for a time"},
		"trailing bytes": {string(whole) + "\xc0", "1 bytes too many"},
	} {
		_, err := job.DecodeRecord([]byte(row.data))
		checkError(t, name, err, row.want)
	}
}

// TestRecordOfALaterRelease proves that keys that are not known are skipped.
func TestRecordOfALaterRelease(t *testing.T) {
	got, err := job.DecodeRecord([]byte("\x83\xa1v\x01\xa3new\x81\xa1a\x92\xc0\x01\xa5state\xa6active"))
	if err != nil || got.State != job.Active {
		t.Errorf("%v, %v", got, err)
	}
}

// golden compares got with a file of testdata, or writes it there, and
// returns what the file holds.
func golden(t *testing.T, name, got string) string {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		write(t, path, got)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-file +got):\n%s", path, diff)
	}
	return string(want)
}

// section compares got with the part of a document that is marked with name,
// or writes it there.
func section(t *testing.T, path, name, got string) {
	t.Helper()
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(document), "<!-- begin: "+name+" -->\n")
	want, after, ended := strings.Cut(rest, "<!-- end: "+name+" -->\n")
	if !found || !ended {
		t.Fatalf("%s has no section marked %q", path, name)
	}
	if *update {
		write(t, path, before+"<!-- begin: "+name+" -->\n"+got+"<!-- end: "+name+" -->\n"+after)
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, %s: go test ./job -update brings it up to date (-document +got):\n%s", path, name, diff)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// undump reads a hex dump: everything after a '#' is a comment.
func undump(t *testing.T, dump string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(dump) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	data, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return data
}
