package stream

import (
	"slices"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

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
