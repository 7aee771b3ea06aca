package main

import (
	"context"
	"fmt"
)

type queueRmCmd struct {
	patience
	Name  string `arg:"" help:"Name of the queue."`
	Force bool   `help:"Remove it even while it has jobs that are not completed."`
}

// Run removes the queue. Looking and removing are two steps: a job that is put
// between them goes with the queue.
func (c *queueRmCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "queue rm")
	if err != nil {
		return err
	}
	defer disconnect()
	if !c.Force {
		info, err := client.Queue(c.Name).Info(ctx)
		if err != nil {
			return err
		}
		if info.Messages > 0 {
			return fmt.Errorf("queue %s has %s that would be lost: let them be performed, or remove it with --force",
				c.Name, plural(int(info.Messages), "job"))
		}
	}
	if err := client.DeleteQueue(ctx, c.Name); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "queue %s removed\n", c.Name)
	return nil
}
