package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

type deadRmCmd struct {
	whichDead
}

// Help is shown below the usage.
func (*deadRmCmd) Help() string {
	return `The jobs cannot be put again then. Their records are left, and show their last failure until they expire: asyncnats job show.`
}

// Run removes what is kept of the jobs.
func (c *deadRmCmd) Run(ctx context.Context, a *app) error {
	n, err := c.on(ctx, a, "dead rm",
		func(q *asyncnats.Queue, d asyncnats.Dead) error { return q.RemoveDead(ctx, d) },
		func(q *asyncnats.Queue, f asyncnats.DeadFilter) (int, error) { return q.PurgeDead(ctx, f) },
	)
	if err == nil || n > 0 {
		fmt.Fprintf(a.out, "%s removed\n", plural(n, "failed job"))
	}
	return err
}
