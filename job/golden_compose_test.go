package job_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

// The vectors of compositions. Those of specs and records are among the others.

// shouted is a call with an argument in msgpack.
func shouted(text string) job.Call {
	arg, err := job.Encode(text, job.MsgPack)
	if err != nil {
		panic(err)
	}
	return job.Call{Task: "text.shout", Arg: arg}
}

var (
	callbacksSpec = job.Spec{
		Version: 1, Nonce: nonce, Task: "image.thumbnail",
		Callbacks: []job.Callback{
			{On: job.OnSuccess, Call: job.Call{
				Task: "album.add", Arg: job.Value{Encoding: job.JSON, Data: []byte(`"summer"`)}, Queue: "albums",
				Quotas: []string{"db"}, Priority: job.Low, Timeout: 90 * time.Second, Keep: job.KeepNone,
				Retry: job.Retry{Interrupts: job.Forever, Max: job.Forever}, Delay: 2 * time.Second, Within: time.Minute,
				Callbacks: []job.Callback{{On: job.OnAny, Call: job.Call{Task: "album.log"}}},
			}},
			{On: job.OnFailure, Call: job.Call{Task: "ops.page"}},
		},
	}
	parentSpec = job.Spec{
		Version: 1, Nonce: job.Parts{Base: nonce}.PartNonce(1), Task: "text.shout", Arg: shouted("two").Arg,
		Parent: &job.Parent{Queue: "default", ID: "whole-1", Nonce: nonce, Number: 1},
	}
	partsSpec = job.Spec{
		Version: 1, Nonce: nonce, Task: "parallel",
		Parts: &job.Parts{
			Form: job.FormParallel, Count: 2, Base: nonce, Queues: []string{"loud"},
			Calls: []job.Call{shouted("one"), func() job.Call { c := shouted("two"); c.Queue = "loud"; return c }()},
		},
	}
	besideSpec = job.Spec{
		Version: 1, Nonce: nonce, Task: "parallel",
		Parts: &job.Parts{
			Form: job.FormParallel, Count: 10_000, Base: nonce, Beside: true,
			Chunks: []job.Chunk{{Name: "0", Count: 6000}, {Name: "6000", Count: 4000}},
		},
	}
	waitingRecord = job.Record{
		Version: 1, Nonce: nonce, Task: "parallel", State: job.Waiting,
		Parts: &job.Parts{
			Form: job.FormParallel, Count: 10, Base: nonce, Put: 10, Done: []byte{0x05, 0x02},
			Beside: true, Chunks: []job.Chunk{{Name: "bdc85c1fe3be30a38893b4506cf0ef0a-1-f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff-0", Count: 8, Added: true}},
		},
		By: "web-1", Put: put, Started: put.Add(time.Millisecond),
	}
	delegatedRecord = job.Record{
		Version: 1, Nonce: nonce, Task: "text.shout", State: job.Waiting, Attempt: first,
		Parts: &job.Parts{Form: job.FormDelegate, Count: 1, Calls: []job.Call{shouted("loud")}, Base: nonce.DelegateBase(first.Token)},
		Put:   put, Started: put.Add(time.Millisecond),
	}
	calledRecord = job.Record{
		Version: 1, Nonce: job.Parts{Base: nonce}.PartNonce(1), Task: "text.shout", State: job.Completed, Attempt: first,
		Called:  []job.Called{{On: job.OnSuccess, ID: job.Parts{Base: nonce}.PartNonce(1).CallbackID(0), Task: "text.note", Queue: "notes"}},
		Parent:  &job.Parent{Queue: "default", ID: "whole-1", Nonce: nonce, Number: 1},
		Outcome: &job.Outcome{Result: shouted("TWO").Arg},
		Put:     put, Started: put.Add(time.Millisecond), Ended: put.Add(5 * time.Millisecond),
	}
	addedRecord = job.Record{
		Version: 1, Nonce: nonce, Task: "text.shout", State: job.Pending, Put: put,
		Callbacks: []job.Callback{{On: job.OnFailure, Call: job.Call{Task: "ops.page", Retry: job.Retry{Interrupts: job.Forever, Max: job.Forever}}, Added: job.Nonce{1, 15: 2}}},
	}
)

// TestGoldenCalls: parts that are stored beside their whole.
func TestGoldenCalls(t *testing.T) {
	inner := job.Call{Task: "serial", Parts: &job.Parts{Form: job.FormSerial, Count: 1, Calls: []job.Call{shouted("three")}}}
	calls := []job.Call{shouted("one"), {Task: "image.thumbnail", Quotas: []string{"gpu"}, Begin: put.Add(time.Hour), Within: time.Minute}, inner}
	data, err := job.EncodeCalls(calls)
	if err != nil {
		t.Fatal(err)
	}
	stored := golden(t, "calls.hex", annotate(t, data))
	got, err := job.DecodeCalls(undump(t, stored))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(calls, got); diff != "" {
		t.Errorf("decoded from the golden file (-want +got):\n%s", diff)
	}
}

func TestDecodeCallsRefused(t *testing.T) {
	for name, row := range map[string]struct{ data, want string }{
		"nothing":        {"", "parts cannot be read"},
		"a map":          {"\x80", "parts cannot be read"},
		"unknown key":    {"\x91\x81\xa3new\x01", "parts cannot be read"},
		"trailing bytes": {"\x90\xc0", "parts cannot be read"},
		"illegal":        {"\x91\x81\xa4task\xa3a b", "part 0: call of a b"},
	} {
		_, err := job.DecodeCalls([]byte(row.data))
		checkError(t, name, err, row.want)
	}
}

// TestGoldenOutcomes: what the result of a parallel is, and with it the argument of a
// callback on any outcome, which is an element of it.
func TestGoldenOutcomes(t *testing.T) {
	outcomes := []job.Outcome{
		{Result: shouted("ONE").Arg},
		{Result: job.Value{Encoding: job.JSON, Data: []byte(`{"n":2}`)}},
		{},
		{Failure: &job.Failure{Kind: job.KindError, Message: "no voice", Type: "*errors.errorString", Attempt: 1, At: put}},
	}
	list, err := job.OutcomesValue(outcomes)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "outcomes.hex", annotate(t, list.Data))
	text, err := list.AsJSON()
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"result":"ONE"},{"result":{"n":2}},{},{"failure":{"at":"2026-03-04T05:06:07.89Z","attempt":1,"kind":"error","message":"no voice","type":"*errors.errorString"}}]`; string(text) != want {
		t.Errorf("as JSON:\n%s\nwant\n%s", text, want)
	}
	bound, err := job.Call{Task: "text.shout", Arg: job.Value{Encoding: job.JSON, Data: []byte(`"summer"`)}}.Take(shouted("ONE").Arg)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "bound.hex", annotate(t, bound.Arg.Data))
}

// TestDerivedIdentity freezes the IDs and nonces that follow from others: whoever
// puts a part again after a crash, in whatever release, must put the same.
func TestDerivedIdentity(t *testing.T) {
	parts := job.Parts{Base: nonce}
	delegated := job.Parts{Base: nonce.DelegateBase(first.Token)}
	var got strings.Builder
	for _, row := range []struct {
		what  string
		id    job.ID
		nonce job.Nonce
	}{
		{"part 0", parts.PartID(0), parts.PartNonce(0)},
		{"part 1000", parts.PartID(1000), parts.PartNonce(1000)},
		{"callback 0", nonce.CallbackID(0), nonce.CallbackNonce(0)},
		{"callback 1", nonce.CallbackID(1), nonce.CallbackNonce(1)},
		{"handed on to", delegated.PartID(0), delegated.PartNonce(0)},
	} {
		fmt.Fprintf(&got, "%-12s  %s\n              %s\n", row.what, row.id, row.nonce)
	}
	fmt.Fprintf(&got, "%-12s  %s\n", "its base", delegated.Base)
	section(t, "../docs/protocol.md", "derived", "```text\n"+golden(t, "derived.txt", got.String())+"```\n")
}
