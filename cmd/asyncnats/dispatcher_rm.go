package main

import (
	"context"
	"fmt"
)

type dispatcherRmCmd struct {
	patience
	UUID string `arg:"" name:"uuid" help:"UUID of the dispatcher, or how it begins."`
}

// Help is shown below the usage.
func (*dispatcherRmCmd) Help() string {
	return `Removes the dispatcher from the list, with its agents in all queues. One that is active is left alone: stop it first. Where it comes back with the same UUID it is registered anew, with the agents that it is started with.`
}

// Run removes the dispatcher.
func (c *dispatcherRmCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "dispatcher rm")
	if err != nil {
		return err
	}
	defer disconnect()
	id, err := findDispatcher(ctx, client, c.UUID)
	if err != nil {
		return err
	}
	if err := client.RemoveDispatcher(ctx, id); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "dispatcher %s removed, with its agents\n", id)
	return nil
}
