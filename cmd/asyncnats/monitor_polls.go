package main

import (
	"context"

	"github.com/asyncnats/asyncnats/dispatcher"
)

type monitorPollsCmd struct {
	monitoring
	agentFilter
	upTo
	fromTime
	Count int `default:"3" help:"The most polls to show of a dispatcher, 400 at most."`
}

// Run shows the polls, the newest first.
func (c *monitorPollsCmd) Run(ctx context.Context, a *app) error {
	if c.Count < 1 {
		return usagef("--count %d: must be from 1 to 400", c.Count)
	}
	q := dispatcher.Query{Queue: c.Queue, Agent: c.Agent, At: c.At, Before: c.Before, Since: c.Since, Count: c.Count}
	return monitor(ctx, a, c.monitoring, "polls", q, func(a *app, replies []reply[[]dispatcher.Poll]) {
		for i, r := range replies {
			heading(a.out, i, replies)
			for _, poll := range r.answer {
				printPoll(a.out, poll)
			}
		}
	})
}
