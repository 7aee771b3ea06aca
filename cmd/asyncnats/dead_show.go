package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type deadShowCmd struct {
	patience
	format
	ID    string `arg:"" help:"ID of the job."`
	Queue string `short:"q" default:"default" help:"Queue of the job."`
}

// Run shows the job.
func (c *deadShowCmd) Run(ctx context.Context, a *app) error {
	var found asyncnats.Dead
	err := c.on(ctx, a, "dead show", c.Queue, func(ctx context.Context, q *asyncnats.Queue) (err error) {
		found, err = q.DeadJob(ctx, c.ID)
		return err
	})
	if err != nil {
		return err
	}
	v, err := viewOfDead(found)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.out, v)
	}
	printDead(a.out, v)
	fmt.Fprintf(a.err, "to put it again: asyncnats dead retry %s%s\n", v.ID, onQueue(v.Queue))
	return nil
}

// deadView is a failed job as JSON shows it, with its argument.
type deadView struct {
	asyncnats.Dead
	Arg json.RawMessage `json:"arg,omitempty"`
}

func viewOfDead(d asyncnats.Dead) (v deadView, err error) {
	v.Dead = d
	if !d.Arg.IsNone() {
		if v.Arg, err = d.Arg.AsJSON(); err != nil {
			return v, fmt.Errorf("argument of job %s: %w", d.ID, err)
		}
	}
	return v, nil
}

// cutWords says of the parts of a failed job that may have been too large to be
// kept what they are.
var cutWords = map[string]string{job.CutStack: "the stack", job.CutPast: "the earlier attempts", job.CutArg: "the argument"}

func printDead(w io.Writer, v deadView) {
	line := lines(w)
	line("job", v.ID.String())
	line("queue", v.Queue)
	line("task", v.Task)
	line("quotas", strings.Join(v.Record.Quotas, ", "))
	line("put", clock(v.Record.Put))
	line("by", v.Record.By)
	line("argument", string(v.Arg))
	line("failed", clock(v.At))
	line("errors", fmt.Sprint(v.Record.Errors))
	if n := v.Record.Interrupts; n > 0 {
		line("interrupts", fmt.Sprint(n))
	}
	if n := v.Record.Snoozes; n > 0 {
		line("snoozes", fmt.Sprint(n))
	}
	var cut []string
	for _, part := range v.Cut {
		cut = append(cut, cutWords[part])
	}
	line("too large", strings.Join(cut, ", "))
	attempts := v.Attempts()
	if earlier := attempts[0].Attempt - 1; earlier > 0 && !slices.Contains(v.Cut, job.CutPast) {
		line("not shown", fmt.Sprintf("%s before: interrupted, snoozed, or long ago", plural(earlier, "attempt")))
	}
	fmt.Fprintln(w)
	t := newTable(w, "attempt", "failed", "dispatcher", "agent", "error")
	alignRight(t, 1)
	for _, f := range attempts {
		t.AppendRow([]any{f.Attempt, clock(f.At), f.Dispatcher, f.Agent, firstLine(f.Error(), 200)})
	}
	t.Render()
	if stack := v.Failure().Stack; stack != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSuffix(stack, "\n"))
	}
}
