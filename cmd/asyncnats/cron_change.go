package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

// whichRecurring is the arguments that name a recurring job.
type whichRecurring struct {
	patience
	Name  string `arg:"" help:"Name of the recurring job."`
	Queue string `short:"q" default:"default" help:"Its queue."`
}

type cronPauseCmd struct{ whichRecurring }

// Run pauses the recurring job.
func (c *cronPauseCmd) Run(ctx context.Context, a *app) error {
	return c.change(ctx, a, "cron pause", "is paused", (*asyncnats.Queue).PauseRecurring)
}

type cronResumeCmd struct{ whichRecurring }

// Run ends a pause.
func (c *cronResumeCmd) Run(ctx context.Context, a *app) error {
	return c.change(ctx, a, "cron resume", "goes on", (*asyncnats.Queue).ResumeRecurring)
}

type cronRmCmd struct{ whichRecurring }

// Run removes the recurring job.
func (c *cronRmCmd) Run(ctx context.Context, a *app) error {
	return c.change(ctx, a, "cron rm", "is removed", (*asyncnats.Queue).RemoveRecurring)
}

type cronRunCmd struct{ whichRecurring }

// Run puts one of its jobs.
func (c *cronRunCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "cron run", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		j, err := q.RunRecurring(ctx, c.Name)
		if err == nil {
			fmt.Fprintln(a.out, j.ID())
		}
		return err
	})
}

// change calls do, and says what became of the recurring job.
func (c *whichRecurring) change(ctx context.Context, a *app, sub, done string, do func(*asyncnats.Queue, context.Context, string) error) error {
	return c.on(ctx, a, sub, c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		err := do(q, ctx, c.Name)
		if err == nil {
			fmt.Fprintf(a.out, "recurring job %s %s\n", c.Name, done)
		}
		return err
	})
}
