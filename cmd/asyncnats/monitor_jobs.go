package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/dispatcher"
)

type monitorJobsCmd struct {
	monitoring
	agentFilter
}

// Run lists the jobs that are performed.
func (c *monitorJobsCmd) Run(ctx context.Context, a *app) error {
	return monitor(ctx, a, c.monitoring, "jobs", dispatcher.Query{Queue: c.Queue, Agent: c.Agent}, printActive)
}

func printActive(a *app, replies []reply[[]dispatcher.ActiveJob]) {
	type active struct {
		dispatcher.ActiveJob
		dispatcher string
	}
	var jobs []active
	for _, r := range replies {
		for _, j := range r.answer {
			jobs = append(jobs, active{j, r.from.UUID})
		}
	}
	if len(jobs) == 0 {
		fmt.Fprintln(a.err, "no such jobs are performed now")
		return
	}
	slices.SortStableFunc(jobs, func(a, b active) int { return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.ID, b.ID)) })
	t := newTable(a.out, "job", "queue", "task", "attempt", "for", "agent", "dispatcher")
	alignRight(t, 4, 5)
	for _, j := range jobs {
		t.AppendRow([]any{j.ID, j.Queue, j.Task, j.Attempt, took(max(0, time.Since(j.Started))), j.Agent, j.dispatcher})
	}
	t.Render()
}
