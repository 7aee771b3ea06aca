package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/quotas"
)

type quotaLsCmd struct {
	patience
	format
	Queue string `short:"q" default:"default" help:"Queue whose quotas to list."`
}

// Help is shown below the usage.
func (*quotaLsCmd) Help() string {
	return `Waiting are those jobs that a dispatcher has at hand, to start when a slot is free or the rate allows it. Further ones stay pending in the queue, where asyncnats queue info counts them.`
}

// Run lists the quotas.
func (c *quotaLsCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "quota ls")
	if err != nil {
		return err
	}
	defer disconnect()
	list, err := client.Queue(c.Queue).Quotas(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		for i := range list {
			list[i] = withLists(list[i])
		}
		return printJSON(a.out, list)
	}
	if len(list) == 0 {
		fmt.Fprintf(a.err, "no quotas in queue %s: create one with asyncnats quota create NAME --queue %s\n", c.Queue, c.Queue)
		return nil
	}
	t := newTable(a.out, "quota", "size", "per", "running", "waiting", "")
	alignRight(t, 2, 3, 4, 5)
	for _, quota := range list {
		per := ""
		if quota.Rate != nil {
			per = quota.Period.String()
		}
		t.AppendRow([]any{quota.Name, quota.Size, per, len(quota.Holders), len(quota.Waiters), rateLeft(quota)})
	}
	t.Render()
	return nil
}

// withLists has lists that are empty where there are none, for JSON.
func withLists(quota asyncnats.Quota) asyncnats.Quota {
	if quota.Holders == nil {
		quota.Holders = []quotas.Claim{}
	}
	if quota.Waiters == nil {
		quota.Waiters = []quotas.Claim{}
	}
	return quota
}
