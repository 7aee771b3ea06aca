package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
)

// A job that is not to begin after its deadline has a timer that fires then,
// wherever the job is: on a lane that no agent serves, blocked by a quota,
// scheduled, resting before a retry. The timer is stored before each try to store
// the job. So a crash between the two leaves a timer of no job, which fires in
// vain; one that follows would be lost with its putter.

// lookAgain is how long after a timer has fired a job is looked at for a second time
// about which there was nothing to do: what the timer was set for may be under way. After
// a deadline that is its put, or the write by which an attempt that ended before has it
// run again; else a cancel, or parts that are added. That is long over then: a put stores
// the timer anew before each try.
const lookAgain = time.Minute

func deadlineOf(id job.ID, nonce job.Nonce) Timer { return Timer{TimerDeadline, string(id), nonce} }

// setDeadlines stores the timers of those jobs that have a deadline. It may be
// repeated.
func (q *Queue) setDeadlines(ctx context.Context, entries ...Entry) error {
	var msgs []*nats.Msg
	for _, e := range entries {
		if at := e.Spec.Deadline; !at.IsZero() {
			msgs = append(msgs, q.names.timerMessage(deadlineOf(e.ID, e.Spec.Nonce), at, at))
		}
	}
	if msgs == nil {
		return nil
	}
	return q.publishAll(ctx, msgs)
}

// DropDeadline removes the timer of a job that is over, if it has one, and does
// not wait for it: one that is left fires in vain.
func (q *Queue) DropDeadline(id job.ID, spec job.Spec) {
	if !spec.Deadline.IsZero() {
		q.dropTimer(deadlineOf(id, spec.Nonce))
	}
}

// Expire ends a job whose deadline has passed, with a Failure of job.KindExpired,
// unless it has begun or is over. Such a job writes that it begins before it
// does, so that one of the two writes wins. It goes about it as [Queue.Cancel]
// does, and may be repeated.
func (q *Queue) Expire(ctx context.Context, due Due) error {
	id, err := job.ParseID(due.Of)
	if err != nil {
		return nil //nolint:nilerr // no job has that ID
	}
	_, err = q.stop(ctx, id, due.Nonce, stopping{
		kind: job.KindExpired, began: true,
		failure: func(record job.Record) *job.Failure {
			return job.Expired(due.At, record.State == job.Retrying, record.Past)
		},
	})
	switch {
	case errors.Is(err, ErrCompleted), errors.Is(err, ErrNoQueue):
		return nil
	case errors.Is(err, ErrNoJob), errors.Is(err, errBegan):
		err = q.onceMore(ctx, due)
	}
	if err != nil {
		return fmt.Errorf("end job %s in queue %s, whose deadline has passed: %w", id, q.names.queue, err)
	}
	return nil
}

// onceMore has a timer that has fired do so again after a while, if it is the first time.
func (q *Queue) onceMore(ctx context.Context, due Due) error {
	if due.Again > 0 {
		return nil
	}
	return q.setAgain(ctx, due, due.Fired.Add(lookAgain))
}

// setAgain sets a timer that has fired again.
func (q *Queue) setAgain(ctx context.Context, due Due, at time.Time) error {
	msg := q.names.timerMessage(due.Timer, at, due.At)
	msg.Header.Set(headerAgain, strconv.Itoa(due.Again+1))
	return q.publish(ctx, msg)
}
