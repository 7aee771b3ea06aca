package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/list"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobTreeCmd struct {
	patience
	format
	ID    string `arg:"" help:"ID of the job."`
	Queue string `short:"q" default:"default" help:"Queue that it was put on."`
	Limit int    `default:"20" help:"How many parts of each job are shown."`
}

// Run shows the job with its parts and callbacks, and theirs.
func (c *jobTreeCmd) Run(ctx context.Context, a *app) error {
	if c.Limit < 0 {
		return usage(errors.New("--limit must not be negative"))
	}
	var tree asyncnats.Node
	err := c.on(ctx, a, "job tree", c.Queue, func(ctx context.Context, q *asyncnats.Queue) error {
		j, err := asyncnats.Lookup[job.Value](ctx, q, c.ID)
		if err == nil {
			tree, err = j.Tree(ctx, c.Limit)
		}
		return err
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.out, tree)
	}
	printTree(a.out, tree)
	return nil
}

func printTree(w io.Writer, tree asyncnats.Node) {
	l := list.NewWriter()
	l.SetStyle(list.StyleConnectedLight)
	addNode(l, tree, nodeLine(tree, tree.Queue))
	fmt.Fprintln(w, l.Render())
}

// addNode adds a job, which line describes.
func addNode(l list.Writer, n asyncnats.Node, line string) {
	l.AppendItem(line)
	hidden := n.Count - len(n.Parts)
	if len(n.Parts) == 0 && len(n.Callbacks) == 0 && hidden <= 0 {
		return
	}
	l.Indent()
	for i, part := range n.Parts {
		line := nodeLine(part, n.Queue)
		if part.Task == "" {
			line = unrecorded(n, i) + "  " + part.ID.String()
		}
		addNode(l, part, line)
	}
	if hidden > 0 {
		l.AppendItem(fmt.Sprintf("… and %d more (--limit)", hidden))
	}
	for _, callback := range n.Callbacks {
		addNode(l, callback, nodeLine(callback, n.Queue))
	}
	l.UnIndent()
}

// unrecorded says what is known of part i of a whole, which has no record, and so says
// nothing of its task.
func unrecorded(whole asyncnats.Node, i int) string {
	sequence := whole.Task == string(job.FormSerial) || whole.Task == string(job.FormThen)
	switch {
	case whole.State.Final():
		return "never put"
	case sequence && i > whole.Done:
		return "not put yet"
	}
	return "pending or running"
}

// nodeLine describes a job in one line.
func nodeLine(n asyncnats.Node, queue string) string {
	words := []string{n.Task, string(n.State)}
	if n.On != "" {
		words = append([]string{"on " + string(n.On) + ":"}, words...)
	}
	if n.Failure != nil {
		words = append(words, "failed ("+firstLine(n.Failure.Error(), 60)+")")
	}
	if n.Count > 0 {
		words = append(words, fmt.Sprintf("%d of %s", n.Done, plural(n.Count, "part")))
	}
	if !n.Started.IsZero() && !n.Ended.IsZero() {
		words = append(words, took(n.Ended.Sub(n.Started)))
	}
	if n.Queue != queue {
		words = append(words, "queue "+n.Queue)
	}
	return strings.Join(append(words, n.ID.String()), "  ")
}
