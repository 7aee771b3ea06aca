package asyncnats

import (
	"context"
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Cancel ends the job, whatever it does: pending, scheduled, waiting for a
// retry, or running. Its outcome is a Failure of job.KindCancelled, and the
// context of its handler, if it runs, ends with job.ErrCancelled: usually at
// once, and at the latest when a third of the queue's ack wait has passed. What
// the handler returns then is dropped.
//
// One of those who end a job wins: where it was over before, or somebody else
// has cancelled it, Cancel returns [ErrCompleted]. The state that the job was in
// is returned: job.Active where a dispatcher had it. It returns [ErrNoJob] where
// nothing is known of the job.
//
// A job that keeps no result (job.KeepNone) may be over without having left a
// trace; a cancel that comes as it ends may then win, though whoever waited for
// the job got its result.
func (j *Job[R]) Cancel(ctx context.Context) (was job.State, err error) {
	err = j.queue.use(ctx, func(opened *stream.Queue) error {
		cancelled, err := opened.Cancel(ctx, j.id, j.nonce)
		was = cancelled.State
		return err
	})
	if err != nil {
		return "", err
	}
	return was, nil
}

// Pull takes the job back: it is removed from its queue and leaves no outcome,
// as if it had never been put. Only a job that no dispatcher was given can be
// pulled, pending or scheduled; for another the error is [ErrAssigned], and for
// one that is over, or was never there, [ErrNoJob]. One that another waits for, as a
// part of a composition or a call that a handler returned, is refused: cancel it. What is
// returned can be put again. zc.async: pull and remove (FEATURES 106, 107).
//
// While the server does not answer Pull tries again, until ctx ends or, where ctx has no
// deadline, for 30 seconds. So that the job is not lost then it is returned beside the
// error where it was taken back, or may have been; else the ID of what is returned is
// empty. Beside [ErrAssigned] it is removed, and a dispatcher that was given it just
// before may perform it, too.
func (j *Job[R]) Pull(ctx context.Context) (Pulled, error) {
	var message stream.Stored
	err := j.queue.use(ctx, func(opened *stream.Queue) (err error) {
		message, err = opened.Pull(ctx, j.id, j.nonce)
		return err
	})
	if message.ID == "" {
		return Pulled{}, err
	}
	spec, specErr := message.Spec()
	if specErr != nil {
		return Pulled{}, errors.Join(err, fmt.Errorf("asyncnats: job %s was taken back and cannot be read: %w", j.id, specErr))
	}
	return Pulled{ID: j.id, Queue: j.queue.name, Spec: spec}, err
}

// Pulled is a job that was taken back.
type Pulled struct {
	ID    job.ID
	Queue string
	Spec  job.Spec
}

// Call returns the call that the job was, with its ID, its time to begin and the
// callbacks that it was put with, to be changed or put again. Its attempts count from the beginning; a deadline is not
// part of it, nor the trace that it was put under.
func (p Pulled) Call() Call[job.Value] {
	return Call[job.Value]{options{
		task: p.Spec.Task, id: string(p.ID), arg: p.Spec.Arg, quotas: p.Spec.Quotas,
		priority: p.Spec.Priority, timeout: p.Spec.Timeout, keep: p.Spec.Keep, retry: p.Spec.Retry, begin: p.Spec.Begin,
		callbacks: callbacksOf(p.Spec.Callbacks),
	}}
}
