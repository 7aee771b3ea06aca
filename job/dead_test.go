package job_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

// The job that is put again has what the first had, but for its times and its
// attempts, and a nonce that follows from job and entry.
func TestAnew(t *testing.T) {
	spec := job.Spec{
		Version: 1, Nonce: nonce, Task: "text.shout", Arg: job.Value{Data: []byte{0xa1, 'x'}}, Quotas: []string{"gpu"},
		Timeout: time.Minute, Keep: job.KeepNone, Retry: job.Retry{Max: 3},
		Priority: job.High, Begin: put, Deadline: put.Add(time.Hour), Attempt: 3, By: "web-1", At: put,
		Callbacks: []job.Callback{{On: job.OnFailure, Call: job.Call{Task: "ops.page"}}}, Parent: &job.Parent{Queue: "media", ID: "album", Nonce: nonce, Number: 2},
	}
	entry := job.Dead{Version: 1, Body: encoded(spec), Record: job.Record{Nonce: nonce, Task: spec.Task, Quotas: spec.Quotas, Priority: spec.Priority}}
	got, err := entry.Anew(7)
	if err != nil {
		t.Fatal(err)
	}
	want := spec
	want.Nonce, want.Again = nonce.Next(7), true
	want.Begin, want.Deadline, want.Attempt, want.By, want.At = time.Time{}, time.Time{}, 0, "", time.Time{}
	want.Parent = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if other, _ := entry.Anew(8); other.Nonce == got.Nonce || nonce.Next(7) != got.Nonce || got.Nonce == nonce {
		t.Errorf("nonces %s of revision 7, %s of 8", got.Nonce, other.Nonce)
	}
	if text := nonce.Next(7).String(); text != "ea315a3e5b0b77655c3ef5f312c80f8f" {
		t.Errorf("nonce %s: the protocol has changed", text)
	}
}

// A job that was published by hand, without a nonce, is put again as well.
func TestAnewByHand(t *testing.T) {
	entry := job.Dead{Version: 1, Body: []byte(`{"arg":"x"}`), Record: job.Record{Nonce: nonce, Task: "text.shout"}}
	got, err := entry.Anew(7)
	if err != nil || got.Nonce != nonce.Next(7) || string(got.Arg.Data) != `"x"` || got.Arg.Encoding != job.JSON {
		t.Errorf("%+v, %v", got, err)
	}
}

// What is left out comes in the order of what it is worth, and without its
// argument a job is not put again.
func TestSmaller(t *testing.T) {
	failed := records["record-failed"]
	failed.Past = records["record-retrying"].Past
	spec := specs["spec-full"]
	failed.Task = spec.Task
	entry := job.Dead{Version: 1, Body: encoded(spec), Record: failed}
	whole := entry
	for _, want := range []string{"stack", "stack past", "stack past arg"} {
		var ok bool
		if entry, ok = entry.Smaller(); !ok || strings.Join(entry.Cut, " ") != want {
			t.Fatalf("cut %q, want %s", entry.Cut, want)
		}
		if got, err := entry.Spec(); err != nil || got.Arg.IsNone() != slices.Contains(entry.Cut, job.CutArg) || got.By != spec.By {
			t.Errorf("without %s: %+v, %v", want, got, err)
		}
		_, err := entry.Anew(1)
		if cut := slices.Contains(entry.Cut, job.CutArg); cut != (err != nil) {
			t.Errorf("without %s put again: %v", want, err)
		}
	}
	if _, ok := entry.Smaller(); ok {
		t.Error("something can still be spared")
	}
	if entry.Record.Outcome.Failure.Stack != "" || entry.Record.Past != nil || entry.Record.Outcome.Failure.Message == "" {
		t.Errorf("left %+v", entry.Record)
	}
	if whole.Record.Outcome.Failure.Stack == "" || records["record-failed"].Outcome.Failure.Stack == "" {
		t.Error("the record that it was made of has changed")
	}
	unread := job.Dead{Version: 1, Body: []byte("nothing that can be read"), Record: job.Record{Nonce: nonce, Task: "text.shout"}}
	if _, err := unread.Anew(1); err == nil {
		t.Error("a body that cannot be read is put again")
	}
	if smaller, ok := unread.Smaller(); !ok || smaller.Body != nil {
		t.Errorf("a body that cannot be read becomes %+v, %v", smaller, ok)
	}
}

func TestDecodeDeadRefused(t *testing.T) {
	whole, err := job.EncodeDead(dead["dead"])
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := job.DecodeDead(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were taken for an entry", n, len(whole))
		}
	}
	for name, row := range map[string]struct{ data, want string }{
		"JSON":          {"{}", "no msgpack map"},
		"no version":    {"\x80", "dead job has version 0, this program reads version 1"},
		"newer version": {"\x81\xa1v\x02", "dead job has version 2"},
		"no record":     {"\x81\xa1v\x01", "record cannot be read"},
		"old record":    {"\x82\xa1v\x01\xa6record\x80", "record has version 0"},
	} {
		_, err := job.DecodeDead([]byte(row.data))
		checkError(t, name, err, row.want)
	}
}
