package main

import (
	"context"
	"fmt"
)

type quotaRmCmd struct {
	patience
	Name  string `arg:"" help:"Name of the quota."`
	Queue string `short:"q" default:"default" help:"Queue whose jobs it limits."`
}

// Help is shown below the usage.
func (*quotaRmCmd) Help() string {
	return `Jobs in the queue that name the quota start as if they did not, and new ones are refused. To hold them back instead: asyncnats quota set NAME 0`
}

// Run removes the quota.
func (c *quotaRmCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "quota rm")
	if err != nil {
		return err
	}
	defer disconnect()
	if err := client.Queue(c.Queue).RemoveQuota(ctx, c.Name); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "quota %s removed: jobs that name it are not limited any more\n", c.Name)
	return nil
}
