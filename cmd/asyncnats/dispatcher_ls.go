package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/asyncnats/asyncnats"
)

type dispatcherLsCmd struct {
	patience
	format
}

// Run lists the dispatchers.
func (c *dispatcherLsCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "dispatcher ls")
	if err != nil {
		return err
	}
	defer disconnect()
	list, err := client.Dispatchers(ctx)
	if errors.Is(err, asyncnats.ErrNoQueue) {
		// No dispatcher can register before there is a queue.
		list, err = []asyncnats.Dispatcher{}, nil
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.out, list)
	}
	if len(list) == 0 {
		fmt.Fprintf(a.err, "no dispatchers in namespace %s: start one with asyncnats dispatch\n", a.connection.Namespace)
		return nil
	}
	t := newTable(a.out, "dispatcher", "state", "host", "pid", "queues", "activated", "deactivated")
	for _, d := range list {
		t.AppendRow([]any{d.Dispatcher, d.State, d.Host, d.PID, strings.Join(d.Queues, ", "), clock(d.Activated), clock(d.Deactivated)})
	}
	t.Render()
	return nil
}
