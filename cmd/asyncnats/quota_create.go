package main

import (
	"context"
	"fmt"
)

type quotaCreateCmd struct {
	patience
	Name  string `arg:"" help:"Name of the quota: letters, digits, '-' and '_'."`
	Queue string `short:"q" default:"default" help:"Queue whose jobs it limits."`
	Size  int    `default:"1" help:"How many of the jobs that name it may run at once; 0 starts none."`
}

// Run creates the quota.
func (c *quotaCreateCmd) Run(ctx context.Context, a *app) error {
	if err := checkQuotaSize(c.Size); err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "quota create")
	if err != nil {
		return err
	}
	defer disconnect()
	if err := client.Queue(c.Queue).CreateQuota(ctx, c.Name, c.Size); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "quota %s created, size %d\n", c.Name, c.Size)
	return nil
}

func checkQuotaSize(size int) error {
	if size < 0 {
		return usagef("size %d: must be at least 0, which starts nothing", size)
	}
	return nil
}
