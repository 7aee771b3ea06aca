package asyncnats

import (
	"context"
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Put stores a job on a queue. Once it has returned without error the job is
// durable, as far as the server's own storage is. While the server does not
// answer the put is repeated, until ctx ends or, where ctx has no deadline, for
// 30 seconds; the job is stored once all the same.
//
// The trace and the baggage that ctx has (OpenTelemetry's, as W3C writes them) are
// those of the handler's context, at each attempt; job.MaxTrace bounds their size.
//
// Errors: a [*job.NameError] for an illegal name; [ErrNoQueue]; [ErrExists]
// where the call has an ID and a job with it is not completed, with the handle
// of that job; [ErrAssigned], with the handle of the job that is stored, where the one that
// it replaces ([Call.Replace]) may be performed; [ErrUnknownQuota]; [ErrTooLarge];
// [ErrPermission]; [ErrUnanswered], where the job may have been stored or not.
func Put[R any](ctx context.Context, q *Queue, call Call[R]) (*Job[R], error) {
	opened, err := q.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	entry, err := q.entry(ctx, call.options)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: put %s: %w", call.options.task, err)
	}
	store := opened.Put
	if call.options.replace {
		store = opened.Replace
	}
	err = store(ctx, entry)
	if holder, taken := errors.AsType[*stream.ExistsError](err); taken {
		return newJob[R](q, holder.ID, holder.Nonce), fmt.Errorf("asyncnats: %w", err)
	}
	stored := newJob[R](q, entry.ID, entry.Spec.Nonce)
	switch {
	case errors.Is(err, ErrAssigned): // the job before it
		return stored, fmt.Errorf("asyncnats: %w", err)
	case err != nil:
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return stored, nil
}

// PutMany stores jobs on a queue, in order, in atomic batches of up to a
// thousand: much faster than one by one. Where it fails it returns the jobs
// that were stored, which are the first of those given, and the error that
// kept the others from it.
func PutMany[R any](ctx context.Context, q *Queue, calls ...Call[R]) ([]*Job[R], error) {
	opened, err := q.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	entries := make([]stream.Entry, len(calls))
	for i, call := range calls {
		if call.options.replace {
			err = errors.New("a job that replaces another cannot be put with others: put it by itself")
		} else {
			entries[i], err = q.entry(ctx, call.options)
		}
		if err != nil {
			return nil, fmt.Errorf("asyncnats: put job %d, %s: %w", i, call.options.task, err)
		}
	}
	stored, err := opened.PutMany(ctx, entries)
	jobs := make([]*Job[R], stored)
	for i := range jobs {
		jobs[i] = newJob[R](q, entries[i].ID, entries[i].Spec.Nonce)
	}
	if err != nil {
		return jobs, fmt.Errorf("asyncnats: %d of %d jobs put: %w", stored, len(calls), err)
	}
	return jobs, nil
}

// entry makes what is stored of a call. Names of queues and quotas are looked at
// now, and not again (FEATURES b17).
func (q *Queue) entry(ctx context.Context, o options) (stream.Entry, error) {
	call, err := o.call()
	if err == nil {
		err = q.check(call)
	}
	if err != nil {
		return stream.Entry{}, err
	}
	if call, err = q.address(ctx, call); err != nil {
		return stream.Entry{}, err
	}
	if call.Parts != nil {
		if err = call.Check(); err == nil && o.replace {
			err = errors.New("a composition replaces no job: its parts may have begun")
		}
		if err != nil {
			return stream.Entry{}, err
		}
	}
	e := stream.Entry{Spec: q.client.spec(call)}
	e.Spec.Trace = job.TraceOf(ctx)
	if e.ID, err = o.jobID(); err != nil {
		return stream.Entry{}, err
	}
	if e.Chosen = e.ID != ""; !e.Chosen {
		e.ID = job.NewID()
	}
	return e, q.knowsAll(ctx, call)
}
