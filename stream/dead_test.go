package stream

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// failed is what is kept of a job of the task that failed when it was put at that
// time.
func failed(t *testing.T, e Entry, put time.Time, message string) job.Dead {
	t.Helper()
	body, err := job.EncodeSpec(e.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return job.Dead{Version: job.DeadVersion, Body: body, Record: job.Record{
		Version: job.RecordVersion, Nonce: e.Spec.Nonce, Task: e.Spec.Task, State: job.Completed, Put: put.UTC(),
		Outcome: &job.Outcome{Failure: &job.Failure{Kind: job.KindError, Message: message, At: put.UTC()}},
	}}
}

// bury keeps a job that was put now.
func bury(t *testing.T, q *Queue, e Entry, message string) {
	t.Helper()
	if err := q.Bury(t.Context(), e.ID, failed(t, e, time.Now(), message)); err != nil {
		t.Fatal(err)
	}
}

func firstErr[E any](entries iter.Seq2[E, error]) error {
	for _, err := range entries {
		return err
	}
	return nil
}

// listed describes entries in their order.
func listed(t *testing.T, entries iter.Seq2[DeadEntry, error]) (list []string) {
	t.Helper()
	for e, err := range entries {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s %s", e.ID, e.Record.Outcome.Failure.Message))
	}
	return list
}

func wantListed(t *testing.T, entries iter.Seq2[DeadEntry, error], want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, listed(t, entries)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDeadIsListed(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		wantListed(t, q.Dead(t.Context(), ""))
		other, err := q.ns.CreateQueue(t.Context(), "other", Config{})
		if err != nil {
			t.Fatal(err)
		}
		bury(t, other, chosen("a", task), "elsewhere")
		bury(t, q, chosen("a", task), "one")
		bury(t, q, chosen("a", "image"), "two")
		bury(t, q, chosen("b", "text.shout"), "three")
		bury(t, q, chosen("c/1=x", task), "four")
		wantListed(t, q.Dead(t.Context(), ""), "c/1=x four", "b three", "a two", "a one")
		wantListed(t, q.Dead(t.Context(), task), "c/1=x four", "a one")
		wantListed(t, q.OldestDead(t.Context(), ""), "a one", "a two", "b three", "c/1=x four")
		wantListed(t, q.OldestDead(t.Context(), "text.shout"), "b three")
		found, err := q.DeadJob(t.Context(), "a")
		if err != nil || found.Record.Task != "image" || found.At.IsZero() {
			t.Errorf("found %+v, %v, want the last of that ID", found, err)
		}
		if _, err := q.DeadJob(t.Context(), "d"); !errors.Is(err, ErrNoJob) {
			t.Errorf("of no such job: %v, want ErrNoJob", err)
		}
	})
}

// A job that is kept again is kept once, and stays as it was; a later one of its
// ID takes its place, whoever comes first.
func TestBuryAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		now := time.Now()
		first, second := chosen("a", task), chosen("a", task)
		keep := func(e Entry, put time.Time, message string) uint64 {
			t.Helper()
			if err := q.Bury(t.Context(), e.ID, failed(t, e, put, message)); err != nil {
				t.Fatal(err)
			}
			found, err := q.DeadJob(t.Context(), e.ID)
			if err != nil {
				t.Fatal(err)
			}
			return found.Revision
		}
		revision := keep(first, now, "first")
		if again := keep(first, now, "first, redelivered"); again != revision {
			t.Errorf("kept again with revision %d, before %d", again, revision)
		}
		wantListed(t, q.Dead(t.Context(), ""), "a first")
		if keep(second, now.Add(time.Second), "second") == revision {
			t.Error("a later job did not take its place")
		}
		keep(first, now, "first, redelivered")
		wantListed(t, q.Dead(t.Context(), ""), "a second")
	})
}

// An entry is removed as it was read, and one that was written since is not.
func TestRemoveDead(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		find := func() DeadEntry {
			t.Helper()
			found, err := q.DeadJob(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		bury(t, q, chosen("a", task), "old")
		old := find()
		time.Sleep(time.Second)
		bury(t, q, chosen("a", task), "new")
		last := find()
		for name, call := range map[string]error{
			"old still there": q.StillDead(t.Context(), old), "old removed": q.RemoveDead(t.Context(), old),
		} {
			if !errors.Is(call, ErrNoJob) {
				t.Errorf("%s: %v, want ErrNoJob", name, call)
			}
		}
		if err := errors.Join(q.StillDead(t.Context(), last), q.RemoveDead(t.Context(), last)); err != nil {
			t.Fatal(err)
		}
		wantListed(t, q.Dead(t.Context(), ""))
		if err := q.RemoveDead(t.Context(), last); !errors.Is(err, ErrNoJob) {
			t.Errorf("removed twice: %v", err)
		}
		bucket, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_DEAD")
		if err != nil || bucket.CachedInfo().State.Msgs != 0 {
			t.Errorf("%d messages left, %v: want no markers", bucket.CachedInfo().State.Msgs, err)
		}
	})
}

func TestPurgeDead(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for i := range 3 {
			bury(t, q, chosen(job.ID(fmt.Sprint("thumb-", i)), task), "x")
		}
		bury(t, q, chosen("a", "text.shout"), "x")
		if n, err := q.PurgeDead(t.Context(), task); n != 3 || err != nil {
			t.Errorf("removed %d, %v, want 3", n, err)
		}
		wantListed(t, q.Dead(t.Context(), ""), "a x")
		if n, err := q.PurgeDead(t.Context(), ""); n != 1 || err != nil {
			t.Errorf("removed %d, %v, want 1", n, err)
		}
	})
}

// However many have failed, a list that ends early reads few, and one that is as
// long as it gets reads each once. What fails meanwhile is no part of it.
func TestDeadIsPaged(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		const n = 2*pageSize + 7
		for i := range n {
			bury(t, q, chosen(job.ID(fmt.Sprint("job-", i)), task), "x")
		}
		reader := openQueue(t, s)
		count := func(list iter.Seq2[DeadEntry, error], most int) (entries, messages int) {
			t.Helper()
			before := reader.conn().Stats().InMsgs
			for _, err := range list {
				if err != nil {
					t.Fatal(err)
				}
				if entries++; entries == most {
					break
				}
			}
			return entries, int(reader.conn().Stats().InMsgs - before)
		}
		if entries, messages := count(reader.Dead(t.Context(), ""), 10); entries != 10 || messages > deadWindow+10 {
			t.Errorf("10 of %d: %d entries in %d messages", n, entries, messages)
		}
		for name, list := range map[string]iter.Seq2[DeadEntry, error]{"newest": reader.Dead(t.Context(), ""), "oldest": reader.OldestDead(t.Context(), "")} {
			if entries, messages := count(list, n+1); entries != n || messages > n+20 {
				t.Errorf("all of %d, %s first: %d entries in %d messages", n, name, entries, messages)
			}
		}
		seen := 0
		for e, err := range q.OldestDead(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen == 1 {
				bury(t, q, Entry{ID: "later", Spec: chosen(e.ID, task).Spec}, "x")
			}
		}
		if seen != n {
			t.Errorf("%d entries of %d that were there", seen, n)
		}
	})
}

// openQueue opens the queue over a connection of its own.
func openQueue(t *testing.T, s *natstest.Server) *Queue {
	t.Helper()
	q, err := openNamespace(t, s.Connect(t), "").Queue(t.Context(), "media")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// An entry that the server does not take is kept without what can be spared, and
// says so.
func TestDeadTooLarge(t *testing.T) {
	small := func(o *server.Options) { o.MaxPayload = 4 << 10 }
	for name, row := range map[string]struct {
		stack, past, arg int
		want             string
	}{
		"fits":             {100, 100, 100, ""},
		"large stack":      {4 << 10, 100, 100, "stack"},
		"large past":       {100, 4 << 10, 100, "stack past"},
		"large argument":   {100, 100, 4 << 10, "stack past arg"},
		"no stack, no arg": {0, 4 << 10, 0, "past"},
	} {
		t.Run(name, func(t *testing.T) {
			natstest.RunWith(t, small, func(t *testing.T, s *natstest.Server) {
				q := createQueue(t, s.Connect(t), Config{})
				e := chosen("a", task)
				if row.arg > 0 {
					e.Spec.Arg = job.Value{Encoding: job.JSON, Data: []byte(`"` + strings.Repeat("x", row.arg) + `"`)}
				}
				dead := failed(t, e, time.Now(), "why")
				dead.Record.Outcome.Failure.Stack = strings.Repeat("s", row.stack)
				dead.Record.Past = []job.Failure{{Message: strings.Repeat("p", row.past)}}
				if err := q.Bury(t.Context(), e.ID, dead); err != nil {
					t.Fatal(err)
				}
				found, err := q.DeadJob(t.Context(), e.ID)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(found.Cut, " "); got != row.want || found.Record.Outcome.Failure.Message != "why" {
					t.Errorf("without %q, want %q; %+v", got, row.want, found.Record)
				}
				if spec, err := found.Spec(); err != nil || spec.Arg.IsNone() != (row.arg == 0 || slices.Contains(found.Cut, job.CutArg)) {
					t.Errorf("spec %+v, %v", spec, err)
				}
			})
		})
	}
	natstest.RunWith(t, small, func(t *testing.T, s *natstest.Server) {
		q := createQueue(t, s.Connect(t), Config{})
		e := chosen("a", task)
		if err := q.Bury(t.Context(), e.ID, failed(t, e, time.Now(), strings.Repeat("x", 4<<10))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("nothing to spare: %v, want ErrTooLarge", err)
		}
	})
}

// Entries live for thirty days, and an administrator may say otherwise.
func TestDeadRetention(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		bucket, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_DEAD")
		if err != nil {
			t.Fatal(err)
		}
		config := bucket.CachedInfo().Config
		if config.MaxAge != DeadKeep {
			t.Errorf("max age %v, want %v", config.MaxAge, DeadKeep)
		}
		config.MaxAge = time.Hour
		if _, err := q.ns.js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		again, err := q.ns.CreateQueue(t.Context(), "media", Config{})
		if err != nil {
			t.Fatal(err)
		}
		if bucket, err = q.ns.js.Stream(t.Context(), "KV_ASYNC_DEAD"); err != nil || bucket.CachedInfo().Config.MaxAge != time.Hour {
			t.Errorf("max age %v, %v: it was altered", bucket.CachedInfo().Config.MaxAge, err)
		}
		bury(t, again, chosen("a", task), "x")
		wantListed(t, again.Dead(t.Context(), ""), "a x")
		time.Sleep(2 * time.Hour)
		wantListed(t, again.Dead(t.Context(), ""))
	})
}

// Where a namespace has no bucket, as after an upgrade, nothing has failed, and
// the first job that fails makes it; also where it was removed meanwhile.
func TestDeadIsMadeOnDemand(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for range 2 {
			if err := q.ns.js.DeleteStream(t.Context(), "KV_ASYNC_DEAD"); err != nil {
				t.Fatal(err)
			}
			wantListed(t, q.Dead(t.Context(), ""))
			if _, err := q.DeadJob(t.Context(), "a"); !errors.Is(err, ErrNoJob) {
				t.Errorf("look for one: %v, want ErrNoJob", err)
			}
			if n, err := q.PurgeDead(t.Context(), ""); n != 0 || err != nil {
				t.Errorf("purge: %d, %v", n, err)
			}
			e := chosen("a", task)
			err := q.Bury(t.Context(), e.ID, failed(t, e, time.Now(), "x"))
			if errors.Is(err, ErrUnanswered) { // the second time
				err = q.Bury(t.Context(), e.ID, failed(t, e, time.Now(), "x"))
			}
			if err != nil {
				t.Fatal(err)
			}
			wantListed(t, q.Dead(t.Context(), ""), "a x")
		}
		bucket, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_DEAD")
		if err != nil || bucket.CachedInfo().Config.MaxAge != DeadKeep {
			t.Errorf("%+v, %v", bucket.CachedInfo().Config, err)
		}
	})
}

// Markers and entries that cannot be read are left out.
func TestDeadUnreadable(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		bury(t, q, chosen("a", task), "x")
		for key, data := range map[string]string{"media.image=thumb.later": "\x81\xa1v\x02", "media.image=thumb.none": ""} {
			if _, err := q.ns.js.Publish(t.Context(), "$KV.ASYNC_DEAD."+key, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		wantListed(t, q.Dead(t.Context(), ""), "a x")
		wantListed(t, q.OldestDead(t.Context(), ""), "a x")
		if _, err := q.DeadJob(t.Context(), "later"); err == nil || errors.Is(err, ErrNoJob) {
			t.Errorf("of a later release: %v", err)
		}
		e := chosen("later", task)
		if err := q.Bury(t.Context(), e.ID, failed(t, e, time.Now(), "y")); err == nil || errors.Is(err, ErrUnanswered) {
			t.Errorf("in the place of one of a later release: %v", err)
		}
	})
}

// What is kept of a queue's failed jobs goes with the queue.
func TestDeadGoesWithItsQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		bury(t, q, chosen("a", task), "x")
		other, err := q.ns.CreateQueue(t.Context(), "other", Config{})
		if err != nil {
			t.Fatal(err)
		}
		bury(t, other, chosen("b", task), "y")
		if err := q.ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Fatal(err)
		}
		wantListed(t, q.Dead(t.Context(), ""))
		wantListed(t, other.Dead(t.Context(), ""), "b y")
		if err := q.ns.js.DeleteStream(t.Context(), "KV_ASYNC_DEAD"); err != nil {
			t.Fatal(err)
		}
		if err := q.ns.DeleteQueue(t.Context(), "other"); err != nil {
			t.Errorf("without a bucket: %v", err)
		}
	})
}

// A write that is not allowed is said to be, and one to a bucket that is full is
// no silence either: neither is to be tried for ever.
func TestDeadRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		bucket, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_DEAD")
		if err != nil {
			t.Fatal(err)
		}
		config := bucket.CachedInfo().Config
		config.MaxBytes = 100
		if _, err := q.ns.js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		e := chosen("a", task)
		err = q.Bury(t.Context(), e.ID, failed(t, e, time.Now(), strings.Repeat("x", 200)))
		var refused *jetstream.APIError
		if !errors.As(err, &refused) || errors.Is(err, ErrUnanswered) || errors.Is(err, kv.ErrConflict) {
			t.Errorf("a full bucket: %v", err)
		}
	})
}
