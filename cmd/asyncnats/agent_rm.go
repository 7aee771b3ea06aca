package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

type agentRmCmd struct {
	whichAgent
	Drain bool `help:"Where it performs jobs have it take no more, and go when they are done."`
}

// Help is shown below the usage.
func (*agentRmCmd) Help() string {
	return `An agent that was removed is not there again when its dispatcher is started again, whatever it is started with; asyncnats agent add adds it. One that performs jobs is left alone, unless --drain is given.`
}

// Run removes the agent.
func (c *agentRmCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "agent rm", func(ctx context.Context, q *asyncnats.Queue, dispatcher, what string) error {
		err := q.RemoveAgent(ctx, dispatcher, c.Name)
		if err == nil {
			fmt.Fprintf(a.out, "%s removed\n", what)
			return nil
		}
		if !c.Drain || !errors.Is(err, asyncnats.ErrAgentBusy) {
			return err
		}
		if err := q.DrainAgent(ctx, dispatcher, c.Name); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s takes no more jobs, and goes when those that it performs are done\n", what)
		return nil
	})
}
