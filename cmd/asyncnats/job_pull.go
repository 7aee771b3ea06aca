package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobPullCmd struct {
	patience
	format
	IDs   []string `arg:"" name:"id" help:"IDs of the jobs."`
	Queue string   `short:"q" default:"default" help:"Queue that they were put on."`
}

// Help is shown below the usage.
func (*jobPullCmd) Help() string {
	return `Takes jobs back that no dispatcher was given: they leave no outcome, as if they had
never been put. What they were is printed. For others see asyncnats job cancel.`
}

// pulled is a job that was taken back, as JSON shows it.
type pulled struct {
	ID     job.ID          `json:"id"`
	Task   string          `json:"task"`
	Arg    json.RawMessage `json:"arg,omitempty"`
	Quotas []string        `json:"quotas,omitempty"`
	Begin  time.Time       `json:"begin,omitzero"`
}

// Run takes the jobs back, each by itself.
func (c *jobPullCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "job pull", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		done := []pulled{} // not null in JSON
		err := eachJob(ctx, q, c.IDs, func(j *asyncnats.Job[job.Value]) error {
			one, err := pull(ctx, j)
			if one.ID == "" {
				return err
			}
			// Beside an error too: nobody else may have it.
			done = append(done, one)
			if !c.JSON {
				back := "taken back"
				if err != nil {
					back = "may have been taken back"
				}
				fmt.Fprintf(a.out, "%s %s: %s %s\n", one.ID, back, one.Task, firstLine(string(one.Arg), 60))
			}
			return err
		})
		if c.JSON {
			err = errors.Join(err, printJSON(a.out, done))
		}
		return err
	})
}

func pull(ctx context.Context, j *asyncnats.Job[job.Value]) (pulled, error) {
	back, err := j.Pull(ctx)
	if back.ID == "" {
		return pulled{}, err
	}
	one := pulled{ID: back.ID, Task: back.Spec.Task, Quotas: back.Spec.Quotas, Begin: back.Spec.Begin}
	if !back.Spec.Arg.IsNone() {
		var unshown error
		if one.Arg, unshown = back.Spec.Arg.AsJSON(); unshown != nil {
			err = errors.Join(err, fmt.Errorf("the argument of job %s cannot be shown: %w", back.ID, unshown))
		}
	}
	return one, err
}
