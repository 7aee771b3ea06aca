package asyncnats

import (
	"context"
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Recurring is a recurring job as it is stored.
type Recurring = stream.Recurring

// RecurringConfig says how a job recurs. The zero RecurringConfig is the default.
type RecurringConfig struct {
	// Zone is the time zone of the expression, a name of the IANA database like
	// Europe/Berlin; empty means UTC.
	Zone string
	// Missed says what becomes of ticks that passed while no dispatcher ran:
	// stream.MissedLast (the default: the last of them runs, at once),
	// stream.MissedAll or stream.MissedNone.
	Missed stream.Missed
	// Alone skips a tick while the job of the one before is not completed. By
	// default each tick is a job of its own, and they may overlap. Its ticks are
	// up to 0.3 s late.
	Alone bool
}

// Repeat has a job put again and again, as expression says: five fields, like
// those of cron ("30 3 * * MON-FRI"), six with seconds before them, @hourly,
// @daily, @weekly, @monthly, @yearly, or a period ("@every 90s"). What is stored
// under a name recurs as long as any dispatcher of the queue runs; a second Repeat
// of the name takes the first one's place.
//
// Each tick is one job, with the ID cron/<name>/<tick>, in seconds since 1970; it
// begins to the millisecond. Where clocks are changed, an expression that names
// hours ticks once for each local time it names: the first time where that occurs
// twice, at the moment of the change where it does not occur. One whose hour is
// "*" goes by the time that passes.
//
// Its jobs carry no trace and no baggage of ctx: a tick is not part of the request
// that once asked for it.
//
// The call must have neither an ID, nor a key that makes it unique, nor a time to
// begin; a deadline counts from each tick. The errors are those of [Put].
func Repeat[R any](ctx context.Context, q *Queue, name, expression string, call Call[R], c RecurringConfig) error {
	step := "asyncnats: repeat " + call.options.task
	opened, err := q.open(ctx)
	if err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	o := call.options
	if o.id != "" || o.unique != nil || o.replace || !o.begin.IsZero() || o.delay != 0 {
		return fmt.Errorf("%s: %w", step, errNotRecurring)
	}
	travels, err := o.call()
	if err = errors.Join(err, q.check(travels)); err == nil {
		err = q.knowsAll(ctx, travels)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	travels.Within = 0
	err = opened.Repeat(ctx, Recurring{
		Name: name, Expression: expression, Zone: c.Zone, Missed: c.Missed, Alone: c.Alone, Within: stream.Duration(o.within),
	}, q.client.spec(travels))
	if err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	return nil
}

var errNotRecurring = errors.New("a call that recurs has neither an ID or a key nor a time to begin, and replaces none: each of its jobs has an ID and a time of its own (Alone skips a tick while the job before is not completed)")

// Recurring lists the queue's recurring jobs, sorted by name, with their next and
// last ticks.
func (q *Queue) Recurring(ctx context.Context) (list []Recurring, err error) {
	err = q.use(ctx, func(opened *stream.Queue) error {
		list, err = opened.Recurring(ctx)
		return err
	})
	return list, err
}

// PauseRecurring has a recurring job put no jobs until [Queue.ResumeRecurring] is
// called. Those that were put go on, also one whose tick is less than two seconds
// away. It returns [ErrNoRecurring] where there is none.
func (q *Queue) PauseRecurring(ctx context.Context, name string) error {
	return q.use(ctx, func(opened *stream.Queue) error { return opened.PauseRecurring(ctx, name, true) })
}

// ResumeRecurring ends a pause: the next tick has a job again. The ticks in the
// pause are not made up for.
func (q *Queue) ResumeRecurring(ctx context.Context, name string) error {
	return q.use(ctx, func(opened *stream.Queue) error { return opened.PauseRecurring(ctx, name, false) })
}

// RunRecurring puts a job like those of a recurring one, now and beside them, also
// where that is paused. It carries the trace and the baggage of ctx.
func (q *Queue) RunRecurring(ctx context.Context, name string) (j *Job[job.Value], err error) {
	err = q.use(ctx, func(opened *stream.Queue) error {
		entry, err := opened.RunRecurring(ctx, name)
		if err == nil {
			j = newJob[job.Value](q, entry.ID, entry.Spec.Nonce)
		}
		return err
	})
	return j, err
}

// RemoveRecurring has a job recur no more. Its jobs that were put go on.
func (q *Queue) RemoveRecurring(ctx context.Context, name string) error {
	return q.use(ctx, func(opened *stream.Queue) error { return opened.RemoveRecurring(ctx, name) })
}
