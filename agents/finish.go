package agents

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
	"github.com/asyncnats/asyncnats/stream"
)

// errCancelled: the job was cancelled, or has expired, so that its outcome is
// decided.
var errCancelled = errors.New("job was cancelled")

// errReassigned: another attempt of the job has written about it, so what this
// one has to say is void (FEATURES 188).
var errReassigned = errors.New("job was reassigned: another attempt has it, or has ended it")

// finish gives back the job's slots, records the outcome, once, and ends the
// job's message. The slots come first: once an outcome can be read nothing is
// owed (rule R1), and the next job does not wait for the record to be written.
//
// A crash before the record is written leaves the job to another attempt, which
// takes over the slots or asks for them again; one between record and ack leaves
// the message, whose next receiver finds the record, keeps the job if it failed,
// and acks.
func (a *attempt) finish(outcome job.Outcome) {
	if a.settled.CompareAndSwap(false, true) {
		a.finishSettled(outcome)
	}
}

// finishSettled is finish for who has set settled.
func (a *attempt) finishSettled(outcome job.Outcome) {
	a.ended = time.Now()
	if err := a.release(); err != nil {
		a.dropped(err)
		return
	}
	if !a.recorded(outcome) {
		if !a.lease.Held() {
			a.dropped(job.ErrLeaseLost)
			return
		}
		if a.paysStopped() {
			return
		}
		a.outcome = &outcome
		a.announce(a.record(job.Completed, &outcome))
		a.ack()
		return
	}
	record, err := a.writeOutcome(outcome)
	if errors.Is(err, stream.ErrTooLarge) {
		record, err = a.writeOutcome(job.Outcome{Failure: job.Invalidf("%v", err)})
	}
	switch {
	case err != nil:
		a.decided(err)
		return
	case record.State == job.Callbacks:
		a.last = &record
		a.pay(false)
	default:
		a.conclude(record)
	}
	a.tell(record)
}

// writeOutcome records an outcome: as that of a completed job or, where callbacks
// are to be put, of one that owes them.
func (a *attempt) writeOutcome(outcome job.Outcome) (job.Record, error) {
	return a.writeRecord(func() job.Record {
		state := job.Completed
		if a.owes(outcome) {
			state = job.Callbacks
		}
		return a.record(state, &outcome)
	})
}

// owes reports whether callbacks are to be put after an outcome.
func (a *attempt) owes(outcome job.Outcome) bool {
	takes := func(c job.Callback) bool { return c.Takes(outcome) }
	return slices.ContainsFunc(a.spec.Callbacks, takes) || a.known() && slices.ContainsFunc(a.last.Callbacks, takes)
}

// conclude ends the message of a job whose outcome is recorded: it keeps the job
// if it failed, tells who waits, and ends its message.
func (a *attempt) conclude(record job.Record) {
	a.outcome = record.Outcome
	kept := a.bury(record)
	a.announce(record)
	if kept {
		a.end()
	}
}

// end ends the message of a job that is completed. That of a part goes when the
// whole knows; the attempt does not wait for that, and gives its place back.
//
// A crash before leaves the message, whose next receiver does it.
func (a *attempt) end() {
	if !a.spec.Parent.Waits() {
		a.ack()
		return
	}
	a.runner.settle(func() {
		err := a.exchange(func(ctx context.Context) error {
			return a.runner.config.Queue.PayOrDisown(ctx, a.lease.ID, a.spec, false)
		})
		switch {
		case err != nil:
			a.log("part is completed, and its whole is not told yet, will be when its message comes back", err)
		case a.lease.Held():
			a.ack()
		}
	})
}

func (a *attempt) dropped(err error) {
	a.lost = errors.Is(err, job.ErrLeaseLost) || errors.Is(err, errReassigned)
	a.log("outcome dropped", err)
}

// drop ends an attempt that lost its lease, by its own clock or to another
// attempt: what it has to say is void, and its slots are the job's.
func (a *attempt) drop() {
	if !a.settled.CompareAndSwap(false, true) {
		return
	}
	a.abandon()
	a.dropped(job.ErrLeaseLost)
}

// recorded reports whether the outcome needs a record: results that nobody
// keeps do not, unless a record was begun that has to be ended, callbacks are owed,
// or the job belongs to another, for which its record says that it is done.
func (a *attempt) recorded(outcome job.Outcome) bool {
	return a.spec.Keep != job.KeepNone || !outcome.Succeeded() || a.revision != 0 || a.spec.Callbacks != nil || a.spec.Parent != nil
}

// drain hands a job back that was begun and must stop.
//
// Its slots stay with it. It records the start first, where that was not done, so that the next
// attempt counts an interruption; a crash between leaves the same record and
// lets the ack wait pass.
func (a *attempt) drain() {
	if !a.settled.CompareAndSwap(false, true) {
		return
	}
	a.abandon()
	if a.revision == 0 {
		_, err := a.writeRecord(func() job.Record { return a.record(job.Active, nil) })
		if err != nil && !errors.Is(err, kv.ErrConflict) { // somebody has cancelled it: the next receiver pays
			a.log("interrupted job not handed back, comes back by itself", err)
			return
		}
	}
	a.runner.handBack(a.lease)
}

// record makes the job's record as this attempt writes it.
func (a *attempt) record(state job.State, outcome *job.Outcome) job.Record {
	record := job.Record{
		Version: job.RecordVersion, Nonce: a.spec.Nonce, Task: a.lease.Lane.Task, Quotas: a.lease.Lane.Quotas(), Priority: a.lease.Lane.Priority, To: a.lease.Lane.To, State: state,
		Attempt: a.us, Tally: a.tally, Message: a.spec.Attempt, Outcome: outcome,
		Parent: a.spec.Parent, By: a.spec.By, Put: a.put(), Started: a.began,
	}
	if a.known() {
		record.Past, record.Callbacks = a.last.Past, a.last.Callbacks
	}
	if outcome != nil {
		record.Ended = a.ended
		a.sign(outcome.Failure)
	}
	return record
}

// put is when the job was put: when its message was stored or, where that is a
// schedule that fired, when the one before was or, by the putter's clock, when it
// was made.
func (a *attempt) put() time.Time {
	switch {
	case a.known() && !a.last.Put.IsZero():
		return a.last.Put
	case !a.spec.Begin.IsZero() && !a.spec.At.IsZero():
		return a.spec.At
	}
	return a.lease.Stored.Stored
}

// sign says in a Failure on whose account it is.
func (a *attempt) sign(f *job.Failure) {
	if f != nil {
		f.Attempt, f.Dispatcher, f.Agent, f.At = a.us.Number, a.us.Dispatcher, a.us.Agent, a.ended.UTC()
	}
}

// writeRecord writes the record that build makes of what is known, at the revision
// that this attempt knows, while the lease is held, and remembers the new revision.
// Writes that get no answer are repeated. The error is [kv.ErrConflict] where another record is in the
// way of a start, errReassigned where one of another attempt is in the way of
// an outcome, and job.ErrLeaseLost where the lease ended first.
func (a *attempt) writeRecord(build func() job.Record) (job.Record, error) {
	for {
		record := build()
		var revision uint64
		err := a.exchange(func(ctx context.Context) (err error) {
			revision, err = a.runner.config.Queue.Write(ctx, a.lease.ID, record, a.revision, a.spec.Keep)
			return err
		}, stream.ErrTooLarge, kv.ErrConflict)
		switch {
		case err == nil:
			a.revision = revision
			return record, nil
		case !errors.Is(err, kv.ErrConflict):
			return record, err
		}
		if done, err := a.inTheWay(record); done {
			return *a.last, nil
		} else if err != nil {
			return record, err
		}
	}
}

// inTheWay looks at the record that refused ours. done says that it is ours,
// written by a try whose answer was lost; a nil error otherwise says that the
// write is to be repeated at the revision now known.
func (a *attempt) inTheWay(ours job.Record) (done bool, err error) {
	record, revision, found, err := a.readRecord()
	switch {
	case err != nil:
		return false, err
	case found && record.Nonce == ours.Nonce && record.Attempt.Same(a.us) && record.State == ours.State:
		a.last, a.revision = &record, revision // with callbacks that were added since
		return true, nil
	case found && record.Nonce == ours.Nonce && record.Attempt.Same(a.us), // callbacks were added since
		found && record.Nonce == ours.Nonce && record.State == job.Pending:
		a.last, a.revision = &record, revision
		return false, nil
	case found && record.Nonce == ours.Nonce && record.State == job.Callbacks && record.Stopped() && ours.State != job.Active:
		a.last, a.revision = &record, revision
		return false, errCancelled
	case found && record.Nonce == ours.Nonce && !record.Attempt.Same(a.us) && ours.State == job.Active:
		return false, kv.ErrConflict
	case found && record.Nonce == ours.Nonce && !record.Attempt.Same(a.us):
		return false, errReassigned
	}
	// A completed job used the same ID before, or somebody removed the record.
	a.revision = revision
	return false, nil
}

// readRecord reads the job's record, again and again while the lease is held.
func (a *attempt) readRecord() (record job.Record, revision uint64, found bool, err error) {
	err = a.exchange(func(ctx context.Context) (err error) {
		record, revision, found, err = a.runner.config.Queue.Record(ctx, a.lease.ID)
		return err
	})
	return record, revision, found, err
}

// exchange does something with the server, again and again while the lease is
// held, until there is no error, or one of those that are final; that of a closed
// connection is. The error is job.ErrLeaseLost where the lease ended first. Each
// try outlives the handler's context, which may have ended.
func (a *attempt) exchange(do func(context.Context) error, final ...error) error {
	for {
		left := a.lease.Remaining()
		if left == 0 {
			return job.ErrLeaseLost
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.runner.work), min(left, ioPatience))
		err := do(ctx)
		cancel()
		is := func(target error) bool { return errors.Is(err, target) }
		if err == nil || is(nats.ErrConnectionClosed) || slices.ContainsFunc(final, is) {
			return err
		}
		time.Sleep(ioPause)
	}
}

func (a *attempt) announce(record job.Record) {
	if err := a.runner.config.Queue.Announce(a.lease.ID, record); err != nil {
		a.runner.log.Debug("outcome not announced", "job", a.lease.ID, "err", err)
	}
	a.runner.config.Queue.DropDeadline(a.lease.ID, a.spec)
}

func (a *attempt) ack() {
	if err := a.lease.Ack(); err != nil {
		a.runner.log.Warn("ack not sent, the job comes back and is found done", "job", a.lease.ID, "err", err)
	}
}

// tell logs how the job ended.
func (a *attempt) tell(record job.Record) {
	took := record.Ended.Sub(record.Started)
	if f := record.Outcome.Failure; f != nil {
		a.runner.log.Error("job failed", "job", a.lease.ID, "task", a.lease.Lane.Task, "attempt", a.us.Number, "took", took, "err", f)
		return
	}
	a.runner.trace.Debug("job done", "job", a.lease.ID, "task", a.lease.Lane.Task, "attempt", a.us.Number, "took", took)
}
