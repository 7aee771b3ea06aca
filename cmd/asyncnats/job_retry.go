package main

import "context"

type jobRetryCmd struct {
	IDs   []string `arg:"" name:"id" help:"IDs of jobs that failed."`
	Queue string   `short:"q" default:"default" help:"Queue that they were put on."`
}

// Help is shown below the usage.
func (*jobRetryCmd) Help() string {
	return `Puts jobs again that failed, as asyncnats dead retry does, which also knows filters.`
}

// Run puts the jobs again.
func (c *jobRetryCmd) Run(ctx context.Context, a *app) error {
	return (&deadRetryCmd{whichDead{IDs: c.IDs, Queue: c.Queue}}).Run(ctx, a)
}
