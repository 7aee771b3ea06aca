package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

type agentAddCmd struct {
	whichAgent
	Size   int      `default:"3" help:"How many jobs it performs at once."`
	Filter []string `placeholder:"TASK" help:"Tasks that it takes, like image.thumbnail, image.* or image.>; any if not given. May be repeated, or joined by commas."`
	Prefer []string `placeholder:"TASK" help:"Tasks that it takes first while there are jobs of them, as --filter. May be repeated, or joined by commas."`
}

// Help is shown below the usage.
func (*agentAddCmd) Help() string {
	return `The agent is stored: a dispatcher that runs has it at once, another when it runs.

    asyncnats agent add 2b70 pictures --size 4 --filter 'image.>'`
}

// Run adds the agent.
func (c *agentAddCmd) Run(ctx context.Context, a *app) error {
	if err := checkAgentSize(c.Size); err != nil {
		return err
	}
	policy := asyncnats.AgentPolicy{Name: c.Name, Queue: c.Queue, Size: c.Size, Filter: c.Filter, Prefer: c.Prefer}
	if err := policy.Check(); err != nil {
		return usage(err)
	}
	return c.on(ctx, a, "agent add", func(ctx context.Context, q *asyncnats.Queue, dispatcher, what string) error {
		if err := q.AddAgent(ctx, dispatcher, policy); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s added, size %d\n", what, c.Size)
		return nil
	})
}
