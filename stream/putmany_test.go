package stream

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func entriesOf(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = newEntry()
	}
	return entries
}

// Sizes around the largest batch, in order, on several lanes.
func TestPutMany(t *testing.T) {
	for _, n := range []int{0, 1, 2, MaxBatch - 1, MaxBatch, MaxBatch + 1, 2*MaxBatch + 500} {
		inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
			entries := entriesOf(n)
			for i := range entries {
				if i%3 == 1 {
					entries[i].Spec.Task = "another.task"
				}
			}
			stored, err := q.PutMany(t.Context(), entries)
			if stored != n || err != nil {
				t.Fatalf("stored %d of %d: %v", stored, n, err)
			}
			wantMessages(t, q, n)
			for i := 0; i < n; i += 97 {
				found, err := q.Find(t.Context(), entries[i].ID)
				if err != nil || !sameNonce(found, entries[i]) || found.Sequence != uint64(2+i) {
					t.Errorf("job %d: at %d: %v", i, found.Sequence, err)
				}
			}
		})
	}
}

// A job that cannot be stored keeps its whole batch from being stored, and those after it.
func TestPutManyRefused(t *testing.T) {
	const n = 2*MaxBatch + 10
	large := func(e *Entry) { e.Spec.Arg = job.Value{Data: make([]byte, 2000)} }
	tests := map[string]struct {
		at     int
		spoil  func(*Entry)
		stored int
		want   error
	}{
		"ID taken, first batch":  {10, func(e *Entry) { *e = chosen("taken", task) }, 0, ErrExists},
		"ID taken, other lane":   {10, func(e *Entry) { *e = chosen("taken", "another.task") }, 0, ErrExists},
		"ID taken, last batch":   {n - 1, func(e *Entry) { *e = chosen("taken", task) }, 2 * MaxBatch, ErrExists},
		"too large, first batch": {0, large, 0, ErrTooLarge},
		"too large, last batch":  {n - 2, large, 2 * MaxBatch, ErrTooLarge},
		"illegal":                {MaxBatch, func(e *Entry) { e.Spec.Timeout = -1 }, MaxBatch, nil},
	}
	small := func(o *server.Options) { o.MaxPayload = 2000 }
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			natstest.RunWith(t, small, func(t *testing.T, s *natstest.Server) {
				q := createQueue(t, s.Connect(t), Config{})
				holder := chosen("taken", task)
				put(t, q, holder)
				entries := entriesOf(n)
				test.spoil(&entries[test.at])
				within(t, 0, name, func() {
					stored, err := q.PutMany(t.Context(), entries)
					if stored != test.stored || err == nil || test.want != nil && !errors.Is(err, test.want) {
						t.Errorf("stored %d, %v: want %d, %v", stored, err, test.stored, test.want)
					}
					if taken, ok := errors.AsType[*ExistsError](err); ok && taken.Nonce != holder.Spec.Nonce {
						t.Errorf("%v: not word of the holder", taken)
					}
				})
				wantMessages(t, q, 1+test.stored)
			})
		})
	}
}

// One ID chosen twice in one call: the first has it.
func TestPutManySameIDTwice(t *testing.T) {
	for _, other := range []string{task, "another.task"} {
		for _, apart := range []int{1, MaxBatch} {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				entries := entriesOf(apart + 1)
				entries[0] = chosen("mine", task)
				entries[apart] = chosen("mine", other)
				within(t, 0, "the put", func() {
					stored, err := q.PutMany(t.Context(), entries)
					want := &ExistsError{Queue: "media", ID: "mine", Nonce: entries[0].Spec.Nonce}
					if taken, ok := errors.AsType[*ExistsError](err); !ok || !cmp.Equal(taken, want) {
						t.Errorf("%d apart: stored %d, %v: want %v", apart, stored, err, want)
					}
					wantMessages(t, q, stored)
				})
			})
		}
	}
}

// The IDs of completed jobs are free for a batch, too.
func TestPutManyFreedIDs(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		var again []Entry
		for _, id := range []job.ID{"a", "b", "c"} {
			e := chosen(id, task)
			put(t, q, e)
			complete(t, q, e, job.Completed)
			again = append(again, chosen(id, "another.task"), newEntry())
		}
		stored, err := q.PutMany(t.Context(), again)
		if stored != len(again) || err != nil {
			t.Errorf("stored %d, %v", stored, err)
		}
		wantMessages(t, q, len(again))
	})
}

// The parts of a composition are put by whoever goes on with it: where one was put
// by somebody else, alone, the others are put all the same.
func TestPutManySomeOfThemAgain(t *testing.T) {
	for there := range 3 {
		inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
			entries := entriesOf(3)
			put(t, q, entries[there])
			stored, err := q.PutMany(t.Context(), entries)
			if stored != len(entries) || err != nil {
				t.Errorf("stored %d, %v", stored, err)
			}
			wantMessages(t, q, len(entries))
		})
	}
}
