package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobAnnotationsCmd struct {
	patience
	format
	ID    string `arg:"" help:"ID of the job."`
	Queue string `short:"q" env:"ASYNCNATS_QUEUE" default:"default" help:"Queue that it was put on."`
}

// annotation is an annotation as JSON shows it.
type annotation struct {
	Name  string          `json:"name"`
	Value json.RawMessage `json:"value"`
	By    string          `json:"by,omitempty"`
	At    time.Time       `json:"at"`
}

func annotationOf(note asyncnats.Note) (annotation, error) {
	value, err := note.Value.AsJSON()
	if err != nil {
		return annotation{}, fmt.Errorf("annotation %s: %w", note.Name, err)
	}
	return annotation{note.Name, value, note.By, note.At}, nil
}

// Run lists the annotations, sorted by name.
func (c *jobAnnotationsCmd) Run(ctx context.Context, a *app) error {
	var notes []asyncnats.Note
	err := c.on(ctx, a, "job annotations", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		j, err := asyncnats.Lookup[job.Value](ctx, q, c.ID)
		if err == nil {
			notes, err = j.Annotations(ctx)
		}
		return err
	})
	if err != nil && notes == nil {
		return err
	}
	shown := []annotation{} // not null in JSON
	for _, note := range notes {
		one, unreadable := annotationOf(note)
		if unreadable != nil {
			err = errors.Join(err, unreadable)
			continue
		}
		shown = append(shown, one)
	}
	switch {
	case c.JSON:
		return errors.Join(printJSON(a.out, shown), err)
	case len(shown) == 0:
		fmt.Fprintf(a.err, "job %s has no annotations\n", c.ID)
		return err
	}
	t := newTable(a.out, "name", "value", "set", "by")
	for _, one := range shown {
		t.AppendRow([]any{one.Name, firstLine(string(one.Value), 60), clock(one.At), one.By})
	}
	t.Render()
	return err
}
