package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobAskCmd struct {
	ID       string        `arg:"" help:"ID of the job."`
	Name     string        `arg:"" help:"What it is asked for, as its handler calls it."`
	Question string        `arg:"" optional:"" help:"Question, in JSON; - reads it from stdin; none if not given."`
	Queue    string        `short:"q" env:"ASYNCNATS_QUEUE" default:"default" help:"Queue that it was put on."`
	Timeout  time.Duration `default:"30s" help:"How long the answer may take."`
}

// Help is shown below the usage.
func (*jobAskCmd) Help() string {
	return `The handler of a running job may answer questions (asyncnats.Answer in Go). The answer is printed in JSON, as the result of a job is. The exit code is 4 where nobody answers: the job does not run now, or its handler does not answer to that name.

    asyncnats job ask tonight position
    asyncnats job ask tonight files '{"newer": "1h"}'`
}

// Run asks, and prints the answer.
func (c *jobAskCmd) Run(ctx context.Context, a *app) error {
	given := []byte(c.Question)
	if c.Question == "-" {
		var err error
		if given, err = io.ReadAll(a.in); err != nil {
			return fmt.Errorf("read question from stdin: %w", err)
		}
	}
	question, err := parseArg(given)
	if err != nil {
		return usagef("question: %w", err)
	}
	question.Encoding = job.JSON // so that the answer is JSON, too
	client, disconnect, err := a.client(ctx, "job ask")
	if err != nil {
		return err
	}
	defer disconnect()
	j, err := asyncnats.Lookup[job.Value](ctx, client.Queue(c.Queue), c.ID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	answer, err := asyncnats.Ask[job.Value](ctx, j, c.Name, question)
	if errors.Is(err, asyncnats.ErrUnanswered) && ctx.Err() != nil {
		return fmt.Errorf("%w: wait longer with --timeout", err)
	}
	if err != nil {
		return err
	}
	text, err := answer.AsJSON()
	if err != nil {
		return fmt.Errorf("answer of job %s: %w", c.ID, err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", text)
	return err
}
