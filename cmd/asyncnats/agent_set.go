package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/asyncnats/asyncnats"
)

type agentSetCmd struct {
	whichAgent
	Size     *int     `help:"How many jobs it performs at once."`
	Filter   []string `xor:"filter" placeholder:"TASK" help:"Tasks that it takes, in place of those before, like image.thumbnail, image.* or image.>. May be repeated, or joined by commas."`
	NoFilter bool     `xor:"filter" help:"It takes any task."`
	Prefer   []string `xor:"prefer" placeholder:"TASK" help:"Tasks that it takes first while there are jobs of them, in place of those before. May be repeated, or joined by commas."`
	NoPrefer bool     `xor:"prefer" help:"It prefers no task."`
}

// Help is shown below the usage.
func (*agentSetCmd) Help() string {
	return `It takes effect at once where the dispatcher runs, and is kept when it is started again. Jobs that are performed go on: where they are more than the new size, nothing starts until they are fewer.

    asyncnats agent set 2b70 main --size 8`
}

// Run changes the agent.
func (c *agentSetCmd) Run(ctx context.Context, a *app) error {
	if err := c.check(); err != nil {
		return err
	}
	return c.on(ctx, a, "agent set", func(ctx context.Context, q *asyncnats.Queue, dispatcher, what string) error {
		var before, now asyncnats.Agent
		err := q.ChangeAgent(ctx, dispatcher, c.Name, func(agent *asyncnats.Agent) {
			before = *agent
			c.change(&agent.Agent)
			now = *agent
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n\n", what)
		printChange(a.out, before.Agent, now.Agent)
		return nil
	})
}

// check looks at the flags before anything is connected.
func (c *agentSetCmd) check() error {
	if c.Size == nil && len(c.Filter)+len(c.Prefer) == 0 && !c.NoFilter && !c.NoPrefer {
		return usagef("nothing to change: give --size, --filter, --no-filter, --prefer or --no-prefer")
	}
	if c.Size != nil {
		if err := checkAgentSize(*c.Size); err != nil {
			return err
		}
	}
	asked := asyncnats.AgentPolicy{Name: c.Name}
	c.change(&asked)
	if err := asked.Check(); err != nil {
		return usage(err)
	}
	return nil
}

// change makes the agent as it was asked for.
func (c *agentSetCmd) change(policy *asyncnats.AgentPolicy) {
	if c.Size != nil {
		policy.Size = *c.Size
	}
	if c.NoFilter || len(c.Filter) > 0 {
		policy.Filter = c.Filter
	}
	if c.NoPrefer || len(c.Prefer) > 0 {
		policy.Prefer = c.Prefer
	}
}

func printChange(w io.Writer, before, now asyncnats.AgentPolicy) {
	t := newTable(w, "", "before", "now")
	t.AppendRow([]any{"size", before.Size, now.Size})
	t.AppendRow([]any{"filter", patterns(before.Filter), patterns(now.Filter)})
	t.AppendRow([]any{"prefer", patterns(before.Prefer), patterns(now.Prefer)})
	t.Render()
}

func patterns(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
