package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobCancelCmd struct {
	patience
	format
	IDs   []string `arg:"" name:"id" help:"IDs of the jobs."`
	Queue string   `short:"q" default:"default" help:"Queue that they were put on."`
}

// Help is shown below the usage.
func (*jobCancelCmd) Help() string {
	return `A job that runs is told, and its outcome is that it was cancelled, whatever it still
does. A job that is over stays as it is, which is an error.`
}

// cancelled is a job that was cancelled, as JSON shows it.
type cancelled struct {
	ID  job.ID    `json:"id"`
	Was job.State `json:"was"`
}

// Run cancels the jobs, each by itself.
func (c *jobCancelCmd) Run(ctx context.Context, a *app) error {
	return c.on(ctx, a, "job cancel", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		done := []cancelled{} // not null in JSON
		err := eachJob(ctx, q, c.IDs, func(j *asyncnats.Job[job.Value]) error {
			was, err := j.Cancel(ctx)
			if err != nil {
				return err
			}
			done = append(done, cancelled{j.ID(), was})
			if !c.JSON {
				fmt.Fprintf(a.out, "%s cancelled, it was %s\n", j.ID(), was)
			}
			return nil
		})
		if c.JSON {
			err = errors.Join(err, printJSON(a.out, done))
		}
		return err
	})
}

// eachJob does something to each of some jobs, whatever becomes of the others, and
// joins their errors.
func eachJob(ctx context.Context, q *asyncnats.Queue, ids []string, do func(*asyncnats.Job[job.Value]) error) error {
	var errs []error
	for _, id := range ids {
		j, err := asyncnats.Lookup[job.Value](ctx, q, id)
		if err == nil {
			err = do(j)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
