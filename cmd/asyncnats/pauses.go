package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/asyncnats/asyncnats"
)

// pauses is what is paused of a queue.
type pauses struct {
	Paused      bool     `json:"paused"` // all of it
	PausedTasks []string `json:"paused_tasks"`
}

func pausesOf(ctx context.Context, q *asyncnats.Queue) (pauses, error) {
	tasks, err := q.Paused(ctx)
	if err != nil {
		return pauses{}, err
	}
	all := slices.Contains(tasks, "")
	tasks = slices.DeleteFunc(tasks, func(task string) bool { return task == "" })
	return pauses{Paused: all, PausedTasks: tasks}, nil
}

// of reports whether jobs of a task are paused.
func (p pauses) of(task string) bool { return p.Paused || slices.Contains(p.PausedTasks, task) }

// any reports whether something is paused.
func (p pauses) any() bool { return p.Paused || len(p.PausedTasks) > 0 }

// gist is what is paused, for a table.
func (p pauses) gist() string {
	if p.Paused {
		return "yes"
	}
	return strings.Join(p.PausedTasks, ", ")
}

// String says what is paused.
func (p pauses) String() string {
	tasks := ""
	switch len(p.PausedTasks) {
	case 0:
	case 1:
		tasks = "task " + p.PausedTasks[0] + " is paused"
	default:
		tasks = "tasks " + strings.Join(p.PausedTasks, ", ") + " are paused"
	}
	switch {
	case p.Paused && tasks == "":
		return "it is paused: no jobs are taken"
	case p.Paused:
		return fmt.Sprintf("it is paused: no jobs are taken; besides %s", tasks)
	case tasks == "":
		return "nothing is paused"
	}
	return tasks
}

// queueView is a queue with what is paused of it.
type queueView struct {
	asyncnats.QueueInfo
	pauses
}

func viewQueue(ctx context.Context, client *asyncnats.Client, info asyncnats.QueueInfo) (queueView, error) {
	paused, err := pausesOf(ctx, client.Queue(info.Name))
	return queueView{info, paused}, err
}
