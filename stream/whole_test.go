package stream

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

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
