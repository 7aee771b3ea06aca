package main

import (
	"context"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

type jobLsCmd struct {
	patience
	format
	Queue string   `short:"q" default:"default" help:"Queue to list."`
	State []string `help:"Only jobs in this state: pending, assigned, active, completed, … May be repeated."`
	Limit int      `default:"50" help:"The most jobs to list."`
}

// Run lists the jobs: those not completed first, oldest first, then the
// completed ones, newest first.
func (c *jobLsCmd) Run(ctx context.Context, a *app) error {
	states, err := c.states()
	if err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "job ls")
	if err != nil {
		return err
	}
	defer disconnect()
	jobs, err := client.Queue(c.Queue).Jobs(ctx, c.Limit, states...)
	if err != nil {
		return err
	}
	views := make([]view, len(jobs))
	for i, status := range jobs {
		if views[i], err = viewOf(status); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(a.out, views)
	}
	if len(views) == 0 {
		fmt.Fprintf(a.err, "no such jobs in queue %s\n", c.Queue)
		return nil
	}
	t := newTable(a.out, "job", "task", "priority", "state", "put", "took", "outcome")
	alignRight(t, 6)
	t.SuppressEmptyColumns()
	for _, v := range views {
		t.AppendRow([]any{v.ID, v.Task, level(v.Priority), v.word(), clock(v.Put), v.took(), v.gist()})
	}
	t.Render()
	if len(views) == c.Limit {
		fmt.Fprintf(a.err, "there may be more: --limit %d ends the list here\n", c.Limit)
	}
	return nil
}

func (c *jobLsCmd) states() ([]job.State, error) {
	if c.Limit < 1 {
		return nil, usagef("--limit %d: must be at least 1", c.Limit)
	}
	var states []job.State
	for _, name := range c.State {
		state, err := job.ParseState(name)
		if err != nil {
			return nil, usagef("--state: %w", err)
		}
		states = append(states, state)
	}
	return states, nil
}

// took is how long the last attempt took, or has taken.
func (v view) took() string {
	switch {
	case v.Running != nil:
		return took(time.Since(v.Running.Since))
	case v.outcome() != nil && !v.Record.Started.IsZero():
		return took(v.Record.Ended.Sub(v.Record.Started))
	}
	return ""
}

// gist is the beginning of the outcome.
func (v view) gist() string {
	const most = 40
	outcome := v.outcome()
	switch {
	case outcome == nil && !v.Due.IsZero():
		return "due in " + took(time.Until(v.Due))
	case outcome == nil:
		return ""
	case outcome.Failure != nil:
		return firstLine(outcome.Failure.Error(), most)
	}
	return firstLine(string(v.Result), most)
}
