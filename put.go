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
// of that job; [ErrUnknownQuota]; [ErrTooLarge]; [ErrPermission]; [ErrUnanswered], where the job
// may have been stored or not.
func Put[R any](ctx context.Context, q *Queue, call Call[R]) (*Job[R], error) {
	opened, err := q.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	entry, err := q.client.entry(call.options)
	entry.Spec.Trace = job.TraceOf(ctx)
	if err == nil {
		err = q.known(ctx, call.options.quotas)
	}
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
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return newJob[R](q, entry.ID, entry.Spec.Nonce), nil
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
	trace := job.TraceOf(ctx)
	for i, call := range calls {
		if call.options.replace {
			err = errors.New("a job that replaces another cannot be put with others: put it by itself")
		} else if entries[i], err = q.client.entry(call.options); err == nil {
			entries[i].Spec.Trace = trace
			err = q.known(ctx, call.options.quotas)
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

func (c *Client) entry(o options) (stream.Entry, error) {
	spec, err := c.spec(o)
	if err != nil {
		return stream.Entry{}, err
	}
	id, err := o.jobID()
	if err != nil || id != "" {
		return stream.Entry{ID: id, Chosen: true, Spec: spec}, err
	}
	return stream.Entry{ID: job.NewID(), Spec: spec}, nil
}
