package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

// whatToPause is the arguments that say what is paused or resumed.
type whatToPause struct {
	patience
	Name string `arg:"" optional:"" default:"default" help:"Name of the queue."`
	Task string `help:"Only jobs of this task."`
}

type queuePauseCmd struct {
	whatToPause
}

// Help is shown below the usage.
func (*queuePauseCmd) Help() string {
	return `No dispatcher takes jobs from the queue, or those of the task, until asyncnats queue resume. Jobs can be put meanwhile, and those that are performed go on. The pause is stored, and outlives dispatchers.`
}

// Run pauses the queue or a task of it.
func (c *queuePauseCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "queue pause", (*asyncnats.Queue).Pause)
}

type queueResumeCmd struct {
	whatToPause
}

// Help is shown below the usage.
func (*queueResumeCmd) Help() string {
	return `Ends the pause of the queue, or with --task that of a task. They are independent: jobs of a task start when neither is paused.`
}

// Run ends the pause of the queue or a task of it.
func (c *queueResumeCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "queue resume", (*asyncnats.Queue).Resume)
}

// on calls do, and says what is paused now.
func (c whatToPause) on(ctx context.Context, a *app, sub string, do func(*asyncnats.Queue, context.Context, string) error) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, sub)
	if err != nil {
		return err
	}
	defer disconnect()
	q := client.Queue(c.Name)
	if err := do(q, ctx, c.Task); err != nil {
		return err
	}
	now, err := pausesOf(ctx, q)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "queue %s: %s\n", c.Name, now)
	return nil
}
