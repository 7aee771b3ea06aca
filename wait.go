package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

const (
	// The record is read again, should its announcement be lost, after
	// pollFirst, and then after ever longer, up to pollLast.
	pollFirst = 500 * time.Millisecond
	pollLast  = 10 * time.Second
	// readPatience is how long one reading waits for its answers, which the end
	// of a connection may have taken with it.
	readPatience = 3 * time.Second
)

// Job is a job that was put, and will return an R. It is a handle: it holds
// the job's identity and nothing of its state.
type Job[R any] struct {
	queue *Queue
	id    job.ID
	nonce job.Nonce
}

func newJob[R any](q *Queue, id job.ID, nonce job.Nonce) *Job[R] {
	return &Job[R]{queue: q, id: id, nonce: nonce}
}

// ID returns what names the job in its queue.
func (j *Job[R]) ID() job.ID { return j.id }

// Queue returns the queue that the job was put on.
func (j *Job[R]) Queue() *Queue { return j.queue }

// Wait waits until the job is completed and returns its result. Where the job
// failed the error is a [*job.Failure], which says why:
//
//	url, err := thumb.Wait(ctx)
//	if failure, failed := errors.AsType[*job.Failure](err); failed { … }
//
// It returns [ErrOutcomeNotKept] where the job is over and its outcome is not
// kept, and ctx's error where ctx ended first. It survives reconnects.
func (j *Job[R]) Wait(ctx context.Context) (R, error) {
	var result R
	record, err := j.wait(ctx)
	if err != nil {
		return result, fmt.Errorf("asyncnats: wait for job %s: %w", j.id, err)
	}
	if record.Outcome.Failure != nil {
		return result, record.Outcome.Failure
	}
	if err := decodeValue(record.Outcome.Result, &result); err != nil {
		return result, fmt.Errorf("asyncnats: result of job %s: %w", j.id, err)
	}
	return result, nil
}

// wait returns the job's record once it has its outcome: as announced, or as
// read. The announcement is subscribed to before the first reading, so that
// none is missed between; one lost on the way is made up for by reading again,
// after a reconnect and from time to time.
func (j *Job[R]) wait(ctx context.Context) (job.Record, error) {
	opened, err := j.queue.open(ctx)
	if err != nil {
		return job.Record{}, err
	}
	announced, err := opened.Await(j.id, j.nonce)
	if err != nil {
		return job.Record{}, err
	}
	defer announced.Close()
	pause := pollFirst
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return job.Record{}, ctx.Err()
		case record := <-announced.Records():
			if j.ended(record) {
				return record, nil
			}
			continue
		case <-announced.Reconnected():
			pause = pollFirst
		case <-poll.C:
		}
		record, found, err := j.read(ctx, opened)
		if found {
			return record, nil
		}
		if errors.Is(err, ErrOutcomeNotKept) {
			return j.lastWord(announced)
		}
		if err != nil && !errors.Is(err, ErrUnanswered) && ctx.Err() == nil {
			return job.Record{}, err
		}
		poll.Reset(pause)
		pause = min(2*pause, pollLast)
	}
}

// read is outcome within readPatience.
func (j *Job[R]) read(ctx context.Context, opened *stream.Queue) (record job.Record, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	return j.outcome(ctx, opened)
}

// outcome reads the job's record and, where it has none that is ended, makes
// sure that the job's message is there still.
//
// Who cancels a job of which nothing is kept writes so before it is known that this
// comes in time. Where it does not the message is gone, and the record in a moment.
func (j *Job[R]) outcome(ctx context.Context, opened *stream.Queue) (record job.Record, found bool, err error) {
	record, _, found, err = opened.PeekRecord(ctx, j.id)
	ended := found && j.ended(record)
	if err != nil || ended && !claimed(record) {
		return record, ended && err == nil, err
	}
	waiting, err := opened.Peek(ctx, j.id)
	if errors.Is(err, ErrNoJob) || err == nil && !j.is(waiting) {
		waiting, err = opened.Find(ctx, j.id)
	}
	if err == nil && j.is(waiting) {
		spec, _ := waiting.Spec()
		return record, ended && spec.Keep != job.KeepNone, nil
	}
	if err != nil && !errors.Is(err, ErrNoJob) {
		return job.Record{}, false, err
	}
	// The message is gone, so the outcome is recorded, and the leader knows.
	record, _, found, err = opened.Record(ctx, j.id)
	switch {
	case err != nil:
		return job.Record{}, false, err
	case found && j.ended(record) && claimed(record):
		return job.Record{}, false, ErrOutcomeNotKept
	case found && j.ended(record):
		return record, true, nil
	case found && j.nonce == record.Nonce:
		return job.Record{}, false, nil
	}
	return job.Record{}, false, ErrOutcomeNotKept
}

// lastWord is the announcement of an outcome that nobody keeps: it was sent
// before the job's message went, so by now it has arrived if it ever will.
func (j *Job[R]) lastWord(announced *stream.Announced) (job.Record, error) {
	select {
	case record := <-announced.Records():
		if j.ended(record) {
			return record, nil
		}
	default:
	}
	return job.Record{}, ErrOutcomeNotKept
}

// ended reports whether a record holds this job's outcome.
func (j *Job[R]) ended(record job.Record) bool {
	return record.State.Ended() && record.Outcome != nil && (j.nonce.IsZero() || j.nonce == record.Nonce)
}

// claimed reports whether a record is that of a job that was stopped, as far as who
// did so knew, before it was begun, and owes something still.
func claimed(record job.Record) bool {
	return record.State == job.Callbacks && record.Stopped() && record.Started.IsZero()
}

// is reports whether a message is this job's.
func (j *Job[R]) is(waiting stream.Stored) bool {
	spec, _ := waiting.Spec() // a body that cannot be read has a nonce too
	return j.nonce.IsZero() || j.nonce == spec.Nonce
}
