package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobAnnotateCmd struct {
	patience
	ID     string `arg:"" help:"ID of the job."`
	Name   string `arg:"" help:"Name of the annotation: 1 to 64 letters, digits, '-' or '_'."`
	Value  string `arg:"" optional:"" help:"Value, in JSON; - reads it from stdin, as does no value unless stdin is a terminal."`
	Remove bool   `help:"Remove the annotation."`
	Queue  string `short:"q" env:"ASYNCNATS_QUEUE" default:"default" help:"Queue that it was put on."`
}

// Help is shown below the usage.
func (*jobAnnotateCmd) Help() string {
	return `Anybody may set an annotation of a job, and read it, while the job is pending, runs, or is over; the last one who does wins. It is kept for a week after that. The annotation progress is what job show, job watch and put --wait show as the job's progress. Nothing is printed, so that a job's command can call it:

    asyncnats job annotate "$ASYNCNATS_JOB" progress '{"done": 3, "total": 10, "text": "resizing"}'
    asyncnats job annotate tonight stop true`
}

// Run sets or removes the annotation.
func (c *jobAnnotateCmd) Run(ctx context.Context, a *app) error {
	if c.Remove && c.Value != "" {
		return usagef("--remove takes no value")
	}
	value, err := c.value(a.in)
	if err != nil {
		return err
	}
	return c.on(ctx, a, "job annotate", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		j, err := asyncnats.Lookup[job.Value](ctx, q, c.ID)
		switch {
		case err != nil:
			return err
		case c.Remove:
			return j.RemoveAnnotation(ctx, c.Name)
		}
		return j.Annotate(ctx, c.Name, value)
	})
}

func (c *jobAnnotateCmd) value(in *os.File) (job.Value, error) {
	if c.Remove {
		return job.Value{}, nil
	}
	from, given := "value", []byte(c.Value)
	if c.Value == "-" || c.Value == "" && !isTerminal(in) {
		from = "stdin"
		var err error
		if given, err = io.ReadAll(in); err != nil {
			return job.Value{}, fmt.Errorf("read value from stdin: %w", err)
		}
	}
	value, err := parseArg(given)
	if err == nil && value.IsNone() {
		return job.Value{}, usagef("%s is empty: give a value in JSON, or --remove", from)
	}
	if err != nil {
		return job.Value{}, usagef("%s: %w", from, err)
	}
	return value, nil
}
