package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// deadFlags are the flags that say which failed jobs are meant.
type deadFlags struct {
	Task  string        `placeholder:"PATTERN" help:"Only jobs of this task; with wildcards: image.*, image.>"`
	Since time.Duration `placeholder:"DURATION" help:"Only jobs that failed within this time, as 1h."`
	Until time.Duration `placeholder:"DURATION" help:"Only jobs that failed longer ago than this."`
	Error string        `placeholder:"TEXT" help:"Only jobs whose failure has this text in it."`
	Kind  string        `placeholder:"KIND" help:"Only failures of this kind: error, panic, timeout, expired, aborted, invalid."`
}

// filter returns the filter that the flags make, at a moment.
func (f deadFlags) filter(now time.Time) (asyncnats.DeadFilter, error) {
	if f.Since < 0 || f.Until < 0 {
		return asyncnats.DeadFilter{}, usagef("--since and --until say how long ago: they must not be negative")
	}
	filter := asyncnats.DeadFilter{Task: f.Task, Error: f.Error, Kind: job.Kind(f.Kind)}
	if f.Since > 0 {
		filter.Since = now.Add(-f.Since)
	}
	if f.Until > 0 {
		filter.Until = now.Add(-f.Until)
	}
	if err := filter.Check(); err != nil {
		return asyncnats.DeadFilter{}, usage(err)
	}
	return filter, nil
}

// whichDead are the arguments and flags of the subcommands that do something to
// failed jobs: their IDs, or which they are.
type whichDead struct {
	IDs []string `arg:"" optional:"" name:"id" help:"IDs of jobs that failed."`
	deadFlags
	All   bool   `help:"All jobs of the queue that failed."`
	Queue string `short:"q" default:"default" help:"Queue of the jobs."`
}

// check sees to it that nobody means all jobs without saying so.
func (w whichDead) check() error {
	chosen := 0
	for _, given := range []bool{len(w.IDs) > 0, w.deadFlags != deadFlags{}, w.All} {
		if given {
			chosen++
		}
	}
	if chosen != 1 {
		return usagef("name jobs by their IDs, or say which by --task, --since, --until, --error or --kind, or --all: one of the three")
	}
	return nil
}

// on does something to each of the jobs that are named or to those that a filter
// accepts, and returns to how many it was done. There may be many: only the
// connection is bounded, and each exchange with the server.
func (w whichDead) on(ctx context.Context, a *app, sub string, one func(*asyncnats.Queue, asyncnats.Dead) error, some func(*asyncnats.Queue, asyncnats.DeadFilter) (int, error)) (done int, err error) {
	if err := w.check(); err != nil {
		return 0, err
	}
	filter, err := w.filter(time.Now())
	if err != nil {
		return 0, err
	}
	finding, cancel := context.WithTimeout(ctx, findPatience)
	defer cancel()
	client, disconnect, err := a.client(finding, sub)
	if err != nil {
		return 0, err
	}
	defer disconnect()
	q := client.Queue(w.Queue)
	if len(w.IDs) == 0 {
		return some(q, filter)
	}
	var errs []error
	for _, id := range w.IDs {
		found, err := q.DeadJob(ctx, id)
		if err == nil {
			err = one(q, found)
		}
		if err == nil {
			done++
		}
		errs = append(errs, err)
	}
	return done, errors.Join(errs...)
}

// onQueue is the flag that names a queue, where that is not the default one.
func onQueue(queue string) string {
	if queue == job.DefaultQueue {
		return ""
	}
	return fmt.Sprintf(" --queue %s", queue)
}
