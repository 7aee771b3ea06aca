package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// monitorCmd asks dispatchers what they do (FEATURES 211).
type monitorCmd struct {
	Status   monitorStatusCmd   `cmd:"" help:"Show whether dispatchers work, and since when."`
	Jobs     monitorJobsCmd     `cmd:"" help:"List the jobs that are performed now, the newest first."`
	Job      monitorJobCmd      `cmd:"" help:"Show what a dispatcher remembers of a job."`
	JobStats monitorJobStatsCmd `cmd:"" name:"jobstats" help:"Count the jobs of late by how they ended, and show the longest and shortest."`
	Poll     monitorPollCmd     `cmd:"" help:"Show what the agents were doing at one moment."`
	Polls    monitorPollsCmd    `cmd:"" help:"Show what the agents were doing of late."`
}

// Help is shown below the usage.
func (*monitorCmd) Help() string {
	return `Dispatchers answer from memory: what they did since they were started, at most 400 polls (one each ping interval, 5 seconds if nothing else is configured), the jobs that run and the last 200 that are over. Without a UUID all of them are asked. TIME is like 2026-01-02T15:04:05Z, or a duration like 1h30m that means so long ago.

    asyncnats monitor status
    asyncnats monitor jobstats --since 10m --agent main`
}

// monitoring is what the subcommands of monitor have in common.
type monitoring struct {
	patience
	format
	UUID whom `arg:"" optional:"" help:"Dispatcher to ask, by its UUID or how that begins; all that answer if not given."`
}

// whom is a UUID, or how it begins; empty is any.
type whom string

// UnmarshalText implements [encoding.TextUnmarshaler].
func (w *whom) UnmarshalText(text []byte) error {
	const least = 4
	*w = whom(strings.ToLower(string(text)))
	if len(*w) < least || strings.Trim(string(*w), "0123456789abcdef-") != "" {
		return fmt.Errorf("%q: must be a UUID, or at least the first %d characters of one (asyncnats monitor status shows them)", text, least)
	}
	return nil
}

type agentFilter struct {
	Queue string `short:"q" placeholder:"NAME" help:"Only this queue."`
	Agent string `placeholder:"NAME" help:"Only agents of this name."`
}

type upTo struct {
	At     dispatcher.Moment `xor:"upto" placeholder:"TIME" help:"Polls of this time and older ones."`
	Before dispatcher.Moment `xor:"upto" placeholder:"TIME" help:"Polls older than this time."`
}

type fromTime struct {
	Since dispatcher.Moment `placeholder:"TIME" help:"Polls of this time and newer ones."`
}

// monitor asks, and shows the answers: in JSON, an object with the UUIDs of the
// dispatchers as keys, or by show. Of those that did not answer it tells after
// that.
func monitor[T any](ctx context.Context, a *app, c monitoring, verb string, q dispatcher.Query, show func(*app, []reply[T])) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	namespace := cmp.Or(a.connection.Namespace, stream.DefaultNamespace)
	if err := job.CheckNamespace(namespace); err != nil {
		return err
	}
	nc, _, err := a.connection.dial("monitor " + verb)
	if err != nil {
		return err
	}
	defer nc.Close()
	found, err := discover(ctx, nc, namespace, c.UUID)
	if err != nil {
		return err
	}
	nobody := fmt.Sprintf("no dispatcher answers in namespace %s: start one (asyncnats dispatch)", namespace)
	if len(found) == 0 && q.ID != "" {
		return &exitError{exitNotFound, fmt.Errorf("job %s: %s", q.ID, nobody)}
	}
	replies, failed := askAll[T](ctx, nc, found, verb, q)
	switch {
	case len(replies) == 0 && failed != nil: // nothing to show
	case c.JSON:
		failed = errors.Join(printReplies(a.out, replies), failed)
	case len(found) == 0:
		fmt.Fprintln(a.err, nobody)
	default:
		show(a, replies)
	}
	return failed
}

func printReplies[T any](w io.Writer, replies []reply[T]) error {
	byUUID := make(map[string]json.RawMessage)
	for _, r := range replies {
		byUUID[r.from.UUID] = r.data
	}
	return printJSON(w, byUUID)
}

// refusal is an error that a dispatcher answered with.
type refusal struct {
	code, message string
}

func (r *refusal) Error() string { return r.message }

// verdict is the error of questions that some dispatchers did not answer: wrong
// usage where they refused the question, none where others know what they do not.
func verdict(answered int, errs []error) error {
	var unknown error
	var others []error
	for _, err := range errs {
		refused, ok := errors.AsType[*refusal](err)
		switch {
		case ok && refused.code == dispatcher.CodeForgotten:
			unknown = refused // it is not that one dispatcher's affair
		case ok && refused.code == dispatcher.CodeBadQuery:
			return usage(err)
		default:
			others = append(others, err)
		}
	}
	switch {
	case len(others) > 0:
		return errors.Join(others...)
	case unknown != nil && answered == 0:
		return &exitError{exitNotFound, unknown}
	}
	return nil
}

// heading begins what one of several dispatchers answered.
func heading[T any](w io.Writer, i int, of []reply[T]) {
	if i > 0 {
		fmt.Fprintln(w)
	}
	from := of[i].from
	fmt.Fprintf(w, "dispatcher %s on %s, pid %s\n", from.UUID, from.Host, from.PID)
}

// row prints a name and a text, where there is one.
func row(w io.Writer, name, text string) {
	if text != "" {
		fmt.Fprintf(w, "%-19s %s\n", name, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 20)))
	}
}
