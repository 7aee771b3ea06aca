package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// copyReply is what one dispatcher replied to a broadcast, as JSON shows it.
type copyReply struct {
	ID         job.ID          `json:"id"`
	Dispatcher string          `json:"dispatcher"`
	Result     json.RawMessage `json:"result,omitempty"`
	Failure    *job.Failure    `json:"failure,omitempty"`
}

// awaitAll waits for all replies to broadcasts and prints them as they come, a line
// each.
func (c *putCmd) awaitAll(ctx context.Context, a *app, q *asyncnats.Queue, jobs []*asyncnats.Job[job.Value]) error {
	replies, failed := 0, 0
	for _, j := range jobs {
		whole, err := asyncnats.Lookup[map[string]asyncnats.Outcome[job.Value]](ctx, q, j.ID().String())
		if err != nil {
			return err
		}
		for reply, err := range asyncnats.Replies(ctx, whole) {
			if errors.Is(err, context.Canceled) {
				return fmt.Errorf("interrupted: job %s goes on; asyncnats job wait %s --queue %s waits for it again", j.ID(), j.ID(), q.Name())
			}
			if err != nil {
				return err
			}
			replies++
			if reply.Failure != nil {
				failed++
			}
			if err := c.printReply(a, j.ID(), reply); err != nil {
				return err
			}
		}
	}
	switch {
	case failed > 0:
		return &exitError{exitJobFailed, fmt.Errorf("%d of %s failed", failed, plural(replies, "dispatcher"))}
	case replies == 0:
		fmt.Fprintf(a.err, "asyncnats: no dispatcher takes task %s in queue %s: nobody performed it\n", c.Task, q.Name())
	}
	return nil
}

func (c *putCmd) printReply(a *app, id job.ID, reply asyncnats.Reply[job.Value]) error {
	shown := copyReply{ID: id, Dispatcher: reply.Dispatcher, Failure: reply.Failure}
	if reply.Failure == nil {
		var err error
		if shown.Result, err = reply.Result.AsJSON(); err != nil {
			return fmt.Errorf("reply of dispatcher %s: %w", reply.Dispatcher, err)
		}
	}
	if c.JSON {
		encoder := json.NewEncoder(a.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(shown)
	}
	said := string(shown.Result)
	if reply.Failure != nil {
		said = "failed: " + firstLine(reply.Failure.Error(), 200)
	}
	_, err := fmt.Fprintf(a.out, "%s  %s\n", reply.Dispatcher, said)
	return err
}
