package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats"
)

type queueAddCmd struct {
	patience
	Name      string        `arg:"" help:"Name of the queue: letters, digits, '-' and '_'."`
	AckWait   time.Duration `default:"15s" help:"How long a job rests after its worker died, at least 3s."`
	Broadcast bool          `help:"Make it a broadcast queue: every dispatcher that takes a task performs its jobs."`
	Grace     time.Duration `placeholder:"DURATION" help:"How long a dispatcher may be away before a broadcast goes on without it; 1m if not given."`
	Replicas  int           `default:"1" help:"How many servers of a cluster store the queue."`
}

// Run creates the queue. One that exists is never altered: it is a success
// where it is as asked for.
func (c *queueAddCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "queue add")
	if err != nil {
		return err
	}
	defer disconnect()
	before, err := client.Queues(ctx)
	if err != nil {
		return err
	}
	q, err := client.CreateQueue(ctx, c.Name, asyncnats.QueueConfig{AckWait: c.AckWait, Replicas: c.Replicas, Broadcast: c.Broadcast, Grace: c.Grace})
	if err != nil {
		return err
	}
	if !slices.Contains(before, c.Name) {
		fmt.Fprintf(a.out, "queue %s created\n", c.Name)
		return nil
	}
	info, err := q.Info(ctx)
	if err != nil {
		return err
	}
	is := fmt.Sprintf("ack wait %v and %s", time.Duration(info.AckWait), plural(info.Replicas, "replica"))
	if info.Broadcast {
		is = fmt.Sprintf("grace %v, %s", time.Duration(info.Grace), is)
	}
	if time.Duration(info.AckWait) != c.AckWait || info.Replicas != c.Replicas || c.Grace > 0 && time.Duration(info.Grace) != c.Grace {
		return fmt.Errorf("queue %s exists, with %s, and is never altered: remove it first (asyncnats queue rm %s) or take another name",
			c.Name, is, c.Name)
	}
	fmt.Fprintf(a.out, "queue %s exists already\n", c.Name)
	return nil
}
