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
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "job cancel")
	if err != nil {
		return err
	}
	defer disconnect()
	done := []cancelled{} // not null in JSON
	var errs []error
	for _, id := range c.IDs {
		j, err := asyncnats.Lookup[job.Value](ctx, client.Queue(c.Queue), id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		was, err := j.Cancel(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, cancelled{j.ID(), was})
		if !c.JSON {
			fmt.Fprintf(a.out, "%s cancelled, it was %s\n", j.ID(), was)
		}
	}
	if c.JSON {
		errs = append(errs, printJSON(a.out, done))
	}
	return errors.Join(errs...)
}
