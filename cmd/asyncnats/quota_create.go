package main

import (
	"context"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/quotas"
)

type quotaCreateCmd struct {
	patience
	Name  string        `arg:"" help:"Name of the quota: letters, digits, '-' and '_'."`
	Queue string        `short:"q" default:"default" help:"Queue whose jobs it limits."`
	Size  int           `default:"1" help:"How many of the jobs that name it may run at once or, with --per, start in each such period; 0 starts none."`
	Per   time.Duration `help:"Makes it a rate limit: the length of its window, as 1s or 5m."`
}

// Help is shown below the usage.
func (*quotaCreateCmd) Help() string {
	return `With --per, in every window of that length no more than --size jobs are granted a start, over all dispatchers; that a job ends makes no difference. Without it, no more than --size run at once.`
}

// Run creates the quota.
func (c *quotaCreateCmd) Run(ctx context.Context, a *app) error {
	if err := checkQuota(c.Size, c.Per); err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "quota create")
	if err != nil {
		return err
	}
	defer disconnect()
	if queue := client.Queue(c.Queue); c.Per == 0 {
		err = queue.CreateQuota(ctx, c.Name, c.Size)
	} else {
		err = queue.CreateRateLimit(ctx, c.Name, c.Size, c.Per)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "quota %s created, %s\n", c.Name, quotaSize(c.Size, quotas.Period(c.Per)))
	return nil
}

// checkQuota checks a size, and a period that is 0 where there is none.
func checkQuota(size int, per time.Duration) error {
	switch {
	case size < 0:
		return usagef("size %d: must be at least 0, which starts nothing", size)
	case per != 0 && per < quotas.PeriodLeast:
		return usagef("--per %v: must be at least %v", per, quotas.PeriodLeast)
	}
	return nil
}

// quotaSize says what a quota allows.
func quotaSize(size int, period quotas.Period) string {
	if period == 0 {
		return fmt.Sprintf("size %d", size)
	}
	return fmt.Sprintf("size %d per %v", size, period)
}
