package stream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

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
