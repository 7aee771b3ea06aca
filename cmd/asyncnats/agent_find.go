package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

// whichAgent is the arguments that say which agent is meant.
type whichAgent struct {
	patience
	UUID  string `arg:"" name:"uuid" help:"UUID of its dispatcher, or how it begins."`
	Name  string `arg:"" help:"Name of the agent: letters, digits, '-' and '_'."`
	Queue string `short:"q" default:"default" help:"Queue that it serves."`
}

// on calls do with the queue of the agent and the UUID of its dispatcher. what is
// how messages call the agent.
func (c whichAgent) on(ctx context.Context, a *app, sub string, do func(ctx context.Context, q *asyncnats.Queue, dispatcher, what string) error) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, sub)
	if err != nil {
		return err
	}
	defer disconnect()
	dispatcher, err := findDispatcher(ctx, client, c.UUID)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("agent %s of dispatcher %s in queue %s", c.Name, dispatcher, c.Queue)
	return do(ctx, client.Queue(c.Queue), dispatcher, what)
}

func checkAgentSize(size int) error {
	if size < 1 {
		return usagef("size %d: must be at least 1; asyncnats agent pause has an agent take nothing", size)
	}
	return nil
}
