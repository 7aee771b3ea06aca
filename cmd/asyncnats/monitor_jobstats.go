package main

import (
	"context"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/dispatcher"
)

type monitorJobStatsCmd struct {
	monitoring
	agentFilter
	upTo
	fromTime
}

// Help is shown below the usage.
func (*monitorJobStatsCmd) Help() string {
	return `Counts the jobs that were started in a span of polls, and those that were active at its beginning; those that started after the last poll are not among them. Unknown are those that ended without an outcome, because they were reassigned or handed back, and those that are not remembered any more.`
}

// Run shows the statistics.
func (c *monitorJobStatsCmd) Run(ctx context.Context, a *app) error {
	q := dispatcher.Query{Queue: c.Queue, Agent: c.Agent, At: c.At, Before: c.Before, Since: c.Since}
	return monitor(ctx, a, c.monitoring, "jobstats", q, printJobStats)
}

func printJobStats(a *app, replies []reply[dispatcher.JobStats]) {
	w := a.out
	for i, r := range replies {
		heading(w, i, replies)
		s := r.answer
		if s.Start == nil {
			fmt.Fprintln(w, "no polls of that time")
			continue
		}
		row(w, "statistics", clock(*s.Start)+" to "+clock(*s.End))
		for _, count := range []struct {
			name string
			n    int
		}{{"started", s.Started}, {"successful", s.Successful}, {"failed", s.Failed}, {"unknown", s.Unknown}} {
			row(w, count.name, fmt.Sprint(count.n))
		}
		for _, extreme := range []struct {
			name string
			job  *dispatcher.JobTime
		}{
			{"longest active", s.LongestActive}, {"shortest active", s.ShortestActive}, {"longest failed", s.LongestFailed},
			{"shortest failed", s.ShortestFailed}, {"longest successful", s.LongestSuccessful}, {"shortest successful", s.ShortestSuccessful},
		} {
			if j := extreme.job; j != nil {
				row(w, extreme.name, fmt.Sprintf("%s, job %s of queue %s", took(time.Duration(j.Duration)), j.ID, j.Queue))
			}
		}
	}
}
