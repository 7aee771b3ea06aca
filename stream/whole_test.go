package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
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

// A composition whose timer fires before it is to begin, since the clock of whoever
// put it was ahead, begins when the time has come.
func TestWholeIsAdvancedTooEarly(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := entryOf("", composed(job.FormParallel, called("a")))
		e.Spec.Begin = time.Now().Add(10 * time.Second)
		put(t, q, e)
		q.dropTimer(Timer{TimerAdvance, string(e.ID), e.Spec.Nonce})
		if err := q.conn().Flush(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		// This is what is stored where the putter takes it that the time has come.
		if err := q.publish(t.Context(), q.names.advanceMessage(e.ID, e.Spec.Nonce, time.Time{}, time.Time{})); err != nil {
			t.Fatal(err)
		}
		attending(t, q)
		time.Sleep(5 * time.Second)
		if isStored(t, q, partOf(e, 0)) {
			t.Error("it began too early")
		}
		time.Sleep(time.Minute)
		if !isStored(t, q, partOf(e, 0)) {
			t.Error("it never begins")
		}
	})
}

// A callback that is added while a cancelled job is being paid for is put, and the
// job becomes completed.
func TestCallbackAddedWhileCancelIsSettled(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		message, _, err := q.findLatest(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		spec, _ := message.Spec()
		record := q.recordOfMessage(message, spec, job.Record{})
		record.State, record.Outcome = job.Callbacks, &job.Outcome{Failure: &job.Failure{Kind: job.KindCancelled}}
		revision, err := q.Write(t.Context(), e.ID, record, 0, spec.Keep)
		if err != nil {
			t.Fatal(err)
		}
		callback := job.Callback{On: job.OnAny, Call: job.Call{Task: "image.note"}}
		if err := q.AddCallback(t.Context(), e.ID, e.Spec.Nonce, callback); err != nil {
			t.Fatal(err)
		}
		// Whoever cancels goes on from what it has read.
		_, err = q.settle(t.Context(), e.ID, spec, record, revision, Cancelled{Nonce: e.Spec.Nonce, State: job.Pending}, false)
		if !errors.Is(err, kv.ErrConflict) {
			t.Errorf("settled over a callback that was added: %v", err)
		}
		if _, err := q.Cancel(t.Context(), e.ID, e.Spec.Nonce); !errors.Is(err, ErrCompleted) {
			t.Errorf("cancelled again: %v", err)
		}
		if got := mustRecord(t, q, e.ID); got.State != job.Completed || len(got.Called) != 1 {
			t.Errorf("%s, called %v", got.State, got.Called)
		}
		if !isStored(t, q, e.Spec.Nonce.CallbackID(0)) {
			t.Error("the callback is not put")
		}
	})
}

// Whoever ends a part by cancelling it, or when its deadline has passed, and dies
// before the whole is told, leaves a timer by which it is told.
func TestWholeIsToldOfStoppedPart(t *testing.T) {
	for _, kind := range []job.Kind{job.KindCancelled, job.KindExpired} {
		t.Run(string(kind), func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				call := called("a")
				if kind == job.KindExpired {
					call.Within = time.Minute
				}
				e := entryOf("", composed(job.FormParallel, call))
				put(t, q, e)
				if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
					t.Fatal(err)
				}
				part := partOf(e, 0)
				message, _, err := q.findLatest(t.Context(), part)
				if err != nil {
					t.Fatal(err)
				}
				spec, _ := message.Spec()
				// Up to where it writes that the part is completed.
				record := q.recordOfMessage(message, spec, job.Record{})
				if err := q.setAdvance(t.Context(), part, message, spec, record, false); err != nil {
					t.Fatal(err)
				}
				record.State, record.Outcome = job.Completed, &job.Outcome{Failure: &job.Failure{Kind: kind}}
				record.Attempt = job.Attempt{Token: 7}
				if _, err := q.Write(t.Context(), part, record, 0, spec.Keep); err != nil {
					t.Fatal(err)
				}
				attending(t, q)
				time.Sleep(2 * time.Minute)
				if got := mustRecord(t, q, e.ID); got.State != job.Completed {
					t.Errorf("the whole is %s", got.State)
				}
				wantMessages(t, q, 0)
			})
		})
	}
}

// padded is a call of so many bytes.
func padded(n int, arg string) job.Call {
	value, err := job.Encode([]any{arg, make([]byte, n)}, job.MsgPack)
	if err != nil {
		panic(err)
	}
	return job.Call{Task: task, Arg: value}
}

// A nested composition is cancelled with its parts, though those that were not put
// were stored beside the outer one, which is gone by then.
func TestCancelReachesPartsStoredBesideAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		inner := composed(job.FormParallel, padded(5000, "a"), padded(5000, "b"))
		e := entryOf("", composed(job.FormParallel, inner))
		put(t, q, e)
		stop := attending(t, q)
		time.Sleep(time.Second)
		nested := job.Parts{Base: job.Parts{Base: e.Spec.Nonce}.PartNonce(0)}
		if !isStored(t, q, nested.PartID(0)) || !isStored(t, q, nested.PartID(1)) {
			t.Fatal("parts of the inner one are not put")
		}
		stop()
		if _, err := q.Cancel(t.Context(), e.ID, e.Spec.Nonce); err != nil {
			t.Fatal(err)
		}
		// Another process goes on, which has read none of it before.
		attending(t, createQueue(t, s.Connect(t), Config{}))
		time.Sleep(time.Minute)
		for i := range 2 {
			if isStored(t, q, nested.PartID(i)) {
				t.Errorf("part %d of the inner one is there still", i)
			}
			if record := mustRecord(t, q, nested.PartID(i)); !record.EndedAs(job.KindCancelled) || !record.State.Final() {
				t.Errorf("part %d is %s", i, record.State)
			}
		}
		wantMessages(t, q, 0)
	})
}

// Whoever is late in removing what was stored beside a composition leaves what is
// stored beside a later one of the same ID.
func TestPartsOfLaterWholeAreLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		call := composed(job.FormSerial, padded(5000, "a"), padded(5000, "b"))
		first, second := entryOf("me", call), entryOf("me", call)
		put(t, q, first)
		if err := q.Advance(t.Context(), first.ID, first.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		finish(t, q, partOf(first, 0))
		perform(t, q, partOf(first, 1), job.Value{}) // and does not say so
		// One that pays is held up before it removes what was stored beside.
		late := &whole{q: q, id: first.ID, nonce: first.Spec.Nonce}
		var err error
		if late.record, late.revision, _, err = q.Record(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := late.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		parts, _ := late.record.Parts.SetDone(0, 1)
		late.record.Parts = &parts
		late.record.State, late.record.Outcome = job.Completed, &job.Outcome{}
		if err := late.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		put(t, q, second)
		if err := late.purgeParts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.Advance(t.Context(), second.ID, second.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		q.ns.chunks = chunkCache{}
		finish(t, q, partOf(second, 0))
		finish(t, q, partOf(second, 1))
		if got := mustRecord(t, q, "me"); got.Nonce != second.Spec.Nonce || got.State != job.Completed {
			t.Errorf("the second is %s", got.State)
		}
		for i := range 2 {
			if got := mustRecord(t, q, partOf(first, i)); got.State != job.Completed {
				t.Errorf("part %d of the first: %s", i, got.State)
			}
		}
		if err := q.removeAll(t.Context(), partOf(first, 1), late.record.Parts.PartNonce(1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		left, err := q.read(t.Context(), q.names.stream(), ">", 1, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range left {
			if message.Subject != q.names.meta() && message.Subject != q.names.due(Timer{TimerAdvance, "me", first.Spec.Nonce}) &&
				message.Subject != q.names.due(Timer{TimerAdvance, "me", second.Spec.Nonce}) {
				t.Errorf("left: %s", message.Subject)
			}
		}
		time.Sleep(25 * time.Hour)
		for i := range 2 {
			if _, _, found, err := q.Record(t.Context(), partOf(first, i)); err != nil || found {
				t.Errorf("part %d of the first is kept for ever: %v", i, err)
			}
		}
	})
}

// What an attempt has stored of parts that it was to add, and did not come to add, is
// not taken for what the next one adds under the same name.
func TestAddPartsOfAnotherAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := entryOf("", composed(job.FormParallel, called("a")))
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		// The first dies when it has stored two.
		added := adding{name: "deed", own: job.NewNonce(), calls: []job.Call{called("b"), called("c")}}
		_, beside := added.cut(e.ID, e.Spec.Nonce, chunkBytes)
		if err := q.storeBeside(t.Context(), beside); err != nil {
			t.Fatal(err)
		}
		for range 2 { // repeated, it is added once
			if err := q.AddParts(t.Context(), e.ID, e.Spec.Nonce, "deed", []job.Call{called("b"), called("c"), called("d")}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			finish(t, q, partOf(e, i))
		}
		if got := mustRecord(t, q, e.ID); got.State != job.Completed || got.Parts.Count != 4 {
			t.Errorf("%s with %d parts", got.State, got.Parts.Count)
		}
		if err := q.AddParts(t.Context(), e.ID, e.Spec.Nonce, "late", []job.Call{called("e")}); !errors.Is(err, ErrCompleted) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		wantMessages(t, q, 2) // the timers
	})
}

// No composition grows to more parts than a body may have, whatever a record may take.
func TestAddPartsUpToTheMost(t *testing.T) {
	large := func(o *server.Options) { o.MaxPayload, o.MaxPending = 4<<20, 64<<20 }
	natstest.RunWith(t, large, func(t *testing.T, s *natstest.Server) {
		q := createQueue(t, s.Connect(t), Config{})
		for count, want := range map[int]error{job.MaxParts: nil, job.MaxParts + 1: ErrTooLarge} {
			record := job.Record{Parts: &job.Parts{Form: job.FormParallel, Count: count}}
			if err := q.checkGrown(record); !errors.Is(err, want) {
				t.Errorf("%d parts: %v, want %v", count, err, want)
			}
		}
	})
}

// Parts are added as long as the record of their whole has room for the outcome too;
// whatever that is, and however many callbacks were put, the whole ends.
func TestAddPartsUntilTheRecordIsFull(t *testing.T) {
	small := func(o *server.Options) { o.MaxPayload, o.MaxPending = 64<<10, 64<<20 }
	natstest.RunWith(t, small, func(t *testing.T, s *natstest.Server) {
		q := createQueue(t, s.Connect(t), Config{})
		succeeded, failed := 0, 0
		for result := 26 << 10; result < 33<<10; result += 700 {
			e := entryOf("", composed(job.FormParallel, called("a")))
			for range 20 {
				e.Spec.Callbacks = append(e.Spec.Callbacks, job.Callback{On: job.OnAny, Call: called("b")})
			}
			put(t, q, e)
			if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
				t.Fatal(err)
			}
			var err error
			added := 0
			for ; err == nil; added++ {
				before := messages(t, q)
				name := fmt.Sprintf("%03000d", added)
				if err = q.AddParts(t.Context(), e.ID, e.Spec.Nonce, name, []job.Call{called("c")}); err != nil {
					wantMessages(t, q, before)
				}
			}
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "add more of them at a time") {
				t.Fatalf("part %d: %v", added, err)
			}
			spec, _ := perform(t, q, partOf(e, 0), padded(result, "").Arg).Spec()
			if err := q.PayOrDisown(t.Context(), partOf(e, 0), spec, false); err != nil {
				t.Fatal(err)
			}
			for i := range added - 1 {
				finish(t, q, partOf(e, i+1))
			}
			record := mustRecord(t, q, e.ID)
			switch {
			case record.State != job.Completed:
				t.Errorf("result of %d: %s", result, record.State)
			case record.Outcome.Succeeded():
				succeeded++
			case record.EndedAs(job.KindInvalid):
				failed++
			}
		}
		if succeeded == 0 || failed == 0 {
			t.Errorf("%d succeeded, %d failed", succeeded, failed)
		}
	})
}

// What was stored of parts that come too late is removed.
func TestAddPartsTooLate(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := entryOf("", composed(job.FormParallel, called("a")))
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		added := adding{name: "deed", own: job.NewNonce(), calls: []job.Call{called("b")}}
		_, beside := added.cut(e.ID, e.Spec.Nonce, chunkBytes)
		if err := q.storeBeside(t.Context(), beside); err != nil {
			t.Fatal(err)
		}
		added.beside = beside // it has read the record, and writes it next
		finish(t, q, partOf(e, 0))
		if err := q.addPartsOf(t.Context(), e.ID, e.Spec.Nonce, &added); !errors.Is(err, ErrCompleted) {
			t.Errorf("got %v", err)
		}
		if err := q.conn().Flush(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantMessages(t, q, 1) // the timer
	})
}

// Parts that are added while others are put are put with them.
func TestPartsAddedWhileOthersArePut(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := entryOf("", composed(job.FormParallel, called("a")))
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		w := &whole{q: q, id: e.ID, nonce: e.Spec.Nonce}
		if _, err := w.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		added := adding{name: "deed", own: job.NewNonce(), calls: []job.Call{called("b")}}
		chunks, beside := added.cut(e.ID, e.Spec.Nonce, chunkBytes)
		if err := q.storeBeside(t.Context(), beside); err != nil {
			t.Fatal(err)
		}
		grown := *w
		parts := w.record.Parts.Grow(chunks...)
		grown.record.Parts = &parts
		if err := grown.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := *w.record.Parts
		before.Put = 0 // as whoever puts them knows it
		w.record.Parts = &before
		if err := w.putParallel(t.Context()); err != nil {
			t.Fatal(err)
		}
		finish(t, q, partOf(e, 0))
		finish(t, q, partOf(e, 1))
		if got := mustRecord(t, q, e.ID); got.State != job.Completed {
			t.Errorf("%s", got.State)
		}
	})
}

// The deadline of a part that may have been put stays what it was.
func TestDeadlineOfPartThatIsPutAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		call := called("a")
		call.Within = time.Minute
		e := entryOf("", composed(job.FormSerial, call, called("b")))
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		attending(t, q)
		time.Sleep(12 * time.Second)
		if record := mustRecord(t, q, partOf(e, 0)); !record.EndedAs(job.KindExpired) {
			t.Errorf("%s after its deadline", record.State)
		}
		if !isStored(t, q, partOf(e, 1)) {
			t.Error("the next part is not put")
		}
	})
}

// A part that was refused is over, also where its whole was not told: whoever goes on
// finds its record and does not take it for one that runs until its deadline.
func TestRefusedPartOfWhichTheWholeWasNotTold(t *testing.T) {
	for _, form := range []job.Form{job.FormParallel, job.FormSerial} {
		t.Run(string(form), func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				large := padded(5000, "a")
				large.Within = time.Minute
				e := entryOf("", composed(form, large))
				put(t, q, e)
				w := begun(t, q, e)
				q.maxMsgSize = 4 << 10
				if refused, err := w.put(t.Context(), []part{{0, large}}); len(refused) != 1 || err != nil {
					t.Fatalf("refused %v, %v", refused, err)
				}
				// It dies, and another goes on.
				if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
					t.Fatal(err)
				}
				if got := mustRecord(t, q, e.ID); got.State != job.Completed {
					t.Errorf("%s", got.State)
				}
			})
		})
	}
}

// What a timer was set for may be written after it has fired: by who lost its connection
// for some seconds, and its answer for good. Another goes on with it all the same.
func TestTimerFiresBeforeWhatItIsFor(t *testing.T) {
	cancelled := func(t *testing.T, q *Queue, id job.ID) {
		message, _, err := q.findLatest(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		spec, _ := message.Spec()
		record, revision, found, err := q.Record(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			record = q.recordOfMessage(message, spec, job.Record{})
		}
		if err := q.setAdvance(t.Context(), id, message, spec, record, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(advanceAfter + time.Second)
		record.State, record.Outcome = job.Callbacks, &job.Outcome{Failure: &job.Failure{Kind: job.KindCancelled}}
		if _, err := q.Write(t.Context(), id, record, revision, spec.Keep); err != nil {
			t.Fatal(err)
		}
	}
	for name, late := range map[string]func(t *testing.T, q *Queue, e Entry){
		"cancel of a whole": func(t *testing.T, q *Queue, e Entry) {
			cancelled(t, q, e.ID)
			time.Sleep(lookAgain)
			if got := mustRecord(t, q, e.ID); !got.State.Final() || !got.EndedAs(job.KindCancelled) {
				t.Errorf("the whole is %s", got.State)
			}
		},
		"cancel of a part": func(t *testing.T, q *Queue, e Entry) {
			cancelled(t, q, partOf(e, 0))
			time.Sleep(lookAgain)
			if got := mustRecord(t, q, e.ID); got.State != job.Completed {
				t.Errorf("the whole is %s", got.State)
			}
		},
		"added parts": func(t *testing.T, q *Queue, e Entry) {
			w := &whole{q: q, id: e.ID, nonce: e.Spec.Nonce}
			if _, err := w.read(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := w.load(t.Context()); err != nil {
				t.Fatal(err)
			}
			added := adding{name: "deed", own: job.NewNonce(), calls: []job.Call{called("b")}}
			chunks, beside := added.cut(e.ID, e.Spec.Nonce, chunkBytes)
			if err := q.storeBeside(t.Context(), beside); err != nil {
				t.Fatal(err)
			}
			if err := q.setAdvance(t.Context(), e.ID, w.message, w.spec, w.record, true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(advanceAfter + time.Second)
			grown := w.record.Parts.Grow(chunks...)
			grown.Beside, w.record.Parts = true, &grown
			if err := w.write(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lookAgain)
			if !isStored(t, q, partOf(e, 1)) {
				t.Error("the part is not put")
			}
			finish(t, q, partOf(e, 0))
			finish(t, q, partOf(e, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				e := entryOf("", composed(job.FormParallel, called("a")))
				put(t, q, e)
				attending(t, q)
				time.Sleep(time.Second)
				late(t, q, e)
				time.Sleep(2 * lookAgain)
				wantMessages(t, q, 0) // no timer is set for ever
			})
		})
	}
}

// A broadcast may begin after its timer has fired, and is looked after all the same; one
// that never begins is not.
func TestPresenceTimerFiresBeforeItsBroadcast(t *testing.T) {
	inBubbleWith(t, Config{Broadcast: true}, func(t *testing.T, _ *natstest.Server, q *Queue) {
		call := composed(job.FormBroadcast, called("a"))
		*call.Parts = call.Parts.Address([]string{"gone"})
		e := entryOf("", call)
		put(t, q, e)
		parts := *e.Spec.Parts
		parts.Base = e.Spec.Nonce
		if _, err := q.address(t.Context(), e.ID, parts, time.Now()); err != nil {
			t.Fatal(err)
		}
		looked := make(chan []string, 10)
		attendTest(t, q, func(due Due) error {
			if due.Kind != TimerPresence {
				return nil
			}
			missing, over, err := q.Missing(t.Context(), due)
			if err != nil || over {
				return err
			}
			looked <- missing
			return q.LookAgain(t.Context(), due)
		})
		if missing := <-looked; len(missing) > 0 {
			t.Errorf("missing of one that has not begun: %q", missing)
		}
		w := begun(t, q, e)
		if missing := <-looked; !slices.Equal(missing, []string{"gone"}) {
			t.Errorf("missing: %q", missing)
		}
		if err := q.removeAll(t.Context(), e.ID, w.nonce); err != nil {
			t.Fatal(err)
		}
		if err := q.records.Delete(t.Context(), q.names.record(e.ID), w.revision); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * presenceEvery)
		wantMessages(t, q, 0)
	})
}

// A job that waits is not taken back, nor moved, nor replaced.
func TestWaitingJobStays(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := entryOf("me", composed(job.FormParallel, called("a")))
		put(t, q, e)
		attending(t, q)
		time.Sleep(time.Second)
		if _, err := q.Pull(t.Context(), "me", e.Spec.Nonce); !errors.Is(err, ErrAssigned) {
			t.Errorf("pull: %v", err)
		}
		if err := q.Replace(t.Context(), chosen("me", task)); !errors.Is(err, ErrExists) {
			t.Errorf("replace: %v", err)
		}
		finish(t, q, partOf(e, 0))
		if got := mustRecord(t, q, "me"); got.State != job.Completed {
			t.Error(got.State)
		}
	})
}

// A composition of more messages than the server stores in one batch is refused, and
// one that is beyond what is left of a batch is stored in the next.
func TestLargeCompositions(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		var calls []job.Call
		for i := range 1100 {
			calls = append(calls, job.Call{Task: task, Queue: "other" + strconv.Itoa(i%2)})
		}
		many := make([]Entry, 600)
		for i := range many {
			many[i] = entryOf("", composed(job.FormParallel, called("a")))
		}
		if stored, err := q.PutMany(t.Context(), many); stored != 600 || err != nil {
			t.Errorf("%d stored, %v", stored, err)
		}
		wantMessages(t, q, 1200)
		e := entryOf("", composed(job.FormParallel, calls...))
		e, err := q.prepared(e)
		if err != nil {
			t.Fatal(err)
		}
		for len(e.beside) < MaxBatch {
			e.beside = append(e.beside, besides{e.ID, e.Spec.Nonce, fmt.Sprint("x", len(e.beside)), calls[:1]})
		}
		if err := q.Put(t.Context(), e); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	})
}

// The record of a part lives long enough for a redelivery in its own queue, also where
// nothing is to be kept.
func TestPartsLiveAsLongAsTheirQueueNeeds(t *testing.T) {
	inBubbleWith(t, Config{AckWait: 3 * time.Second}, func(t *testing.T, _ *natstest.Server, q *Queue) {
		slow, err := q.ns.CreateQueue(t.Context(), "slow", Config{AckWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		call := called("a")
		call.Queue = "slow"
		e := entryOf("", composed(job.FormParallel, call))
		e.Spec.Keep = job.KeepNone
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		finish(t, slow, partOf(e, 0))
		time.Sleep(119 * time.Second)
		if _, _, found, err := q.Record(t.Context(), e.ID); err != nil || found {
			t.Errorf("the whole is kept: %v", err)
		}
		mustRecord(t, slow, partOf(e, 0))
		time.Sleep(5 * time.Second)
		if _, _, found, err := slow.Record(t.Context(), partOf(e, 0)); err != nil || found {
			t.Errorf("the part is kept: %v", err)
		}
	})
}

// A part that is put when the whole was cancelled meanwhile is cancelled by whoever
// put it.
func TestPartPutAfterCancel(t *testing.T) {
	for _, form := range []job.Form{job.FormParallel, job.FormSerial} {
		t.Run(string(form), func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				e := entryOf("", composed(form, called("a"), called("b")))
				put(t, q, e)
				w := begun(t, q, e)
				if _, err := q.Cancel(t.Context(), e.ID, e.Spec.Nonce); err != nil {
					t.Fatal(err)
				}
				if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
					t.Fatal(err)
				}
				if err := w.putNext(t.Context()); err != nil {
					t.Fatal(err)
				}
				for i := range 2 {
					if isStored(t, q, partOf(e, i)) {
						t.Errorf("part %d is there still", i)
					}
				}
			})
		})
	}
}

// Of a sequence the next part is put as one that may have been put before, unless it
// surely was not.
func TestNextPartIsMarked(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := entryOf("", composed(job.FormSerial, called("a"), called("b"), called("c")))
		put(t, q, e)
		again := func(i int) bool {
			message, stored, err := q.findLatest(t.Context(), partOf(e, i))
			if err != nil || !stored {
				t.Fatalf("part %d: %t, %v", i, stored, err)
			}
			spec, _ := message.Spec()
			return spec.Again
		}
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		finish(t, q, partOf(e, 0))
		if again(0+1) || !isStored(t, q, partOf(e, 1)) {
			t.Error("part 1 is marked")
		}
		// Whoever tells of part 1 dies before the next is put.
		w := &whole{q: q, id: e.ID, nonce: e.Spec.Nonce}
		perform(t, q, partOf(e, 1), job.Value{})
		if _, err := w.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		parts, _ := w.record.Parts.SetDone(1)
		w.record.Parts = &parts
		if err := w.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.PayOrDisown(t.Context(), partOf(e, 1), job.Spec{Nonce: parts.PartNonce(1), Parent: &job.Parent{Queue: "media", ID: e.ID, Nonce: e.Spec.Nonce, Number: 1}}, false); err != nil {
			t.Fatal(err)
		}
		if !again(2) {
			t.Error("part 2 is not marked")
		}
	})
}

// A composition whose deadline has passed does not begin, though no dispatcher was
// there before, and the one that comes does not know the server's time yet.
func TestWholeDoesNotBeginLate(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		call := composed(job.FormParallel, called("a"))
		call.Within = time.Minute
		e := entryOf("", call)
		put(t, q, e)
		fired := time.Now()
		time.Sleep(2 * time.Minute)
		due := Due{Timer: Timer{TimerAdvance, string(e.ID), e.Spec.Nonce}, Fired: fired}
		if err := q.AdvanceDue(t.Context(), due, time.Time{}); err != nil {
			t.Fatal(err)
		}
		attending(t, q)
		time.Sleep(time.Minute)
		if record := mustRecord(t, q, e.ID); !record.EndedAs(job.KindExpired) {
			t.Errorf("%s", record.State)
		}
		wantMessages(t, q, 0)
	})
}

// A callback whose adding is repeated, since the answer was lost, is added once: also
// where the job is over by then.
func TestCallbackIsAddedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		callback := job.Callback{On: job.OnAny, Call: job.Call{Task: "image.note"}, Added: job.NewNonce()}
		for range 2 {
			if err := q.addCallback(t.Context(), e.ID, e.Spec.Nonce, callback); err != nil {
				t.Fatal(err)
			}
		}
		if got := mustRecord(t, q, e.ID); len(got.Callbacks) != 1 {
			t.Errorf("%d are added", len(got.Callbacks))
		}
		if _, err := q.Cancel(t.Context(), e.ID, e.Spec.Nonce); err != nil {
			t.Fatal(err)
		}
		if err := q.addCallback(t.Context(), e.ID, e.Spec.Nonce, callback); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, q, 1) // the callback
		large := job.Callback{On: job.OnAny, Call: padded(100_000, "x")}
		if err := q.AddCallback(t.Context(), putNew(t, q).ID, job.Nonce{}, large); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	})
}

// A job that is taken back while callbacks are added to it leaves no record that says that
// it is pending, however often that is tried.
func TestCallbackIsAddedToJobThatIsPulled(t *testing.T) {
	const rounds = 60
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		random := rand.New(rand.NewPCG(seed, 0))
		other := createQueue(t, s.Connect(t), Config{})
		refused := 0
		for round := range rounds {
			e := putNew(t, q)
			added := make(chan error, 2)
			for range cap(added) {
				go func() {
					added <- other.AddCallback(t.Context(), e.ID, e.Spec.Nonce, job.Callback{On: job.OnAny, Call: job.Call{Task: "image.note"}})
				}()
			}
			for range random.IntN(100) {
				runtime.Gosched() // as in TestPutOverCutWire
			}
			if _, err := q.Pull(t.Context(), e.ID, e.Spec.Nonce); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			for range cap(added) {
				if err := <-added; errors.Is(err, ErrNoJob) {
					refused++
				} else if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			if record, _, found, err := q.Record(t.Context(), e.ID); err != nil || found {
				t.Fatalf("round %d: %s is left, %v", round, record.State, err)
			}
		}
		if refused == 0 || refused == 2*rounds {
			t.Errorf("%d of %d are refused: the race misses", refused, 2*rounds)
		}
	})
}
