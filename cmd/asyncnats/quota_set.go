package main

import (
	"context"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats"
)

type quotaSetCmd struct {
	patience
	Name  string         `arg:"" help:"Name of the quota."`
	Size  int            `arg:"" help:"How many of the jobs that name it may run at once or, of a rate limit, start in each period; 0 starts none."`
	Queue string         `short:"q" default:"default" help:"Queue whose jobs it limits."`
	Per   *time.Duration `help:"Makes it a rate limit with that period; 0 makes it a limit on how many run at once. As it was if not given."`
}

// Help is shown below the usage.
func (*quotaSetCmd) Help() string {
	return `Jobs that run are left alone: where more run than the new size, nothing that names the quota starts until fewer do.

Starts that a rate limit has granted count by the new period. A quota that becomes a rate limit counts from now on; one that ceases to be one counts the jobs that run.`
}

// Run changes the size.
func (c *quotaSetCmd) Run(ctx context.Context, a *app) error {
	per := time.Duration(0)
	if c.Per != nil {
		per = *c.Per
	}
	if err := checkQuota(c.Size, per); err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "quota set")
	if err != nil {
		return err
	}
	defer disconnect()
	quota, err := c.set(ctx, client.Queue(c.Queue))
	if err != nil {
		return err
	}
	note := ""
	if c.Size == 0 {
		note = ": it starts nothing"
	}
	fmt.Fprintf(a.out, "quota %s has %s now%s\n", c.Name, quotaSize(quota.Size, quota.Period), note)
	return nil
}

// set changes the quota, and returns what it is then.
func (c *quotaSetCmd) set(ctx context.Context, queue *asyncnats.Queue) (quota asyncnats.Quota, err error) {
	if c.Per == nil {
		err = queue.ResizeQuota(ctx, c.Name, c.Size)
	} else {
		err = queue.ChangeQuota(ctx, c.Name, c.Size, *c.Per)
	}
	if err != nil {
		return quota, err
	}
	return queue.Quota(ctx, c.Name)
}
