package main

import (
	"context"
	"fmt"
)

type quotaSetCmd struct {
	patience
	Name  string `arg:"" help:"Name of the quota."`
	Size  int    `arg:"" help:"How many of the jobs that name it may run at once; 0 starts none."`
	Queue string `short:"q" default:"default" help:"Queue whose jobs it limits."`
}

// Help is shown below the usage.
func (*quotaSetCmd) Help() string {
	return `Jobs that run are left alone: where more run than the new size, nothing that names the quota starts until fewer do.`
}

// Run changes the size.
func (c *quotaSetCmd) Run(ctx context.Context, a *app) error {
	if err := checkQuotaSize(c.Size); err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "quota set")
	if err != nil {
		return err
	}
	defer disconnect()
	if err := client.Queue(c.Queue).ResizeQuota(ctx, c.Name, c.Size); err != nil {
		return err
	}
	note := ""
	if c.Size == 0 {
		note = ": it starts nothing"
	}
	fmt.Fprintf(a.out, "quota %s has size %d now%s\n", c.Name, c.Size, note)
	return nil
}
