package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/stream"
)

type dispatcherInfoCmd struct {
	patience
	format
	UUID string `arg:"" name:"uuid" help:"UUID of the dispatcher, or how it begins."`
}

// dispatcherView is a dispatcher with what it has and does in its queues.
type dispatcherView struct {
	asyncnats.Dispatcher
	Agents []agentView `json:"agents"`
	Jobs   []performed `json:"jobs"` // that it performs now
}

// performed is a job that is performed now.
type performed struct {
	Queue string `json:"queue"`
	stream.Running
}

// Run shows the dispatcher.
func (c *dispatcherInfoCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, "dispatcher info")
	if err != nil {
		return err
	}
	defer disconnect()
	id, err := findDispatcher(ctx, client, c.UUID)
	if err != nil {
		return err
	}
	entry, err := client.Dispatcher(ctx, id)
	if err != nil {
		return err
	}
	queues, err := client.Queues(ctx)
	if err != nil {
		return err
	}
	infos, err := queueInfos(ctx, client, queues)
	if err != nil {
		return err
	}
	shown := dispatcherView{Dispatcher: entry, Jobs: []performed{}}
	if shown.Agents, err = agentViews(ctx, client, infos, id); err != nil {
		return err
	}
	for _, info := range infos {
		if who := answerOf(info, id); who != nil {
			for _, running := range who.Jobs {
				shown.Jobs = append(shown.Jobs, performed{info.Name, running})
			}
		}
	}
	if c.JSON {
		return printJSON(a.out, shown)
	}
	printDispatcher(a.out, shown, time.Now())
	return nil
}

func printDispatcher(w io.Writer, d dispatcherView, now time.Time) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, text)
		}
	}
	line("dispatcher", d.Dispatcher.Dispatcher)
	line("state", string(d.State))
	line("host", d.Host)
	line("pid", fmt.Sprint(d.PID))
	line("queues", strings.Join(d.Queues, ", "))
	line("registered", clock(d.Registered))
	line("activated", clock(d.Activated))
	line("deactivated", clock(d.Deactivated))
	fmt.Fprintln(w)
	if len(d.Agents) == 0 {
		fmt.Fprintln(w, "no agents: it performs no jobs (asyncnats agent add)")
		return
	}
	printAgents(w, d.Agents, false)
	if len(d.Jobs) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(w, "queue", "job", "task", "agent", "attempt", "since")
	alignRight(t, 5, 6)
	for _, j := range d.Jobs {
		t.AppendRow([]any{j.Queue, j.ID, j.Task, j.Agent, j.Attempt, age(j.Since, now)})
	}
	t.Render()
}
