package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Dead is a job that failed, as it is kept beside its record: for 30 days, unless
// an administrator gave the bucket another maximum age. A job that was cancelled
// is none.
type Dead struct {
	ID    job.ID `json:"id"`
	Queue string `json:"queue"`
	Task  string `json:"task"`
	// At is when it failed, by the server's clock: when that was written.
	At time.Time `json:"at"`
	// Arg is its argument, absent where Cut says so.
	Arg job.Value `json:"-"`
	// Record is its record, as it was completed.
	Record job.Record `json:"record"`
	// Cut lists what was too large to be kept: job.CutStack, job.CutPast,
	// job.CutArg.
	Cut []string `json:"cut,omitempty"`

	entry stream.DeadEntry
}

// Failure is why the job failed in the end.
func (d Dead) Failure() *job.Failure {
	if d.Record.Outcome == nil || d.Record.Outcome.Failure == nil {
		return &job.Failure{} // not written by us
	}
	return d.Record.Outcome.Failure
}

// Attempts returns the Failures of the job's attempts, in order, the last one at
// the end. Of those before it the last job.MaxPast are kept, without their stacks.
// An attempt that was interrupted has none; the record counts those.
func (d Dead) Attempts() []job.Failure { return append(slices.Clone(d.Record.Past), *d.Failure()) }

// DeadFilter says which failed jobs are meant. The zero DeadFilter is all of them.
type DeadFilter struct {
	// Task is a task, or a pattern with NATS wildcards over the parts of names:
	// "image.*", "image.>". Empty is all.
	Task string
	// Since and Until bound when they failed: not before Since, and before Until,
	// by the server's clock. Zero is no bound.
	Since, Until time.Time
	// Error is a part of the text of the Failure: its kind and its message. Upper
	// and lower case differ.
	Error string
	// Kind is the kind of the Failure; empty is any.
	Kind job.Kind
	// Limit is how many at most; 0 is no limit.
	Limit int
}

// Check reports everything that is wrong with the filter, joined.
func (f DeadFilter) Check() error {
	var errs []error
	if f.Task != "" {
		errs = append(errs, roster.CheckPattern("task", f.Task))
	}
	if f.Kind != "" && !slices.Contains(deadKinds, f.Kind) {
		errs = append(errs, fmt.Errorf("unknown kind %q: must be one of %q", f.Kind, deadKinds))
	}
	if f.Limit < 0 {
		errs = append(errs, fmt.Errorf("limit %d is negative", f.Limit))
	}
	return errors.Join(errs...)
}

// deadKinds are the kinds of Failure that are kept.
var deadKinds = []job.Kind{job.KindError, job.KindPanic, job.KindTimeout, job.KindExpired, job.KindAborted, job.KindInvalid}

// task is the one task that the filter names; empty where there may be several.
func (f DeadFilter) task() string {
	if strings.ContainsAny(f.Task, "*>") {
		return ""
	}
	return f.Task
}

// whole reports whether the filter asks for nothing but the task that it names.
func (f DeadFilter) whole() bool { return f == DeadFilter{Task: f.task()} }

func (f DeadFilter) accepts(d Dead) bool {
	return (f.Task == "" || roster.Matches(f.Task, d.Task)) &&
		!d.At.Before(f.Since) && (f.Until.IsZero() || d.At.Before(f.Until)) &&
		strings.Contains(d.Failure().Error(), f.Error) && (f.Kind == "" || d.Failure().Kind == f.Kind)
}

// Dead lists failed jobs, the one that failed last first. It reads what is kept of
// failed jobs and nothing else: those of the task where the filter names one, and
// of those the newest until there are as many as its limit or all since its Since.
// Entries of a later release, which this one cannot read, are left out. A job is kept
// a moment after its outcome can be read.
func (q *Queue) Dead(ctx context.Context, f DeadFilter) ([]Dead, error) {
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	opened, err := q.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	var found []Dead
	for entry, err := range opened.Dead(ctx, f.task()) {
		if err != nil {
			return nil, fmt.Errorf("asyncnats: %w", err)
		}
		if entry.At.Before(f.Since) {
			break
		}
		if dead := q.deadOf(entry); f.accepts(dead) {
			found = append(found, dead)
		}
		if len(found) == f.Limit && f.Limit > 0 {
			break
		}
	}
	return found, nil
}

// DeadJob returns the failed job of that ID: the last one, where jobs of several
// tasks had it. It returns [ErrNoJob] where none is kept.
func (q *Queue) DeadJob(ctx context.Context, id string) (Dead, error) {
	parsed, err := job.ParseID(id)
	if err != nil {
		return Dead{}, fmt.Errorf("asyncnats: %w", err)
	}
	var dead Dead
	err = q.use(ctx, func(opened *stream.Queue) error {
		entry, err := opened.DeadJob(ctx, parsed)
		if err == nil {
			dead = q.deadOf(entry)
		}
		return err
	})
	return dead, err
}

func (q *Queue) deadOf(entry stream.DeadEntry) Dead {
	spec, _ := entry.Spec() // a body that cannot be read has no argument to show
	return Dead{
		ID: entry.ID, Queue: q.name, Task: entry.Record.Task, At: entry.At, Arg: spec.Arg,
		Record: entry.Record, Cut: entry.Cut, entry: entry,
	}
}

// RemoveDead removes what is kept of a failed job; its record is left. It returns
// [ErrNoJob] where that was removed already, or replaced since it was read.
//
// A job whose dispatcher died between recording the failure and acking comes
// back among the failed ones when its message is delivered again.
func (q *Queue) RemoveDead(ctx context.Context, d Dead) error {
	return q.use(ctx, func(opened *stream.Queue) error { return opened.RemoveDead(ctx, d.entry) })
}

// PurgeDead removes what is kept of the failed jobs that the filter accepts, the
// oldest first, and returns how many they were.
func (q *Queue) PurgeDead(ctx context.Context, f DeadFilter) (removed int, err error) {
	if !f.whole() {
		return q.eachDead(ctx, f, func(d Dead) error {
			err := q.RemoveDead(ctx, d)
			if errors.Is(err, ErrNoJob) {
				return errGone
			}
			return err
		})
	}
	if err := f.Check(); err != nil {
		return 0, fmt.Errorf("asyncnats: %w", err)
	}
	err = q.use(ctx, func(opened *stream.Queue) error {
		removed, err = opened.PurgeDead(ctx, f.task())
		return err
	})
	return removed, err
}

// errGone says that somebody else has done what was to be done to a failed job.
var errGone = errors.New("gone")

// eachDead does something to the failed jobs that a filter accepts, the oldest
// first, and returns to how many it was done. Their errors are joined; an error
// that the next ones would have too ends it.
func (q *Queue) eachDead(ctx context.Context, f DeadFilter, do func(Dead) error) (done int, err error) {
	if err := f.Check(); err != nil {
		return 0, fmt.Errorf("asyncnats: %w", err)
	}
	opened, err := q.open(ctx)
	if err != nil {
		return 0, fmt.Errorf("asyncnats: %w", err)
	}
	var errs []error
	for entry, err := range opened.OldestDead(ctx, f.task()) {
		if err != nil {
			errs = append(errs, fmt.Errorf("asyncnats: %w", err))
			break
		}
		dead := q.deadOf(entry)
		if !f.accepts(dead) {
			continue
		}
		switch err := do(dead); {
		case err == nil:
			done++
		case !errors.Is(err, errGone):
			errs = append(errs, err)
			if ctx.Err() != nil || errors.Is(err, ErrUnanswered) || errors.Is(err, ErrPermission) {
				return done, errors.Join(errs...)
			}
		}
		if done == f.Limit && f.Limit > 0 {
			break
		}
	}
	return done, errors.Join(errs...)
}
