package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

type deadRetryCmd struct {
	whichDead
}

// Help is shown below the usage.
func (*deadRetryCmd) Help() string {
	return `Puts jobs again with the same ID, argument, quotas and policies, with no attempt behind them, to begin at once and without a deadline. Where a job with the same ID is not completed it is left as it is, and the others go on. A retry that was interrupted may be repeated: it does not put a job twice.`
}

// Run puts the jobs again.
func (c *deadRetryCmd) Run(ctx context.Context, a *app) error {
	n, err := c.on(ctx, a, "dead retry",
		func(q *asyncnats.Queue, d asyncnats.Dead) error { _, err := q.Retry(ctx, d); return err },
		func(q *asyncnats.Queue, f asyncnats.DeadFilter) (int, error) { return q.RetryDead(ctx, f) },
	)
	if err == nil || n > 0 {
		fmt.Fprintf(a.out, "%s put again\n", plural(n, "job"))
	}
	return err
}
