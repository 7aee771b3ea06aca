package stream

import (
	"context"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// attending has the timers of a queue looked after, as dispatchers do, until the test
// ends or stop is called.
func attending(t *testing.T, q *Queue) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.Attend(ctx, func(ctx context.Context, due Due) error {
			if due.Kind == TimerDeadline {
				return q.Expire(ctx, due)
			}
			return q.AdvanceDue(ctx, due, time.Time{})
		}, func(error) {})
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// called is a call of the task of these tests.
func called(arg string) job.Call {
	value, err := job.Encode(arg, job.MsgPack)
	if err != nil {
		panic(err)
	}
	return job.Call{Task: task, Arg: value}
}

// composed is a call of a composition.
func composed(form job.Form, calls ...job.Call) job.Call {
	return job.Call{Task: string(form), Parts: &job.Parts{Form: form, Count: len(calls), Calls: calls}}
}

func entryOf(id job.ID, call job.Call) Entry {
	e := Entry{ID: id, Chosen: id != "", Spec: call.Spec(time.Now())}
	e.Spec.Nonce = job.NewNonce()
	if id == "" {
		e.ID = job.NewID()
	}
	return e
}

func mustRecord(t *testing.T, q *Queue, id job.ID) job.Record {
	t.Helper()
	record, _, found, err := q.Record(t.Context(), id)
	if err != nil || !found {
		t.Fatalf("record of %s: found %t, %v", id, found, err)
	}
	return record
}

// perform does what an agent does with a job that succeeds with a result, but for
// the ack, which it leaves to the caller.
func perform(t *testing.T, q *Queue, id job.ID, result job.Value) Stored {
	t.Helper()
	message, stored, err := q.findLatest(t.Context(), id)
	if err != nil || !stored {
		t.Fatalf("%s is not stored: %v", id, err)
	}
	spec, err := message.Spec()
	if err != nil {
		t.Fatal(err)
	}
	_, revision, _, err := q.Record(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	record := q.recordOfMessage(message, spec, job.Record{})
	record.State, record.Outcome, record.Ended = job.Completed, &job.Outcome{Result: result}, time.Now()
	record.Attempt = job.Attempt{Number: 1, Token: 1}
	if _, err := q.Write(t.Context(), id, record, revision, spec.Keep); err != nil {
		t.Fatal(err)
	}
	return message
}

// finish performs a job and has its message go.
func finish(t *testing.T, q *Queue, id job.ID) {
	t.Helper()
	message := perform(t, q, id, job.Value{})
	spec, _ := message.Spec()
	if err := q.PayOrDisown(t.Context(), id, spec, false); err != nil {
		t.Fatal(err)
	}
	if err := q.removeAll(t.Context(), id, spec.Nonce); err != nil {
		t.Fatal(err)
	}
}

// begun is a composition that has begun, and has not put anything yet.
func begun(t *testing.T, q *Queue, e Entry) *whole {
	t.Helper()
	w := &whole{q: q, id: e.ID, nonce: e.Spec.Nonce}
	if there, err := w.load(t.Context()); err != nil || !there {
		t.Fatalf("%s is stored: %t, %v", e.ID, there, err)
	}
	parts := *w.spec.Parts
	parts.Calls, parts.Base = nil, w.nonce
	w.record = q.recordOfMessage(w.message, w.spec, job.Record{})
	w.record.State, w.record.Parts = job.Waiting, &parts
	if err := w.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func partOf(e Entry, i int) job.ID { return job.Parts{Base: e.Spec.Nonce}.PartID(i) }

func isStored(t *testing.T, q *Queue, id job.ID) bool {
	t.Helper()
	_, stored, err := q.findLatest(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// padded is a call of so many bytes.
func padded(n int, arg string) job.Call {
	value, err := job.Encode([]any{arg, make([]byte, n)}, job.MsgPack)
	if err != nil {
		panic(err)
	}
	return job.Call{Task: task, Arg: value}
}
