package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

type agentPauseCmd struct {
	whichAgent
}

// Help is shown below the usage.
func (*agentPauseCmd) Help() string {
	return `The pause is stored, and lasts until asyncnats agent resume, also when the dispatcher is started again. Jobs that are performed go on.`
}

// Run pauses the agent.
func (c *agentPauseCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "agent pause", func(ctx context.Context, q *asyncnats.Queue, dispatcher, what string) error {
		if err := q.PauseAgent(ctx, dispatcher, c.Name); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s is paused: it takes no jobs\n", what)
		return nil
	})
}

type agentResumeCmd struct {
	whichAgent
}

// Run ends the pause.
func (c *agentResumeCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "agent resume", func(ctx context.Context, q *asyncnats.Queue, dispatcher, what string) error {
		if err := q.ResumeAgent(ctx, dispatcher, c.Name); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s is not paused\n", what)
		return nil
	})
}
