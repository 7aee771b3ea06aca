package agents

import (
	"context"
	"errors"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// delegate has the job wait for the call that its handler returned: the call's
// outcome will be the job's. The job gives back its slots, and its place.
//
// A crash before the record is written leaves an interrupted attempt, and perhaps a
// large call in the queue's stream; one after it leaves the message, whose next
// receiver goes on from there.
func (a *attempt) delegate(call job.Call) {
	if err := call.Check(); err != nil {
		a.finish(job.Outcome{Failure: job.Invalidf("the job was handed on to a call that cannot be put: %v", err)})
		return
	}
	parts := job.Parts{Form: job.FormDelegate, Count: 1, Calls: []job.Call{call}, Base: a.spec.Nonce.DelegateBase(a.us.Token)}
	undo := func() {}
	err := a.exchange(func(ctx context.Context) (err error) {
		parts, undo, err = a.runner.config.Queue.Stow(ctx, a.lease.ID, parts)
		return err
	}, stream.ErrTooLarge)
	if errors.Is(err, stream.ErrTooLarge) {
		a.finish(job.Outcome{Failure: job.Invalidf("the job was handed on to a call that cannot be put: %v", err)})
		return
	}
	if !a.settled.CompareAndSwap(false, true) {
		return
	}
	a.ended = time.Now()
	if err == nil {
		err = a.release()
	}
	if err != nil {
		a.abandon()
		a.dropped(err)
		return
	}
	record, err := a.writeRecord(func() job.Record {
		record := a.record(job.Waiting, nil)
		record.Parts = &parts
		return record
	})
	if err != nil {
		if errors.Is(err, errCancelled) || errors.Is(err, errReassigned) { // else it may have been written
			undo()
		}
		a.decided(err)
		return
	}
	a.last = &record
	a.runner.trace.Debug("job waits for another", "job", a.lease.ID, "task", a.lease.Lane.Task, "attempt", a.us.Number, "for", call.Task)
	a.park()
}

// park has a job wait whose record says that it does: its message goes where nobody
// is given it, and what it waits for is put.
func (a *attempt) park() {
	queue := a.runner.config.Queue
	err := a.release() // of an attempt that died
	if err == nil {
		err = a.exchange(func(ctx context.Context) error { return queue.Park(ctx, a.lease.Stored, a.spec) })
	}
	if err == nil {
		err = a.exchange(func(ctx context.Context) error { return queue.Advance(ctx, a.lease.ID, a.spec.Nonce, a.now()) })
	}
	if err != nil {
		a.log("job that waits for another left to be delivered again", err)
		return
	}
	a.ack()
}
