package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type putCmd struct {
	format
	taskFlags
	composeFlags
	Task    string        `arg:"" help:"Task to perform, like image.thumbnail."`
	Args    []string      `arg:"" optional:"" name:"arg" help:"Argument, in JSON; - reads it from stdin, as does no argument unless stdin is a terminal. Each further argument makes a further job."`
	Queue   string        `short:"q" default:"default" help:"Queue to put it on."`
	ID      string        `xor:"id" help:"ID of the job; a second one with it is refused until the first is completed."`
	Unique  string        `placeholder:"KEY" xor:"id" help:"Refuse it while a job of the task with this key is not completed."`
	Replace bool          `help:"Take the place of the job with this ID or key, if no dispatcher was given that yet."`
	At      timeFlag      `placeholder:"TIME" xor:"begin" help:"Begin then: 2026-05-01T07:00:00Z, or \"2026-05-01 07:00\" or 07:00 in local time."`
	In      time.Duration `placeholder:"DURATION" xor:"begin" help:"Begin after so long."`
	Timeout time.Duration `help:"How long an attempt may take; without limit if not given."`
	Count   int           `default:"1" help:"Put it so many times, in atomic batches."`
	Wait    bool          `help:"Wait for the outcome: prints the result in JSON, or the failure to stderr."`

	toAll bool        // it is a broadcast queue
	given []job.Value // what was read
}

// Help is shown below the usage.
func (*putCmd) Help() string {
	return `A number that is negative needs -- before it: asyncnats put calc.abs -- -5

    asyncnats put text.count '"to be or not to be"' --wait
    asyncnats put image.thumbnail '{"path": "cat.png"}' --queue media --id cat
    asyncnats put image.render '"cat.png"' --quota gpu
    asyncnats put mail.send --once --priority high < mail.json
    asyncnats put mail.send --in 1h --within 10m --retry 5 < mail.json
    asyncnats put index.rebuild --unique main --replace --in 30s
    asyncnats put image.thumbnail '"a.png"' '"b.png"' --parallel --then album.build --on-failure ops.page

With --parallel, --serial or --then, --quota, --priority, --timeout, --within, --retry and
--once are those of each job of TASK; --id, --unique, --at, --in and --keep those of the
whole, --keep of the parts as well. A task that --then or --on-… names has none of them.`
}

// Run puts the jobs.
func (c *putCmd) Run(ctx context.Context, a *app) error {
	if _, err := c.calls(a.in); err != nil { // before anything is connected
		return err
	}
	client, disconnect, err := a.client(ctx, "put")
	if err != nil {
		return err
	}
	defer disconnect()
	q := client.Queue(c.Queue)
	if c.toAll, err = q.Broadcast(ctx); err != nil {
		return err
	}
	if c.toAll && c.Then != "" {
		return usagef("queue %s is a broadcast queue, whose jobs all dispatchers perform: --on-success %s puts one job that takes the replies", c.Queue, c.Then)
	}
	calls, err := c.calls(a.in)
	if err != nil {
		return err
	}
	jobs, err := c.put(traced(ctx), q, calls)
	if !c.Wait || err != nil {
		return errors.Join(c.print(a, calls, jobs), err)
	}
	if c.toAll && !c.Parallel && !c.Serial {
		return c.awaitAll(ctx, a, q, jobs)
	}
	defer a.sayIfUnserved(ctx, q, c.Task)()
	return c.await(ctx, a, jobs)
}

// calls makes one call for each argument and count.
func (c *putCmd) calls(in *os.File) ([]asyncnats.Call[job.Value], error) {
	if c.Count < 1 {
		return nil, usagef("--count %d: must be at least 1", c.Count)
	}
	if c.given == nil {
		var err error
		if c.given, err = c.args(in); err != nil {
			return nil, err
		}
	}
	args := c.given
	if one := c.Parallel || c.Serial; !one && (c.ID != "" || c.Unique != "") && len(args)*c.Count > 1 {
		return nil, usagef("--id and --unique are for one job, and these are %d: leave them out and each gets an ID of its own", len(args)*c.Count)
	}
	task := c.task(c.Task, c.Timeout)
	calls := make([]asyncnats.Call[job.Value], 0, len(args)*c.Count)
	for _, arg := range args {
		for range c.Count {
			calls = append(calls, task.Call(arg))
		}
	}
	return c.composed(calls), nil
}

// timed adds to a call when it is to begin, and in whose place.
func (c *putCmd) timed(call asyncnats.Call[job.Value]) asyncnats.Call[job.Value] {
	switch {
	case c.Unique == "":
	case call.Task() != c.Task: // a whole, whose task is how it is composed
		call = call.Unique(c.Task + "/" + c.Unique)
	default:
		call = call.Unique(c.Unique)
	}
	if c.Replace {
		call = call.Replace()
	}
	if at := time.Time(c.At); !at.IsZero() {
		return call.At(at)
	}
	return call.In(c.In)
}

func (c *putCmd) args(in *os.File) ([]job.Value, error) {
	if len(c.Args) == 0 {
		if isTerminal(in) {
			return []job.Value{{}}, nil
		}
		c.Args = []string{"-"}
	}
	var args []job.Value
	for _, text := range c.Args {
		from, given := "argument", []byte(text)
		if text == "-" {
			var err error
			if given, err = io.ReadAll(in); err != nil {
				return nil, fmt.Errorf("read argument from stdin: %w", err)
			}
			from = "stdin"
		}
		arg, err := parseArg(given)
		if err != nil {
			return nil, usagef("%s: %w", from, err)
		}
		args = append(args, arg)
	}
	return args, nil
}

// parseArg makes a value of JSON text. No text is no argument.
func parseArg(given []byte) (job.Value, error) {
	given = bytes.TrimSpace(given)
	if len(given) == 0 {
		return job.Value{}, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, given); err != nil {
		gist := firstLine(string(given), 40)
		return job.Value{}, fmt.Errorf("%s is not JSON (%w): text needs quotes, like '%s'", gist, err, strconv.Quote(gist))
	}
	return job.Value{Encoding: job.JSON, Data: compact.Bytes()}, nil
}

func (c *putCmd) put(ctx context.Context, q *asyncnats.Queue, calls []asyncnats.Call[job.Value]) ([]*asyncnats.Job[job.Value], error) {
	if len(calls) > 1 {
		return asyncnats.PutMany(ctx, q, calls...)
	}
	j, err := asyncnats.Put(ctx, q, calls[0])
	if errors.Is(err, asyncnats.ErrExists) {
		return nil, exists(ctx, j, err)
	}
	if err != nil {
		return nil, err
	}
	return []*asyncnats.Job[job.Value]{j}, nil
}

// exists adds to a refused ID what is known of the job that has it.
func exists(ctx context.Context, holder *asyncnats.Job[job.Value], refused error) error {
	status, err := holder.Status(ctx)
	if err != nil {
		return refused
	}
	by := ""
	if status.By != "" {
		by = " by " + status.By
	}
	return fmt.Errorf("%w: it is %s, of task %s, put %s%s: wait for it (asyncnats job wait %s --queue %s) or take another ID",
		refused, status.State, status.Task, clock(status.Put), by, status.ID, status.Queue)
}

// traced returns ctx with the trace and the baggage that the environment has, as that
// of a job's command does.
func traced(ctx context.Context) context.Context {
	carried := make(map[string]string)
	for _, key := range []string{"traceparent", "tracestate", "baggage"} {
		if value := os.Getenv(strings.ToUpper(key)); value != "" {
			carried[key] = value
		}
	}
	return job.WithTrace(ctx, carried)
}

// print prints the IDs of the jobs of calls, as many as were put.
func (c *putCmd) print(a *app, calls []asyncnats.Call[job.Value], jobs []*asyncnats.Job[job.Value]) error {
	type put struct {
		ID    job.ID `json:"id"`
		Queue string `json:"queue"`
		Task  string `json:"task"`
	}
	stored := make([]put, len(jobs))
	for i, j := range jobs {
		stored[i] = put{ID: j.ID(), Queue: c.Queue, Task: calls[i].Task()}
		if !c.JSON {
			fmt.Fprintln(a.out, j.ID())
		}
	}
	switch {
	case !c.JSON || len(stored) == 0:
		return nil
	case len(stored) == 1:
		return printJSON(a.out, stored[0])
	}
	return printJSON(a.out, stored)
}

// await waits for the jobs and prints their outcomes in the order of the puts.
func (c *putCmd) await(ctx context.Context, a *app, jobs []*asyncnats.Job[job.Value]) error {
	if len(jobs) == 1 {
		return a.await(ctx, jobs[0], c.JSON)
	}
	outcomes := make([]awaited, len(jobs))
	failed := 0
	for i, j := range jobs {
		outcome, err := outcomeOf(ctx, j)
		if err != nil && outcome.Failure == nil {
			return err
		}
		outcomes[i] = outcome
		switch {
		case err != nil:
			failed++
			report(a.err, err)
		case !c.JSON:
			fmt.Fprintf(a.out, "%s\n", outcome.Result)
		}
	}
	if c.JSON {
		if err := printJSON(a.out, outcomes); err != nil {
			return err
		}
	}
	if failed > 0 {
		return &exitError{exitJobFailed, fmt.Errorf("%d of %s failed", failed, plural(len(jobs), "job"))}
	}
	return nil
}
