package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/asyncnats/asyncnats"
)

type queueLsCmd struct {
	patience
	format
}

// Run lists the queues. Each is asked at the same time, for each takes a third
// of a second.
func (c *queueLsCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "queue ls")
	if err != nil {
		return err
	}
	defer disconnect()
	names, err := client.Queues(ctx)
	if err != nil {
		return err
	}
	infos, err := queueInfos(ctx, client, names)
	if err != nil {
		return err
	}
	views := make([]queueView, len(infos))
	for i, info := range infos {
		if views[i], err = viewQueue(ctx, client, info); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(a.out, views)
	}
	if len(views) == 0 {
		fmt.Fprintf(a.err, "no queues in namespace %s: create one with asyncnats queue add NAME\n", a.connection.Namespace)
		return nil
	}
	t := newTable(a.out, "queue", "jobs", "assigned", "tasks", "dispatchers", "size", "paused")
	alignRight(t, 2, 3, 4, 5, 6)
	t.SuppressEmptyColumns()
	for _, info := range views {
		assigned := 0
		tasks := make(map[string]bool)
		for _, lane := range info.Lanes {
			assigned += lane.Assigned
			tasks[lane.Task] = true
		}
		t.AppendRow([]any{info.Name, info.Messages, assigned, len(tasks), len(info.Dispatchers), size(int64(info.Bytes)), info.gist()})
	}
	t.Render()
	return nil
}

// queueInfos leaves out a queue that was removed meanwhile.
func queueInfos(ctx context.Context, client *asyncnats.Client, names []string) ([]asyncnats.QueueInfo, error) {
	found := make([]*asyncnats.QueueInfo, len(names))
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			info, err := client.Queue(name).Info(ctx)
			switch {
			case err == nil:
				found[i] = &info
			case !errors.Is(err, asyncnats.ErrNoQueue):
				errs[i] = err
			}
		})
	}
	all.Wait()
	infos := make([]asyncnats.QueueInfo, 0, len(names))
	for _, info := range found {
		if info != nil {
			infos = append(infos, *info)
		}
	}
	return infos, errors.Join(errs...)
}
