package main

import (
	"context"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/stream"
)

type monitorStatusCmd struct {
	monitoring
}

// Help is shown below the usage.
func (*monitorStatusCmd) Help() string {
	return `RUNNING: works. STUCK: its last poll is late by more than half the poll interval, because the process is halted or has no time to run. A dispatcher that is stopped, or is still starting, does not answer.`
}

// Run shows how the dispatchers are.
func (c *monitorStatusCmd) Run(ctx context.Context, a *app) error {
	return monitor(ctx, a, c.monitoring, "status", dispatcher.Query{}, printStatus)
}

func printStatus(a *app, replies []reply[dispatcher.Status]) {
	t := newTable(a.out, "dispatcher", "host", "pid", "status", "uptime", "last poll", "interval", "takes no jobs of")
	alignRight(t, 3, 5, 6, 7)
	t.SuppressEmptyColumns()
	for _, r := range replies {
		s := r.answer
		t.AppendRow([]any{
			s.UUID, r.from.Host, r.from.PID, s.State, span(s.Uptime), ago(s.SinceLastPoll), time.Duration(s.PollInterval).String(), paused(s),
		})
	}
	t.Render()
}

// paused says what takes no jobs: all of it where the dispatcher is suspended.
func paused(s dispatcher.Status) string {
	if s.Suspended {
		return "any queue: suspended"
	}
	var list []string
	for _, p := range s.Paused {
		text := p.Queue
		switch {
		case p.Agent != "":
			text += ": agent " + p.Agent
		case p.Task != "":
			text += ": " + p.Task
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func span(d *stream.Duration) string {
	if d == nil {
		return ""
	}
	return took(time.Duration(*d))
}

func ago(d *stream.Duration) string {
	if d == nil {
		return ""
	}
	return span(d) + " ago"
}
