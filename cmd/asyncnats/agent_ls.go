package main

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats"
)

type agentLsCmd struct {
	patience
	format
	Queue      string `short:"q" help:"Only agents in this queue."`
	Dispatcher string `placeholder:"UUID" help:"Only agents of this dispatcher; the UUID, or how it begins."`
}

// Help is shown below the usage.
func (*agentLsCmd) Help() string {
	return `Active is how many jobs the agent performs now; - where its dispatcher does not answer. An agent without a filter takes jobs of any task that its dispatcher can perform.`
}

// Run lists the agents.
func (c *agentLsCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "agent ls")
	if err != nil {
		return err
	}
	defer disconnect()
	whose := ""
	if c.Dispatcher != "" {
		if whose, err = findDispatcher(ctx, client, c.Dispatcher); err != nil {
			return err
		}
	}
	infos, err := c.infos(ctx, client)
	if err != nil {
		return err
	}
	views, err := agentViews(ctx, client, infos, whose)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.out, views)
	}
	if len(views) == 0 {
		fmt.Fprintln(a.err, "no such agents: a dispatcher brings them when it is started, and asyncnats agent add adds one")
		return nil
	}
	printAgents(a.out, views, true)
	return nil
}

func (c *agentLsCmd) infos(ctx context.Context, client *asyncnats.Client) ([]asyncnats.QueueInfo, error) {
	if c.Queue != "" {
		info, err := client.Queue(c.Queue).Info(ctx)
		return []asyncnats.QueueInfo{info}, err
	}
	names, err := client.Queues(ctx)
	if err != nil {
		return nil, err
	}
	return queueInfos(ctx, client, names)
}
