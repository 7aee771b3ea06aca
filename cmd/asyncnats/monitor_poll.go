package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

type monitorPollCmd struct {
	monitoring
	agentFilter
	upTo
}

// Run shows the poll.
func (c *monitorPollCmd) Run(ctx context.Context, a *app) error {
	q := dispatcher.Query{Queue: c.Queue, Agent: c.Agent, At: c.At, Before: c.Before}
	return monitor(ctx, a, c.monitoring, "poll", q, func(a *app, replies []reply[dispatcher.Poll]) {
		for i, r := range replies {
			heading(a.out, i, replies)
			printPoll(a.out, r.answer)
		}
	})
}

func printPoll(w io.Writer, poll dispatcher.Poll) {
	fmt.Fprintf(w, "\npoll %d, %s\n", poll.Key, clock(poll.Time))
	t := newTable(w, "queue", "agent", "busy", "started", "active jobs", "new jobs", "")
	alignRight(t, 4)
	rows := 0
	for _, queue := range slices.Sorted(maps.Keys(poll.Results)) {
		for _, name := range slices.Sorted(maps.Keys(poll.Results[queue])) {
			a := poll.Results[queue][name]
			note := a.Error
			if note == "" && a.Paused {
				note = "paused"
			}
			t.AppendRow([]any{
				queue, name, fmt.Sprintf("%d of %d", a.Len, a.Size), a.Started, some(a.ActiveJobs, a.Len), some(a.NewJobs, a.Started), note,
			})
			rows++
		}
	}
	if rows == 0 {
		fmt.Fprintln(w, "no agents")
		return
	}
	t.SuppressEmptyColumns()
	t.Render()
}

// some names the first of so many jobs.
func some(ids []job.ID, all int) string {
	const most = 2
	var named []string
	for _, id := range ids[:min(len(ids), most)] {
		named = append(named, id.String())
	}
	if all > len(named) {
		named = append(named, fmt.Sprintf("and %d more", all-len(named)))
	}
	return strings.Join(named, " ")
}
