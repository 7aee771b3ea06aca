package main

import (
	"context"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/stream"
)

type cronAddCmd struct {
	patience
	taskFlags
	Name       string        `arg:"" help:"Name of the recurring job; one that exists is replaced."`
	Expression string        `arg:"" help:"When: five fields, minute hour day month weekday, six with seconds before them, @hourly, @daily, @weekly, @monthly, @yearly, or like '@every 90s'."`
	Task       string        `arg:"" help:"Task to perform, like report.build."`
	Arg        string        `arg:"" optional:"" help:"Argument, in JSON."`
	Queue      string        `short:"q" default:"default" help:"Queue to put the jobs on."`
	TZ         string        `name:"tz" placeholder:"ZONE" help:"Time zone of the expression, like Europe/Berlin; UTC if not given."`
	Missed     string        `enum:"last,all,none" default:"last" help:"Which of the ticks that passed while no dispatcher ran are made up for, at once: last, all or none."`
	Alone      bool          `help:"Skip a tick while the job of the one before is not completed."`
	Limit      time.Duration `placeholder:"DURATION" help:"How long an attempt may take; without limit if not given."`
}

// Help is shown below the usage.
func (*cronAddCmd) Help() string {
	return `Each tick is a job with the ID cron/NAME/TICK, in seconds since 1970.

    asyncnats cron add nightly '30 3 * * *' report.build '{"kind": "sales"}' --tz Europe/Berlin`
}

// Run adds the recurring job.
func (c *cronAddCmd) Run(ctx context.Context, a *app) error {
	arg, err := parseArg([]byte(c.Arg))
	if err != nil {
		return usagef("argument: %w", err)
	}
	missed := stream.Missed(c.Missed)
	if c.Missed == "last" {
		missed = stream.MissedLast
	}
	call := c.task(c.Task, c.Limit).Call(arg)
	return c.on(ctx, a, "cron add", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		err := asyncnats.Repeat(ctx, q, c.Name, c.Expression, call, asyncnats.RecurringConfig{Zone: c.TZ, Missed: missed, Alone: c.Alone})
		if err != nil {
			return err
		}
		list, err := q.Recurring(ctx)
		for _, r := range list {
			if r.Name == c.Name {
				fmt.Fprintf(a.out, "%s will be put at %s\n", c.Task, clock(r.Next))
			}
		}
		return err
	})
}
