package agents

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

const (
	// ioPause is the time between two tries of an exchange with the server.
	ioPause = 100 * time.Millisecond
	// ioPatience is how long one try waits for its answer.
	ioPatience = 3 * time.Second
)

// attempt is one try at performing one job. It belongs to the goroutine that
// performs it, except where it says otherwise.
type attempt struct {
	runner *Runner
	lease  *stream.Lease
	spec   job.Spec
	us     job.Attempt
	began  time.Time
	ended  time.Time // of the handler
	// outcome is what was recorded; lost says that the lease was lost first.
	outcome *job.Outcome
	lost    bool

	last     *job.Record    // the job's record as we saw it, which may be of another job; nil for none
	revision uint64         // of the job's record as we wrote or saw it; 0 for none
	tally    job.Tally      // of the attempts before this one
	ticket   *quotas.Ticket // nil where no slot is needed, or was asked for
	// forget ends that the attempt learns of a cancel, see [leaseSet].
	forget func() (told bool)
	// begun is set when the attempt's number is final, and a record of another
	// attempt is no longer that of one before it.
	begun atomic.Bool
	// settled is set by whoever ends the lease: the performing goroutine, or
	// the runner that leaves it behind.
	settled atomic.Bool
}

// attempt makes the attempt of a delivered job. invalid says what is wrong with
// a job that cannot be performed.
func (r *Runner) attempt(lease *stream.Lease) (a *attempt, invalid error) {
	spec, invalid := lease.Spec()
	if lease.Illegal != nil {
		invalid = lease.Illegal
	}
	if invalid != nil {
		spec.Begin = time.Time{} // it fails now, and it may be a time that never comes
	}
	return &attempt{
		runner: r, lease: lease, spec: spec, began: time.Now(),
		us: job.Attempt{
			Number: spec.Attempt + 1, Token: job.Token(rand.Uint64()),
			Dispatcher: r.config.Dispatcher, Agent: r.config.Agent.Name,
		},
	}, invalid
}

// keepLease keeps the attempt's lease until stop is called, it is lost, or the
// runner's work ends. ctx ends by that, and when the job is cancelled; its lease is
// kept then as long as its handler runs, which has its slots.
func (a *attempt) keepLease() (ctx context.Context, lose context.CancelCauseFunc, stop func()) {
	ctx, cancel := context.WithCancelCause(a.runner.work)
	kept, end := context.WithCancel(a.runner.work)
	lose = func(cause error) {
		cancel(cause)
		if !errors.Is(cause, job.ErrCancelled) {
			end()
		}
	}
	stopKeeping := a.lease.Keep(kept, func(ctx context.Context) error {
		err := a.look(ctx)
		if errors.Is(err, job.ErrCancelled) {
			cancel(err)
			return nil
		}
		return err
	}, lose)
	a.forget = a.runner.leases.add(a.spec.Nonce, func() {
		// Who cancelled it knows what the leader has, which others may lack still.
		if err := a.lookAt(kept, a.runner.config.Queue.Record); err != nil {
			lose(err)
		}
	})
	return ctx, lose, func() {
		a.forget()
		stopKeeping()
		lose(nil)
	}
}

// perform performs a delivered job to its end.
func (r *Runner) perform(lease *stream.Lease) {
	if !lease.Held() {
		r.late(lease)
		return
	}
	a, invalid := r.attempt(lease)
	ctx, _, stop := a.keepLease()
	defer stop()
	a.perform(ctx, invalid)
}

// late says that a delivery is left to its next receiver.
func (r *Runner) late(lease *stream.Lease) {
	r.log.Warn("delivery came too late, left to be delivered again", "job", lease.ID)
}

// perform takes a job from its delivery, or from the slots it was granted, to
// its end.
func (a *attempt) perform(ctx context.Context, invalid error) {
	switch {
	case !a.first():
		if !a.settle(a.begin()) {
			return
		}
	case a.early():
		a.settle(stepEarly)
		return
	}
	if invalid != nil {
		a.finish(job.Outcome{Failure: job.Invalidf("%v", invalid)})
		return
	}
	a.begun.Store(true)
	a.runner.jobs.add(a)
	defer a.runner.jobs.remove(a)
	a.observe(false)
	defer a.observe(true)
	result, err := a.run(ctx)
	call, delegates := job.Delegated(err)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, job.ErrLeaseLost):
		a.drop()
	case errors.Is(cause, job.ErrCancelled):
		a.cancelled()
	case err == nil:
		a.finish(job.Outcome{Result: result})
	case delegates:
		a.delegate(call)
	case errors.Is(cause, job.ErrDraining):
		a.drain()
	default:
		a.fail(err)
	}
}

// settle does what is to be done about a job whose record was looked at. It
// reports whether the job is to be run.
func (a *attempt) settle(next step) (run bool) {
	switch next {
	case stepAck:
		// It gave its slots back before, but this attempt may have got some
		// since, or one that died.
		if err := a.release(); err != nil {
			a.log("job left to be delivered again: its slots cannot be given back", err)
			return false
		}
		if a.bury(*a.last) {
			a.end()
		}
	case stepAbort:
		a.finish(job.Outcome{Failure: &job.Failure{
			Kind:    job.KindAborted,
			Message: fmt.Sprintf("its worker died or was stopped %d times", a.tally.Interrupts),
		}})
	case stepExpire:
		a.finish(job.Outcome{Failure: a.expired()})
	case stepEarly:
		a.wait()
	case stepPay:
		a.pay(true)
	case stepWait:
		a.park()
	case stepSchedule:
		a.postpone(*a.last)
	case stepDrop:
		if a.leaveTicket() {
			a.ack()
		}
	case stepLeave:
		a.abandon()
	default:
		return true
	}
	return false
}

// first reports whether this is surely the job's first attempt, so that there
// is no record to look at, and none is needed before the start.
func (a *attempt) first() bool {
	return a.lease.Delivered == 1 && a.spec.Attempt == 0 && !a.spec.Again && !a.spec.Retry.Never && a.spec.Deadline.IsZero() &&
		!a.runner.leases.toldOf(a.spec.Nonce)
}

// peek looks at the job's record.
func (a *attempt) peek() (next step, record job.Record, found bool) {
	record, revision, found, err := a.readRecord()
	if err != nil {
		a.log("job left to be delivered again: its record cannot be read", err)
		return stepLeave, record, false
	}
	next, a.tally = resume(a.spec, a.us, record, found, a.late())
	a.last, a.revision = &record, revision
	if next == stepRun && a.early() {
		next = stepEarly
	}
	if next == stepLeave {
		a.log("job left to another dispatcher", fmt.Errorf("its record is in state %s: upgrade this dispatcher", record.State))
	}
	return next, record, found
}

// known reports whether the record that was seen is this job's.
func (a *attempt) known() bool { return a.last != nil && a.last.Nonce == a.spec.Nonce }

// begin looks at the job's record and, where the job is to be run, writes that
// this attempt has begun.
//
// A crash after that leaves the record in state Active: whoever gets the job
// next counts one interruption.
func (a *attempt) begin() step {
	for {
		next, record, _ := a.peek()
		if next != stepRun {
			return next
		}
		if a.known() {
			a.us.Number = record.Attempt.Number + 1
		}
		_, err := a.writeRecord(func() job.Record { return a.record(job.Active, nil) })
		if errors.Is(err, kv.ErrConflict) {
			continue
		}
		if err != nil {
			a.log("job left to be delivered again: its start cannot be recorded", err)
			return stepLeave
		}
		return stepRun
	}
}

// run calls the handler. err is a [job.Verdict].
func (a *attempt) run(ctx context.Context) (result job.Value, err error) {
	if a.spec.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.spec.Timeout, job.ErrTimeout)
		defer cancel()
	}
	ctx, end := stream.NewContext(job.WithTrace(ctx, a.spec.Trace), a.runner.config.Queue, job.Info{
		ID: a.lease.ID, Nonce: a.spec.Nonce, Queue: a.runner.config.Queue.Name(), Task: a.lease.Lane.Task,
		Attempt: a.us.Number, Tally: a.tally, Deadline: a.spec.Deadline, Parent: a.spec.Parent,
		Dispatcher: a.us.Dispatcher, Agent: a.us.Agent, Fences: a.fences(),
	}, a.beside)
	defer func() {
		if value := recover(); value != nil {
			err = job.FailureOfPanic(value)
		} else if err != nil {
			err = job.Verdict(err)
		}
		if _, delegates := job.Delegated(err); err != nil && !delegates && errors.Is(context.Cause(ctx), job.ErrTimeout) {
			err = &job.Failure{
				Kind:    job.KindTimeout,
				Message: fmt.Sprintf("ran longer than its timeout of %v: %v", a.spec.Timeout, err),
			}
		}
	}()
	defer end()
	return a.runner.config.Handlers[a.lease.Lane.Task].Perform(ctx, a.spec.Arg)
}

// beside logs what went wrong beside a job, which goes on.
func (a *attempt) beside(what string, err error) {
	a.runner.log.Warn(what, "job", a.lease.ID, "task", a.lease.Lane.Task, "attempt", a.us.Number, "err", err)
}

// look sees, at each extension of the lease, whether the job was cancelled or has
// expired, whether another attempt writes about it and, where the job has slots,
// whether its message is there still: for without it a sweep will take them. What
// cannot be read now is looked at the next time.
func (a *attempt) look(ctx context.Context) error {
	queue := a.runner.config.Queue
	err := a.lookAt(ctx, queue.PeekRecord)
	if errors.Is(err, job.ErrLeaseLost) { // it may be the record of the attempt before
		err = a.lookAt(ctx, queue.Record)
	}
	if err != nil {
		return err
	}
	if a.spec.Quotas == nil {
		return nil
	}
	if gone, err := queue.Gone(ctx, a.lease.ID, a.spec.Nonce); err == nil && gone {
		return job.ErrLeaseLost
	}
	return nil
}

// lookAt sees what the job's record says, where it can be read. Called from any
// goroutine.
func (a *attempt) lookAt(ctx context.Context, read func(context.Context, job.ID) (job.Record, uint64, bool, error)) error {
	record, _, found, err := read(ctx, a.lease.ID)
	if err == nil && found && record.Nonce == a.spec.Nonce && record.Attempt.Token != a.us.Token && record.State != job.Pending {
		switch {
		case record.Stopped():
			return job.ErrCancelled
		case a.begun.Load():
			return job.ErrLeaseLost
		}
	}
	return nil
}

// running describes the attempt. Called from any goroutine; the fields it
// reads do not change while the attempt is in the jobSet.
func (a *attempt) running() stream.Running {
	return stream.Running{
		ID: a.lease.ID, Task: a.lease.Lane.Task, Agent: a.us.Agent, Attempt: a.us.Number, Since: a.began,
	}
}

func (a *attempt) log(message string, err error) {
	a.runner.log.Error(message, "job", a.lease.ID, "task", a.lease.Lane.Task, "attempt", a.us.Number, "err", err)
}
