package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

type quotaCleanCmd struct {
	Name    string        `arg:"" help:"Name of the quota."`
	Queue   string        `short:"q" default:"default" help:"Queue whose jobs it limits."`
	Timeout time.Duration `help:"How long it may take; without limit if not given."`
}

// Help is shown below the usage.
func (*quotaCleanCmd) Help() string {
	return `It is seldom needed: a slot is given back when its job ends, the slot of a worker that died goes to the job's next attempt, and dispatchers drop the claims of jobs that somebody deleted. Jobs that run or wait keep theirs.

A job of which nothing is left is looked at twice, an ack wait apart (15 seconds, unless the queue has another).`
}

// Run drops the claims of jobs that are over.
func (c *quotaCleanCmd) Run(ctx context.Context, a *app) error {
	finding, cancel := context.WithTimeout(ctx, findPatience)
	defer cancel()
	client, disconnect, err := a.client(finding, "quota clean")
	if err != nil {
		return err
	}
	defer disconnect()
	if c.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	dropped, err := client.Queue(c.Queue).CleanQuota(ctx, c.Name)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("clean quota %s of queue %s: not done within %v: give it longer than the queue's ack wait", c.Name, c.Queue, c.Timeout)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "quota %s: %s dropped\n", c.Name, plural(dropped, "claim"))
	return nil
}
