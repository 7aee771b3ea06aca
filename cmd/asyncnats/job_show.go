package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobShowCmd struct {
	patience
	format
	ID    string `arg:"" help:"ID of the job."`
	Queue string `short:"q" default:"default" help:"Queue that it was put on."`
}

// Run shows the job.
func (c *jobShowCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "job show")
	if err != nil {
		return err
	}
	defer disconnect()
	j, err := asyncnats.Lookup[job.Value](ctx, client.Queue(c.Queue), c.ID)
	if err != nil {
		return err
	}
	status, err := j.Status(ctx)
	if err != nil {
		return err
	}
	view, err := viewOf(status)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.out, view)
	}
	printView(a.out, view)
	if outcome := view.outcome(); outcome != nil && !outcome.Succeeded() && !view.Record.Cancelled() {
		fmt.Fprintf(a.err, "every attempt: asyncnats dead show %s%s\n", view.ID, onQueue(view.Queue))
	}
	return nil
}

// view is a job's Status as JSON shows it, with argument and result.
type view struct {
	asyncnats.Status
	Arg    json.RawMessage `json:"arg,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

func viewOf(status asyncnats.Status) (view, error) {
	v := view{Status: status}
	var err error
	if !status.Arg.IsNone() {
		if v.Arg, err = status.Arg.AsJSON(); err != nil {
			return view{}, fmt.Errorf("argument of job %s: %w", status.ID, err)
		}
	}
	if outcome := v.outcome(); outcome != nil && outcome.Succeeded() {
		if v.Result, err = outcome.Result.AsJSON(); err != nil {
			return view{}, fmt.Errorf("result of job %s: %w", status.ID, err)
		}
	}
	return v, nil
}

// outcome is nil where there is none yet.
func (v view) outcome() *job.Outcome {
	if v.Record == nil {
		return nil
	}
	return v.Record.Outcome
}

// word is the state, or how the job ended.
func (v view) word() string {
	outcome := v.outcome()
	switch {
	case outcome == nil:
		return string(v.State)
	case !outcome.Succeeded():
		return string(v.State) + ": failed"
	}
	return string(v.State)
}

func printView(w io.Writer, v view) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, strings.ReplaceAll(text, "\n", "\n            "))
		}
	}
	line("job", v.ID.String())
	line("queue", v.Queue)
	line("task", v.Task)
	line("quotas", strings.Join(v.Quotas, ", "))
	line("state", v.word())
	line("put", clock(v.Put))
	line("by", v.By)
	line("argument", string(v.Arg))
	switch {
	case v.Running != nil:
		line("attempt", fmt.Sprintf("%d, for %s", v.Running.Attempt, took(time.Since(v.Running.Since))))
		line("dispatcher", v.Dispatcher)
		line("agent", v.Running.Agent)
	case v.Record != nil:
		line("attempt", fmt.Sprint(v.Record.Attempt.Number))
		line("dispatcher", v.Record.Attempt.Dispatcher)
		line("agent", v.Record.Attempt.Agent)
	}
	if v.Record == nil {
		return
	}
	if v.Record.Interrupts > 0 {
		line("interrupts", fmt.Sprint(v.Record.Interrupts))
	}
	line("started", clock(v.Record.Started))
	outcome := v.outcome()
	if outcome == nil {
		return
	}
	line("ended", fmt.Sprintf("%s, after %s", clock(v.Record.Ended), took(v.Record.Ended.Sub(v.Record.Started))))
	if outcome.Failure != nil {
		line("failure", outcome.Failure.Error())
		line("stack", outcome.Failure.Stack)
		return
	}
	line("result", string(v.Result))
}
