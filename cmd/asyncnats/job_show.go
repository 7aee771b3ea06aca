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
	var status asyncnats.Status
	var progress *asyncnats.Progress
	err := c.on(ctx, a, "job show", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		j, err := asyncnats.Lookup[job.Value](ctx, q, c.ID)
		if err == nil {
			status, err = j.Status(ctx)
		}
		if err == nil {
			progress = progressOf(ctx, j)
		}
		return err
	})
	if err != nil {
		return err
	}
	view, err := viewOf(status)
	if err != nil {
		return err
	}
	view.Progress = progress
	if c.JSON {
		return printJSON(a.out, view)
	}
	printView(a.out, view)
	if view.buried() {
		fmt.Fprintf(a.err, "every attempt: asyncnats dead show %s%s\n", view.ID, onQueue(view.Queue))
	}
	return nil
}

// view is a job's Status as JSON shows it, with argument and result.
type view struct {
	asyncnats.Status
	Arg    json.RawMessage `json:"arg,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	// Progress is what the job has reported, where that was asked for.
	Progress *asyncnats.Progress `json:"progress,omitempty"`
}

// progressOf returns what a job has reported; nil where that is nothing, or nothing
// that can be read.
func progressOf(ctx context.Context, j *asyncnats.Job[job.Value]) *asyncnats.Progress {
	p, reported, err := j.Progress(ctx)
	if err != nil || !reported {
		return nil
	}
	return &p
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

// buried reports whether the job is in the list of those that failed: one that was
// cancelled is not, nor a copy that nobody was there to perform, nor a whole, whose parts
// are.
func (v view) buried() bool {
	outcome := v.outcome()
	return outcome != nil && !outcome.Succeeded() && v.Record.Parts == nil &&
		!v.Record.EndedAs(job.KindCancelled) && !v.Record.EndedAs(job.KindAbsent)
}

// word is the state, or how the job ended.
func (v view) word() string {
	outcome := v.outcome()
	switch {
	case outcome == nil:
		return string(v.State)
	case outcome.Succeeded():
		return string(v.State)
	}
	switch kind := outcome.Failure.Kind; kind {
	case job.KindCancelled, job.KindExpired:
		return string(v.State) + ": " + string(kind)
	}
	return string(v.State) + ": failed"
}

func printView(w io.Writer, v view) {
	line := lines(w)
	line("job", v.ID.String())
	line("queue", v.Queue)
	line("task", v.Task)
	line("quotas", strings.Join(v.Quotas, ", "))
	line("priority", level(v.Priority))
	line("state", v.word())
	line("put", clock(v.Put))
	if !v.State.Ended() && !v.Due.IsZero() {
		line("due", fmt.Sprintf("%s, in %s", clock(v.Due), took(time.Until(v.Due))))
	}
	line("by", v.By)
	line("argument", string(v.Arg))
	if v.Progress != nil {
		line("progress", printable(v.Progress.String()))
	}
	switch {
	case v.Running != nil:
		line("attempt", fmt.Sprintf("%d, for %s", v.Running.Attempt, took(time.Since(v.Running.Since))))
		line("dispatcher", v.Dispatcher)
		line("agent", v.Running.Agent)
	case v.Record != nil && v.Record.Attempt.Number > 0:
		line("attempt", fmt.Sprint(v.Record.Attempt.Number))
		line("dispatcher", v.Record.Attempt.Dispatcher)
		line("agent", v.Record.Attempt.Agent)
	}
	if v.Record == nil {
		return
	}
	if v.Record.Errors > 0 {
		line("errors", fmt.Sprint(v.Record.Errors))
	}
	if v.Record.Snoozes > 0 {
		line("snoozes", fmt.Sprint(v.Record.Snoozes))
	}
	if v.Record.Interrupts > 0 {
		line("interrupts", fmt.Sprint(v.Record.Interrupts))
	}
	for _, f := range v.Record.Past {
		line("failed", fmt.Sprintf("attempt %d, %s: %s", f.Attempt, clock(f.At), f.Error()))
	}
	if parts := v.Record.Parts; parts != nil {
		line("parts", fmt.Sprintf("%d of %d completed (asyncnats job tree %s%s)", parts.Completed(), parts.Count, v.ID, onQueue(v.Queue)))
	}
	if of := v.Record.Parent; of != nil {
		what := "part of"
		if of.Callback {
			what = "after"
		}
		line(what, fmt.Sprintf("%s in queue %s", of.ID, of.Queue))
	}
	line("started", clock(v.Record.Started))
	outcome := v.outcome()
	if outcome == nil {
		return
	}
	line("ended", clock(v.Record.Ended)+after(v.Record.Started, v.Record.Ended))
	if outcome.Failure != nil {
		line("failure", outcome.Failure.Error())
		line("stack", outcome.Failure.Stack)
		return
	}
	line("result", string(v.Result))
}

// after says how long something took; nothing where it was not begun.
func after(began, ended time.Time) string {
	if began.IsZero() {
		return ""
	}
	return ", after " + took(ended.Sub(began))
}
