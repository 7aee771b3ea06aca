package agents

import (
	"context"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// fail ends an attempt whose handler returned an error: it has the job run
// again, where its policy or the handler says so and its deadline leaves time,
// and else ends the job.
func (a *attempt) fail(err error) {
	if !a.settled.CompareAndSwap(false, true) {
		return
	}
	again, delay, tally := a.spec.Retry.Again(a.tally, err)
	failed := tally.Errors > a.tally.Errors
	a.tally = tally
	failure := job.FailureOf(err)
	var due time.Time
	if delay > 0 {
		due = a.now().Add(delay)
	}
	switch {
	case again && a.inTime(due) && failed:
		a.runAgain(failure, due)
	case again && a.inTime(due):
		a.runAgain(nil, due)
	case failed:
		a.finishSettled(job.Outcome{Failure: failure})
	default:
		a.finishSettled(job.Outcome{Failure: a.expired()})
	}
}

// now is the server's time or, as long as that is not known, ours.
func (a *attempt) now() time.Time {
	if now := a.runner.config.Link.Clock.Now(); !now.IsZero() {
		return now
	}
	return time.Now()
}

// inTime reports whether the job may begin at the given moment.
func (a *attempt) inTime(begin time.Time) bool {
	return a.spec.Deadline.IsZero() || begin.Before(a.spec.Deadline)
}

// late reports whether the job may not begin any more.
func (a *attempt) late() bool { return !a.inTime(a.now()) }

// expired is the Failure of a job whose deadline passed before it began, or
// before it was to be run again.
func (a *attempt) expired() *job.Failure {
	var past []job.Failure
	if a.last != nil {
		past = a.last.Past
	}
	return job.Expired(a.spec.Deadline, a.begun.Load() || a.known(), past)
}

// runAgain has the job run again when it is due, or at once. failure is why, nil
// where the attempt did not fail. The job gives back its slots until then; one
// that is to run again at once keeps them.
//
// A crash before the record is written leaves an interrupted attempt; one
// between the record and the schedule leaves the message, whose next receiver
// schedules it; one before the ack leaves a message that is behind the record,
// which is acked. A job that is to run again at once keeps its message, and so
// is the next of its lane.
func (a *attempt) runAgain(failure *job.Failure, due time.Time) {
	a.ended = time.Now()
	if !due.IsZero() {
		if err := a.release(); err != nil {
			a.dropped(err)
			return
		}
	}
	record, err := a.writeRecord(func() job.Record {
		record := a.record(job.Retrying, nil)
		record.Due, record.Ended = due, a.ended
		if failure != nil {
			a.sign(failure)
			record.Failed(*failure)
		}
		if !due.IsZero() {
			record.Message = a.us.Number
		}
		return record
	})
	if err != nil {
		a.decided(err)
		return
	}
	a.tellRetry(record, failure)
	if a.paysStopped() {
		return
	}
	if due.IsZero() {
		a.abandon()
		a.runner.handBack(a.lease)
		return
	}
	a.postpone(record)
}

// tellRetry logs that the job is run again.
func (a *attempt) tellRetry(record job.Record, failure *job.Failure) {
	wait := time.Duration(0)
	if !record.Due.IsZero() {
		wait = record.Due.Sub(a.now()).Round(time.Millisecond)
	}
	if failure == nil {
		a.runner.trace.Debug("job snoozed", "job", a.lease.ID, "task", a.lease.Lane.Task, "attempt", a.us.Number, "again_in", wait)
		return
	}
	a.runner.log.Warn("job failed, will be tried again", "job", a.lease.ID, "task", a.lease.Lane.Task,
		"attempt", a.us.Number, "errors", record.Errors, "again_in", wait, "err", failure)
}

// postpone schedules the job as its record says, and ends this message.
func (a *attempt) postpone(record job.Record) {
	spec := a.spec
	spec.Attempt, spec.Begin, spec.Again = record.Message, record.Due, false
	if a.schedule(spec) {
		a.ack()
	}
}

// schedule stores the job's next message, again and again while the lease is
// held. A job that waits for its time has no slots.
func (a *attempt) schedule(spec job.Spec) bool {
	if !a.leaveTicket() {
		return false
	}
	err := a.exchange(func(ctx context.Context) error {
		return a.runner.config.Queue.Postpone(ctx, a.lease.Stored, spec)
	})
	if err != nil {
		a.log("job not scheduled, will be when its message comes back", err)
	}
	return err == nil
}

// wait schedules a job anew that was given out too early.
func (a *attempt) wait() {
	spec := a.spec
	spec.Again = true // a copy was given out
	if a.schedule(spec) {
		a.ack()
	}
}

// early reports whether the job is not to begin yet, though it was given out: it
// was put on its lane as it is, or the putter's clock is ahead of the server's.
// One that was held until it is due is not.
func (a *attempt) early() bool {
	if !a.lease.Due.IsZero() {
		return a.lease.Due.Sub(a.now()) > stream.MaxHold
	}
	return a.now().Before(a.spec.Begin)
}
