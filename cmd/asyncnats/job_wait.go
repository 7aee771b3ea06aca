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

type jobWaitCmd struct {
	format
	ID      string        `arg:"" help:"ID of the job."`
	Queue   string        `short:"q" default:"default" help:"Queue that it was put on."`
	Timeout time.Duration `help:"How long to wait; without limit if not given."`
}

// findPatience is how long the server may take to find the job, before the
// waiting begins.
const findPatience = 5 * time.Second

// Run waits for the job and prints its result.
func (c *jobWaitCmd) Run(ctx context.Context, a *app) error {
	finding, cancel := context.WithTimeout(ctx, findPatience)
	defer cancel()
	client, disconnect, err := a.client(finding, "job wait")
	if err != nil {
		return err
	}
	defer disconnect()
	q := client.Queue(c.Queue)
	j, err := asyncnats.Lookup[job.Value](finding, q, c.ID)
	if err != nil {
		return err
	}
	status, err := j.Status(finding)
	if err != nil {
		return err
	}
	if c.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	switch job.Form(status.Task) {
	case job.FormParallel, job.FormSerial, job.FormThen: // no dispatcher takes one
	default:
		if status.State != job.Waiting {
			defer a.sayIfUnserved(ctx, q, status.Task)()
		}
	}
	return a.await(ctx, j, c.JSON)
}

// awaited is a job with its outcome, as JSON shows it.
type awaited struct {
	ID      job.ID          `json:"id"`
	Queue   string          `json:"queue"`
	Result  json.RawMessage `json:"result,omitempty"`
	Failure *job.Failure    `json:"failure,omitempty"`
}

// await waits for a job and prints its result, or all of its outcome as JSON. On a
// terminal it shows the progress that the job reports.
func (a *app) await(ctx context.Context, j *asyncnats.Job[job.Value], whole bool) error {
	stop := a.showProgress(ctx, j, whole)
	outcome, err := outcomeOf(ctx, j)
	stop()
	if err != nil && outcome.Failure == nil {
		return err
	}
	if whole {
		return errors.Join(printJSON(a.out, outcome), err)
	}
	if err == nil {
		_, err = fmt.Fprintf(a.out, "%s\n", outcome.Result)
	}
	return err
}

// outcomeOf waits for a job. Where the job failed it returns the outcome and
// an error as well.
func outcomeOf(ctx context.Context, j *asyncnats.Job[job.Value]) (awaited, error) {
	outcome := awaited{ID: j.ID(), Queue: j.Queue().Name()}
	result, err := j.Wait(ctx)
	if failure, failed := errors.AsType[*job.Failure](err); failed {
		outcome.Failure = failure
		return outcome, fmt.Errorf("job %s failed: %w", outcome.ID, failure)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		err = fmt.Errorf("job %s is not completed yet: wait longer, or see asyncnats job show %s --queue %s", outcome.ID, outcome.ID, outcome.Queue)
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("interrupted: job %s goes on; asyncnats job wait %s --queue %s waits for it again", outcome.ID, outcome.ID, outcome.Queue)
	case err == nil:
		if outcome.Result, err = result.AsJSON(); err != nil {
			err = fmt.Errorf("result of job %s: %w", outcome.ID, err)
		}
	}
	return outcome, err
}

// unservedAfter is how long a job is waited for before it is asked whether
// anybody will perform it.
const unservedAfter = 2 * time.Second

// sayIfUnserved says so if, after a while of waiting, no dispatcher takes the
// task. stop ends it.
func (a *app) sayIfUnserved(ctx context.Context, q *asyncnats.Queue, task string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
			return
		case <-time.After(unservedAfter):
		}
		info, err := q.Info(ctx)
		if err == nil && info.Served(task) == 0 {
			fmt.Fprintf(a.err, "asyncnats: no dispatcher takes task %s in queue %s now: waiting until one does\n", task, q.Name())
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
