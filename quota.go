package asyncnats

import (
	"context"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// Quota is a quota as it was at a moment: its size, who has its slots, in the
// order in which they got them, and who waits, in the order in which they will.
// That of a rate limit has a Period, and a Rate which says how many may start now
// or in how long the next may; its holders are the jobs that run.
type Quota = quotas.Quota

// CreateQuota creates a quota: a limit on how many jobs that name it run at
// once, by whichever dispatchers. Jobs that name it and run already count. It
// returns [ErrQuotaExists] where there is one of that name.
func (q *Queue) CreateQuota(ctx context.Context, name string, size int) error {
	return q.quota(ctx, func(set *quotas.Set) error { return set.Create(ctx, name, size) })
}

// CreateRateLimit creates a quota of the second kind, a rate limit: in every window
// of that period, over all dispatchers, no more than n of the jobs that name it are
// granted a start. A job starts when it is granted that, or a moment later; a job
// that was interrupted and starts again takes another. It returns
// [ErrQuotaExists] where there is a quota of that name.
//
// Time is that of the server that leads the quotas' bucket; the clocks of
// dispatchers are of no concern. The period is at least a millisecond.
func (q *Queue) CreateRateLimit(ctx context.Context, name string, n int, period time.Duration) error {
	return q.quota(ctx, func(set *quotas.Set) error { return set.CreateRate(ctx, name, n, period) })
}

// ResizeQuota changes the size of a quota of either kind. It returns
// [ErrUnknownQuota] where there is none.
//
// Jobs that run are left alone: where more run than size, nothing that names
// the quota starts until fewer do. A size of 0 starts nothing.
func (q *Queue) ResizeQuota(ctx context.Context, name string, size int) error {
	return q.quota(ctx, func(set *quotas.Set) error { return set.Resize(ctx, name, size) })
}

// ChangeQuota changes the size of a quota, and its period: to a rate limit, or with
// a period of 0 to a limit on how many run at once. It returns [ErrUnknownQuota]
// where there is none.
//
// What a rate limit has granted counts by the new period, unless it had expired by
// the old one. A quota that becomes a rate limit has granted nothing yet; one that
// ceases to be one has those jobs for holders that run.
func (q *Queue) ChangeQuota(ctx context.Context, name string, size int, period time.Duration) error {
	return q.quota(ctx, func(set *quotas.Set) error { return set.Change(ctx, name, size, period) })
}

// Limit creates a quota of that size, or changes the one that exists to one, as
// [Queue.ChangeQuota] does.
func (q *Queue) Limit(ctx context.Context, name string, size int) error {
	return q.quota(ctx, func(set *quotas.Set) error { return set.Limit(ctx, name, size) })
}

// RateLimit creates a rate limit of n starts per period, or changes the quota that
// exists to one, as [Queue.ChangeQuota] does.
func (q *Queue) RateLimit(ctx context.Context, name string, n int, period time.Duration) error {
	return q.quota(ctx, func(set *quotas.Set) error { return set.LimitRate(ctx, name, n, period) })
}

// RemoveQuota removes a quota. Jobs in the queue that name it are performed as
// if they did not; new ones are refused. When it is created again, what runs then
// counts and, for a rate limit, what started less than its old period ago. It returns [ErrUnknownQuota] where
// there is none.
func (q *Queue) RemoveQuota(ctx context.Context, name string) error {
	return q.quota(ctx, func(set *quotas.Set) error { return set.Remove(ctx, name) })
}

// Quota returns a quota as it is now. It returns [ErrUnknownQuota] where there
// is none.
func (q *Queue) Quota(ctx context.Context, name string) (found Quota, err error) {
	err = q.quota(ctx, func(set *quotas.Set) error {
		found, err = set.Quota(ctx, name)
		return err
	})
	return found, err
}

// Quotas lists the queue's quotas, sorted by name.
func (q *Queue) Quotas(ctx context.Context) (list []Quota, err error) {
	err = q.quota(ctx, func(set *quotas.Set) error {
		list, err = set.List(ctx)
		return err
	})
	return list, err
}

// CleanQuota drops what jobs that are over still hold of a quota, and returns
// how many they were. Slots are given back when their job ends, and dispatchers
// sweep for jobs that an administrator deleted, so it is seldom needed. A job
// without message and without outcome is looked at twice, an ack wait apart.
func (q *Queue) CleanQuota(ctx context.Context, name string) (dropped int, err error) {
	opened, err := q.open(ctx)
	if err != nil {
		return 0, fmt.Errorf("asyncnats: %w", err)
	}
	over := func(ctx context.Context, claims []quotas.Claim) ([]quotas.Claim, error) {
		return finished(ctx, opened, claims)
	}
	err = q.quota(ctx, func(set *quotas.Set) error {
		dropped, err = set.Clean(ctx, name, over)
		return err
	})
	return dropped, err
}

// finished returns those of the claims whose jobs are over.
func finished(ctx context.Context, opened *stream.Queue, claims []quotas.Claim) (over []quotas.Claim, err error) {
	var suspects []quotas.Claim
	for _, c := range claims {
		record, _, found, err := opened.Record(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		if found && record.Nonce == c.Nonce && record.State.Final() {
			over = append(over, c)
			continue
		}
		gone, err := opened.Gone(ctx, c.ID, c.Nonce)
		if err != nil {
			return nil, err
		}
		if gone {
			suspects = append(suspects, c)
		}
	}
	if len(suspects) == 0 {
		return over, nil
	}
	// A worker that still performs such a job notices within an ack wait.
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(opened.AckWait()):
	}
	for _, c := range suspects {
		gone, err := opened.Gone(ctx, c.ID, c.Nonce)
		if err != nil {
			return nil, err
		}
		if gone {
			over = append(over, c)
		}
	}
	return over, nil
}

// SetQuotas changes the quotas that a pending job names, to those given. The job
// keeps its ID, and comes last among those that name the same. It returns
// [ErrUnknownQuota] where one does not exist, and [ErrAssigned] where a dispatcher
// was given the job already, though it may only be waiting for a slot; the job is
// then as it was (FEATURES 32, 50), unless the error says that it may have them: so it
// is where an answer was lost, and it was given out meanwhile.
func (j *Job[R]) SetQuotas(ctx context.Context, names ...string) error {
	wanted := quotaNames(names)
	opened, err := j.queue.open(ctx)
	if err == nil {
		err = j.queue.known(ctx, wanted)
	}
	if err == nil {
		err = opened.Move(ctx, j.id, j.nonce, wanted)
	}
	if err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	return nil
}

// quota calls f with the queue's quotas.
func (q *Queue) quota(ctx context.Context, f func(*quotas.Set) error) error {
	set, err := q.openQuotas(ctx)
	if err == nil {
		err = f(set)
	}
	if err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	return nil
}

// openQuotas opens the queue's quotas at their first use, as open opens the queue.
func (q *Queue) openQuotas(ctx context.Context) (*quotas.Set, error) {
	opened, err := q.open(ctx)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	set := q.quotas
	q.mu.Unlock()
	if set != nil {
		return set, nil
	}
	bucket, subject := opened.Quotas()
	err = q.client.namespace.Persist(ctx, "open the quotas of queue "+q.name, func(ctx context.Context) (err error) {
		set, err = quotas.Open(ctx, opened.Namespace().JetStream(), bucket, q.name, subject)
		return err
	})
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.quotas == nil {
		q.quotas = set
	}
	return q.quotas, nil
}

// known returns an error for the first of the quotas that does not exist. It persists as
// open does.
func (q *Queue) known(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	set, err := q.openQuotas(ctx)
	if err != nil {
		return err
	}
	return q.client.namespace.Persist(ctx, "look for quotas of queue "+q.name, func(ctx context.Context) error {
		return set.Known(ctx, names)
	})
}
