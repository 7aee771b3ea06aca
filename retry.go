package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Retry puts a failed job again: with the same ID, argument, quotas and policies,
// under the same trace and baggage, with no attempt behind it, to begin at once and
// without a deadline. Then what was kept of the failure is removed; should the job
// fail again it is kept anew.
//
// A part or a callback of another job is put by itself, with an ID of its own: that
// job has its outcome already.
//
// It may be repeated, by whoever, also after a crash between the two: that is one
// job, as long as its outcome is kept.
//
// Errors: [ErrNoJob] where the entry was removed, or replaced, since it was read,
// as by another Retry; [ErrExists] where a job of that ID is not completed;
// [ErrUnknownQuota]; [ErrTooLarge]; [ErrPermission]; [ErrUnanswered]. A job whose
// argument was not kept, or whose body cannot be read, is to be put anew.
func (q *Queue) Retry(ctx context.Context, d Dead) (*Job[job.Value], error) {
	j, err := q.retry(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: retry job %s: %w", d.ID, err)
	}
	return j, nil
}

// retry puts the job and then removes the entry. A crash between leaves both:
// whoever retries it finds the job by its nonce or, where that has ended, stores
// a message that says that it was put again, whose receiver looks at the record.
func (q *Queue) retry(ctx context.Context, d Dead) (*Job[job.Value], error) {
	opened, err := q.open(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := d.entry.Anew(d.entry.Revision)
	if err != nil {
		return nil, err
	}
	spec.By, spec.At = q.client.name, time.Now()
	id := d.ID
	if d.Record.Parent != nil {
		id = job.ID("again/" + spec.Nonce.String())
	}
	if err := opened.StillDead(ctx, d.entry); err != nil {
		return nil, err
	}
	if err := q.known(ctx, spec.Quotas); err != nil {
		return nil, err
	}
	if err := opened.Put(ctx, stream.Entry{ID: id, Chosen: true, Spec: spec}); err != nil {
		return nil, err
	}
	err = opened.RemoveDead(ctx, d.entry)
	if err != nil && !errors.Is(err, ErrNoJob) { // it failed already, or somebody else has retried it
		return nil, fmt.Errorf("it was put; %w", err)
	}
	return newJob[job.Value](q, id, spec.Nonce), nil
}

// RetryDead puts the failed jobs again that the filter accepts, the one that
// failed first first, and returns how many they were. Those that cannot be put are
// left as they are; their errors, those of Retry, are joined. Jobs that fail
// meanwhile are not among them.
func (q *Queue) RetryDead(ctx context.Context, f DeadFilter) (retried int, err error) {
	return q.eachDead(ctx, f, func(d Dead) error {
		_, err := q.Retry(ctx, d)
		if errors.Is(err, ErrNoJob) {
			return errGone
		}
		return err
	})
}
