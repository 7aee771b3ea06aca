package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/stream"
)

// agentView is a stored agent as it is shown.
type agentView struct {
	Dispatcher string   `json:"dispatcher"`
	Queue      string   `json:"queue"`
	Name       string   `json:"name"`
	Size       int      `json:"size"`
	Filter     []string `json:"filter,omitempty"`
	Prefer     []string `json:"prefer,omitempty"`
	Paused     bool     `json:"paused"`
	Leaving    bool     `json:"leaving"`
	// Active is how many jobs it performs; nil where its dispatcher does not
	// answer.
	Active *int `json:"active,omitempty"`
}

// agentViews returns the agents of queues, of a dispatcher or, where its UUID is
// empty, of all. A queue that was removed meanwhile is left out.
func agentViews(ctx context.Context, client *asyncnats.Client, infos []asyncnats.QueueInfo, dispatcher string) ([]agentView, error) {
	views := []agentView{}
	for _, info := range infos {
		list, err := client.Queue(info.Name).Agents(ctx, dispatcher)
		if errors.Is(err, asyncnats.ErrNoQueue) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, each := range list {
			views = append(views, agentView{
				Dispatcher: each.Dispatcher, Queue: each.Queue, Name: each.Name, Size: each.Size, Filter: each.Filter,
				Prefer: each.Prefer, Paused: each.Paused, Leaving: each.Leaving, Active: activeOf(info, each),
			})
		}
	}
	slices.SortStableFunc(views, func(a, b agentView) int { return strings.Compare(a.Dispatcher, b.Dispatcher) })
	return views, nil
}

// answerOf is what a dispatcher answered; nil where it did not.
func answerOf(info asyncnats.QueueInfo, dispatcher string) *stream.Presence {
	i := slices.IndexFunc(info.Dispatchers, func(p stream.Presence) bool { return p.Dispatcher == dispatcher })
	if i < 0 {
		return nil
	}
	return &info.Dispatchers[i]
}

func activeOf(info asyncnats.QueueInfo, agent asyncnats.Agent) *int {
	who := answerOf(info, agent.Dispatcher)
	if who == nil {
		return nil
	}
	active := 0
	for _, each := range who.Agents {
		if each.Name == agent.Name {
			active = each.Active
		}
	}
	return &active
}

// printAgents prints a table, where whose is set with their dispatchers.
func printAgents(w io.Writer, views []agentView, whose bool) {
	t := newTable(w, "dispatcher", "queue", "agent", "size", "filter", "prefer", "paused", "leaving", "active")
	alignRight(t, 4, 9)
	t.SuppressEmptyColumns()
	for _, v := range views {
		row := []any{"", v.Queue, v.Name, v.Size, strings.Join(v.Filter, ", "), strings.Join(v.Prefer, ", "), mark(v.Paused), mark(v.Leaving), "-"}
		if whose {
			row[0] = v.Dispatcher
		}
		if v.Active != nil {
			row[8] = *v.Active
		}
		t.AppendRow(row)
	}
	t.Render()
}

func mark(is bool) string {
	if is {
		return "yes"
	}
	return ""
}
