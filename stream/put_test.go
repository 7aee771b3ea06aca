package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func TestPut(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		found, err := q.Find(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		body, err := job.EncodeSpec(e.Spec)
		if err != nil {
			t.Fatal(err)
		}
		want := Stored{Lane: lane, ID: e.ID, Sequence: 2, Stored: time.Now(), Body: body}
		if diff := cmp.Diff(want, found, cmpopts.EquateApproxTime(0), cmpopts.EquateComparable(Lane{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		spec, err := found.Spec()
		if diff := cmp.Diff(e.Spec, spec, cmpopts.EquateApproxTime(0)); err != nil || diff != "" {
			t.Errorf("spec: %v (-want +got):\n%s", err, diff)
		}
		if _, err := q.Find(t.Context(), job.NewID()); !errors.Is(err, ErrNoJob) {
			t.Errorf("another ID: %v, want ErrNoJob", err)
		}
		// The lane is known before the job is.
		if lanes, err := q.Lanes(t.Context()); err != nil || !slices.Equal(lanes, []Lane{lane}) {
			t.Errorf("lanes %v, %v", lanes, err)
		}
	})
}

// Who puts the same entry again is told what is true: it is stored.
func TestPutAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for _, e := range []Entry{newEntry(), chosen("mine", task)} {
			put(t, q, e, e)
		}
		wantMessages(t, q, 2)
	})
}

func TestPutIllegal(t *testing.T) {
	tests := map[string]struct {
		change func(*Entry)
		want   string
	}{
		"task":      {func(e *Entry) { e.Spec.Task = "a..b" }, "illegal task name"},
		"version":   {func(e *Entry) { e.Spec.Version = 99 }, "version 99"},
		"timeout":   {func(e *Entry) { e.Spec.Timeout = -1 }, "negative"},
		"empty ID":  {func(e *Entry) { e.ID = "" }, "illegal job ID"},
		"long ID":   {func(e *Entry) { e.ID = job.ID(strings.Repeat("a", 129)) }, "illegal job ID"},
		"dotted ID": {func(e *Entry) { e.ID = "a.b" }, "illegal job ID"},
		"wild ID":   {func(e *Entry) { e.ID = "*" }, "illegal job ID"},
	}
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for name, test := range tests {
			e := chosen("mine", task)
			test.change(&e)
			within(t, 0, name, func() {
				if err := q.Put(t.Context(), e); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: %v, want an error with %q", name, err, test.want)
				}
			})
		}
		wantMessages(t, q, 0)
	})
}

func TestChosenIDTaken(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		first := chosen("mine", task)
		put(t, q, first)
		states := []job.State{"", job.Active, job.Retrying, job.Callbacks}
		for _, state := range states {
			if state != "" {
				complete(t, q, first, state)
			}
			for _, other := range []string{task, "another.task"} {
				err := q.Put(t.Context(), chosen("mine", other))
				taken, ok := errors.AsType[*ExistsError](err)
				want := &ExistsError{Queue: "media", ID: "mine", Nonce: first.Spec.Nonce}
				if !ok || !errors.Is(err, ErrExists) || !cmp.Equal(taken, want) {
					t.Errorf("in state %q, put of %s: %v, want %v", state, other, err, want)
				}
			}
		}
		wantMessages(t, q, 1)
	})
}

// An ID is free again as soon as its job is completed, even while the ack is on its way.
func TestChosenIDFreeAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		first, second := chosen("mine", task), chosen("mine", "another.task")
		put(t, q, first)
		complete(t, q, first, job.Completed)
		put(t, q, second)
		wantMessages(t, q, 1)
		found, err := q.Find(t.Context(), "mine")
		if spec, specErr := found.Spec(); err != nil || specErr != nil || spec.Nonce != second.Spec.Nonce {
			t.Errorf("%v, %v, %v: want the second job", spec, err, specErr)
		}
		// The record of the first frees nothing that is not its own.
		if err := q.Put(t.Context(), chosen("mine", task)); !errors.Is(err, ErrExists) {
			t.Errorf("third: %v, want ErrExists", err)
		}
	})
}

// Fifty puts of one ID, on as many lanes, from several connections: one wins, all others learn who.
func TestChosenIDAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		const puts, rounds = 50, 5
		queues := []*Queue{q, createQueue(t, s.Connect(t), Config{}), createQueue(t, s.Connect(t), Config{})}
		for round := range rounds {
			id := job.ID(fmt.Sprintf("mine-%d", round))
			var entries [puts]Entry
			var errs [puts]error
			var wg sync.WaitGroup
			for i := range entries {
				entries[i] = chosen(id, fmt.Sprintf("task.%d", i))
				wg.Go(func() { errs[i] = queues[i%len(queues)].Put(t.Context(), entries[i]) })
			}
			wg.Wait()
			found, err := q.Find(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			winner, err := found.Spec()
			if err != nil {
				t.Fatal(err)
			}
			for i, err := range errs {
				taken, refused := errors.AsType[*ExistsError](err)
				switch won := entries[i].Spec.Nonce == winner.Nonce; {
				case won && err != nil:
					t.Errorf("the winner: %v", err)
				case !won && (!refused || taken.Nonce != winner.Nonce):
					t.Errorf("put %d: %v, want word of the winner", i, err)
				}
			}
		}
		wantMessages(t, q, rounds)
	})
}

func TestPutTooLarge(t *testing.T) {
	limited := func(o *server.Options) { o.MaxPayload = 4096 }
	natstest.RunWith(t, limited, func(t *testing.T, s *natstest.Server) {
		q := createQueue(t, s.Connect(t), Config{})
		for _, id := range []job.ID{"generated", "mine"} {
			e := chosen(id, task)
			e.Chosen = id == "mine"
			e.Spec.Arg = job.Value{Data: make([]byte, 2000)}
			msg, err := q.message(e, 0)
			if err != nil {
				t.Fatal(err)
			}
			// The largest that the server takes, and one byte more.
			largest := 2000 + 4096 - payload(msg)
			e.Spec.Arg.Data = make([]byte, largest)
			if err := q.Put(t.Context(), e); err != nil {
				t.Errorf("the largest: %v", err)
			}
			e.Spec.Nonce, e.Spec.Arg.Data = job.NewNonce(), make([]byte, largest+1)
			err = q.Put(t.Context(), e)
			want := &TooLargeError{What: "job", Size: 4097, Max: 4096}
			if large, ok := errors.AsType[*TooLargeError](err); !ok || !errors.Is(err, ErrTooLarge) || !cmp.Equal(large, want) {
				t.Errorf("one byte more: %v, want %v", err, want)
			}
		}
		wantMessages(t, q, 2)
	})
}

func TestPutTooLargeForStream(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		edit(t, q, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
		q = createQueue(t, s.Connect(t), Config{})
		e := newEntry()
		e.Spec.Arg = job.Value{Data: make([]byte, 1000)}
		puts := map[string]func() error{
			"put":      func() error { return q.Put(t.Context(), e) },
			"put many": func() error { _, err := q.PutMany(t.Context(), []Entry{newEntry(), e}); return err },
		}
		for name, put := range puts {
			within(t, 0, name, func() {
				err := put()
				large, ok := errors.AsType[*TooLargeError](err)
				if !ok || large.Max != 1000 || large.Size <= 1000 {
					t.Errorf("%s: %v, want a TooLargeError with the stream's limit", name, err)
				}
			})
		}
		wantMessages(t, q, 0)
	})
}

func TestPutUnanswered(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, _ *Queue) {
		q, wire := wired(t, s)
		puts := map[string]func(context.Context) error{
			"put":      func(ctx context.Context) error { return q.Put(ctx, newEntry()) },
			"put many": func(ctx context.Context) error { _, err := q.PutMany(ctx, []Entry{newEntry(), newEntry()}); return err },
		}
		for name, put := range puts {
			for _, known := range []bool{false, true} {
				if known {
					if err := q.Register(t.Context(), lane); err != nil {
						t.Fatal(err)
					}
				}
				wire.Cut()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				within(t, 10*time.Second, name, func() {
					if err := put(ctx); !errors.Is(err, ErrUnanswered) {
						t.Errorf("%s with a deadline: %v, want ErrUnanswered", name, err)
					}
				})
				cancel()
				within(t, 31*time.Second, name, func() {
					if err := put(t.Context()); !errors.Is(err, ErrUnanswered) {
						t.Errorf("%s without a deadline: %v, want ErrUnanswered", name, err)
					}
				})
				wire.Restore()
				time.Sleep(time.Second)
			}
		}
	})
}

// complete writes the record that a dispatcher writes of the entry's job, in the state given.
func complete(t *testing.T, q *Queue, e Entry, state job.State) {
	t.Helper()
	_, revision, _, err := q.Record(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Write(t.Context(), e.ID, recordOf(e, state), revision, job.KeepDefault); err != nil {
		t.Fatal(err)
	}
}

func recordOf(e Entry, state job.State) job.Record {
	r := job.Record{
		Version: job.RecordVersion, Nonce: e.Spec.Nonce, Task: e.Spec.Task, State: state,
		Attempt: job.Attempt{Number: 1, Token: 7, Dispatcher: "d", Agent: "main"},
	}
	if state.Ended() {
		r.Outcome = &job.Outcome{}
	}
	return r
}

// The ack of a completed job may come before its message is removed for the sake of another put.
func TestRemoveIsContentWithWhatIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		stored, err := q.Find(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := q.remove(t.Context(), stored.Sequence); err != nil {
				t.Fatal(err)
			}
		}
	})
}
