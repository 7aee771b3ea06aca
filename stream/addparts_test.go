package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

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

// Nothing is left of parts that could not be added in time, since others wrote the record of
// their whole again and again; unless they may have been added.
func TestAddPartsInVain(t *testing.T) {
	for _, lost := range []bool{false, true} {
		inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
			e := entryOf("", composed(job.FormParallel, called("a")))
			put(t, q, e)
			if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
				t.Fatal(err)
			}
			queue := relayed(t, s, func(request *nats.Msg) bool {
				switch {
				case !strings.Contains(request.Subject, ".$KV."):
				case lost:
					request.Reply = "nobody"
				default:
					record, revision, _, err := q.Record(t.Context(), e.ID)
					if err == nil {
						_, err = q.Write(t.Context(), e.ID, record, revision, e.Spec.Keep)
					}
					if err != nil {
						t.Error(err)
					}
				}
				return false
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := queue.AddParts(ctx, e.ID, e.Spec.Nonce, "deed", []job.Call{called("b")}); err == nil {
				t.Error("they were added")
			}
			if err := queue.conn().Flush(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n, err := q.count(t.Context(), q.names.chunks()); err != nil || lost != (n == 1) {
				t.Errorf("lost %t: %d are left, %v", lost, n, err)
			}
			if added := mustRecord(t, q, e.ID).Parts.Count == 2; added != lost {
				t.Errorf("added %t", added)
			}
		})
	}
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
