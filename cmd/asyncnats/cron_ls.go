package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats"
)

type cronLsCmd struct {
	patience
	format
	Queue string `short:"q" default:"default" help:"Queue to list."`
}

// recurringView is a recurring job as it is shown.
type recurringView struct {
	asyncnats.Recurring
	Call []byte    `json:"call,omitempty"` // hides that of Recurring
	Next time.Time `json:"next,omitzero"`
	Last time.Time `json:"last,omitzero"`
}

// Run lists the recurring jobs.
func (c *cronLsCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "cron ls", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		list, err := q.Recurring(ctx)
		if err != nil {
			return err
		}
		views := make([]recurringView, len(list))
		for i, r := range list {
			views[i] = recurringView{Recurring: r, Next: r.Next, Last: r.Last}
		}
		if c.JSON {
			return printJSON(a.out, views)
		}
		if len(views) == 0 {
			fmt.Fprintf(a.err, "no recurring jobs in queue %s\n", c.Queue)
			return nil
		}
		t := newTable(a.out, "name", "task", "quotas", "priority", "when", "zone", "next", "last", "paused")
		t.SuppressEmptyColumns()
		for _, v := range views {
			paused := ""
			if v.Paused {
				paused = "yes"
			}
			t.AppendRow([]any{v.Name, v.Task, strings.Join(v.Quotas, ", "), level(v.Priority), v.Expression, v.Zone, clock(v.Next), clock(v.Last), paused})
		}
		t.Render()
		return nil
	})
}
