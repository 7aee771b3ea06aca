package stream

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func withDeadline(d time.Duration) Entry {
	e := newEntry()
	e.Spec.Deadline = time.Now().Add(d)
	return e
}

// attendDeadlines plays a dispatcher.
func attendDeadlines(t *testing.T, q *Queue) {
	t.Helper()
	attendTest(t, q, func(due Due) error { return q.Expire(context.WithoutCancel(t.Context()), due) })
}

func wantRecord(t *testing.T, q *Queue, id job.ID, state job.State, kind job.Kind) {
	t.Helper()
	record, _, found, err := q.Record(t.Context(), id)
	if err != nil || !found || record.State != state || kind != "" && !record.EndedAs(kind) {
		t.Errorf("record %+v, %v, %v: want %s %s", record, found, err, state, kind)
	}
}

// The timer is there before the job: whose putter dies between the two leaves
// none without it.
func TestDeadlineComesBeforeItsJob(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := withDeadline(time.Minute)
		put(t, q, e)
		timer, err := q.last(t.Context(), q.names.timer(deadlineOf(e.ID, e.Spec.Nonce)))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := q.Find(t.Context(), e.ID)
		if err != nil || timer.Sequence >= stored.Sequence {
			t.Errorf("timer has sequence %d, job %d, %v", timer.Sequence, stored.Sequence, err)
		}
	})
}

// A timer without its job does no harm; and if the job comes late all the same,
// past its deadline, it ends.
func TestDeadlineOfJobThatComesLate(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		attendDeadlines(t, q)
		never, late := withDeadline(time.Second), withDeadline(time.Second)
		for _, e := range []Entry{never, late} {
			if err := q.setDeadlines(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Second)
		msg, err := q.message(late, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.publish(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantRecord(t, q, late.ID, job.Completed, job.KindExpired)
		wantMessages(t, q, 0)
	})
}

// An attempt that ends just before the deadline may have the job run again, and
// write so just after it.
func TestDeadlineOfJobThatIsRetriedAtTheLastMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		attendDeadlines(t, q)
		e := withDeadline(time.Second)
		put(t, q, e)
		record := job.Record{Version: job.RecordVersion, Nonce: e.Spec.Nonce, Task: task, State: job.Active, Attempt: job.Attempt{Number: 1, Token: 7}}
		revision, err := q.Write(t.Context(), e.ID, record, 0, job.KeepDefault)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		wantRecord(t, q, e.ID, job.Active, "")
		record.State = job.Retrying
		if _, err := q.Write(t.Context(), e.ID, record, revision, job.KeepDefault); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantRecord(t, q, e.ID, job.Completed, job.KindExpired)
		wantMessages(t, q, 0)
	})
}

// Whoever ends an expired job may die after the record is written.
func TestExpireGoesOnFromCallbacks(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := withDeadline(time.Second)
		put(t, q, e)
		record := job.Record{
			Version: job.RecordVersion, Nonce: e.Spec.Nonce, Task: task, State: job.Callbacks,
			Outcome: &job.Outcome{Failure: job.Expired(e.Spec.Deadline, false, nil)},
		}
		if _, err := q.Write(t.Context(), e.ID, record, 0, job.KeepDefault); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Cancel(t.Context(), e.ID, e.Spec.Nonce); !errors.Is(err, ErrCompleted) {
			t.Errorf("cancelled after it had expired: %v", err)
		}
		attendDeadlines(t, q)
		time.Sleep(2 * time.Second)
		wantRecord(t, q, e.ID, job.Completed, job.KindExpired)
		wantMessages(t, q, 0)
	})
}

// A put that is refused, and a job that is taken back, leave no timer.
func TestDeadlineGoesWithItsJob(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		put(t, q, chosen("a", task))
		second := chosen("a", task)
		second.Spec.Deadline = time.Now().Add(time.Hour)
		if err := q.Put(t.Context(), second); err == nil {
			t.Fatal("a second job with one ID was put")
		}
		third := withDeadline(time.Hour)
		put(t, q, third)
		if _, err := q.Pull(t.Context(), third.ID, third.Spec.Nonce); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantMessages(t, q, 1)
	})
}
