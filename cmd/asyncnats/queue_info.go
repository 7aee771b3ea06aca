package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats/agents"
)

type queueInfoCmd struct {
	patience
	format
	Name string `arg:"" help:"Name of the queue."`
}

// Run shows the queue.
func (c *queueInfoCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "queue info")
	if err != nil {
		return err
	}
	defer disconnect()
	info, err := client.Queue(c.Name).Info(ctx)
	if err != nil {
		return err
	}
	shown, err := viewQueue(ctx, client, info)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.out, shown)
	}
	printQueue(a.out, shown)
	return nil
}

func printQueue(w io.Writer, info queueView) {
	fmt.Fprintf(w, "queue %s: %s, %s, ack wait %v, %s, created %s\n", info.Name,
		plural(int(info.Messages), "job"), size(int64(info.Bytes)), time.Duration(info.AckWait),
		plural(info.Replicas, "replica"), clock(info.Created))
	if info.Broadcast {
		fmt.Fprintf(w, "a broadcast queue: every dispatcher that takes a task performs it, or is away for longer than %v\n", time.Duration(info.Grace))
	}
	if info.Scheduled > 0 {
		fmt.Fprintf(w, "%s not to begin yet\n", plural(int(info.Scheduled), "job"))
	}
	if info.Waiting > 0 {
		fmt.Fprintf(w, "%s waiting for others\n", plural(int(info.Waiting), "job"))
	}
	if info.any() {
		fmt.Fprintln(w, info.pauses)
	}
	if info.Strays > 0 {
		fmt.Fprintf(w, "%s on lanes that are not registered, published past asyncnats: nobody will perform them\n",
			plural(int(info.Strays), "stray message"))
	}
	if len(info.Lanes) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, "task", "quotas", "priority", "pending", "assigned", "served by", "")
		alignRight(t, 4, 5, 6)
		t.SuppressEmptyColumns()
		for _, lane := range info.Lanes {
			note := ""
			switch {
			case lane.Served == 0 && lane.Pending > 0:
				note = "no dispatcher takes this task"
			case info.of(lane.Task):
				note = "paused"
			}
			t.AppendRow([]any{lane.Task, strings.Join(lane.Quotas, ", "), level(lane.Priority), lane.Pending, lane.Assigned, lane.Served, note})
		}
		t.Render()
	}
	fmt.Fprintln(w)
	if len(info.Dispatchers) == 0 {
		fmt.Fprintln(w, "no dispatcher answers")
		return
	}
	t := newTable(w, "dispatcher", "host", "pid", "agent", "busy", "takes")
	for _, dispatcher := range info.Dispatchers {
		if len(dispatcher.Agents) == 0 {
			t.AppendRow([]any{dispatcher.Dispatcher, dispatcher.Host, dispatcher.PID, "none", "", ""})
		}
		for _, agent := range dispatcher.Agents {
			busy := fmt.Sprintf("%d of %d", agent.Active, agent.Size)
			if agent.Paused {
				busy += ", paused"
			}
			t.AppendRow([]any{
				dispatcher.Dispatcher, dispatcher.Host, dispatcher.PID,
				agent.Name, busy, taken(dispatcher.Tasks, agent.Filter),
			})
		}
	}
	t.Render()
}

// taken lists the tasks that a dispatcher can perform and an agent takes.
func taken(tasks, filter []string) string {
	agent := agents.Agent{Filter: filter}
	var takes []string
	for _, task := range tasks {
		if agent.Takes(task) {
			takes = append(takes, task)
		}
	}
	if len(takes) == 0 {
		return "nothing: no task of " + strings.Join(tasks, ", ") + " passes its filter"
	}
	return strings.Join(takes, ", ")
}
