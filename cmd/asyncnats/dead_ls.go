package main

import (
	"context"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats"
)

type deadLsCmd struct {
	patience
	format
	deadFlags
	Queue string `short:"q" default:"default" help:"Queue to list."`
	Limit int    `default:"50" help:"The most jobs to list."`
}

// Run lists failed jobs, the one that failed last first.
func (c *deadLsCmd) Run(ctx context.Context, a *app) error {
	if c.Limit < 1 {
		return usagef("--limit %d: must be at least 1", c.Limit)
	}
	filter, err := c.filter(time.Now())
	if err != nil {
		return err
	}
	filter.Limit = c.Limit
	var list []asyncnats.Dead
	err = c.on(ctx, a, "dead ls", c.Queue, func(ctx context.Context, q *asyncnats.Queue) (err error) {
		list, err = q.Dead(ctx, filter)
		return err
	})
	if err != nil {
		return err
	}
	views := make([]deadView, len(list))
	for i, d := range list {
		if views[i], err = viewOfDead(d); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(a.out, views)
	}
	if len(views) == 0 {
		fmt.Fprintf(a.err, "no such failed jobs in queue %s\n", c.Queue)
		return nil
	}
	t := newTable(a.out, "job", "task", "failed", "attempts", "error")
	alignRight(t, 4)
	for _, v := range views {
		t.AppendRow([]any{v.ID, v.Task, clock(v.At), v.Record.Attempt.Number, firstLine(v.Failure().Error(), 60)})
	}
	t.Render()
	if len(views) == c.Limit {
		fmt.Fprintf(a.err, "there may be more: --limit %d ends the list here\n", c.Limit)
	}
	return nil
}
