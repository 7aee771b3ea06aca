package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/cron"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// Recurring is a job that is put again and again: what is put, and when. It is
// one key in the bucket of dispatchers; all else follows from it (tick.go).
type Recurring struct {
	Name string `json:"name"`
	// Expression says when, in the zone of that name of the IANA database, UTC
	// where it is empty: see package internal/cron.
	Expression string `json:"expression"`
	Zone       string `json:"zone,omitempty"`
	Missed     Missed `json:"missed,omitempty"`
	// Alone skips a tick while the job of the one before is not completed. Its
	// ticks are up to 0.3 s late.
	Alone bool `json:"alone,omitempty"`
	// Within is the deadline of each job, after its tick; 0 for none.
	Within   Duration     `json:"within,omitempty"`
	Paused   bool         `json:"paused,omitempty"`
	Task     string       `json:"task"`
	Quotas   []string     `json:"quotas,omitempty"`
	Priority job.Priority `json:"priority,omitzero"`
	By       string       `json:"by,omitempty"`
	Created  time.Time    `json:"created"`
	// Call is the body of the jobs. Its nonce is the identity of this recurring
	// job: another of the same name has another.
	Call []byte `json:"call"`

	// Next is when the next tick is, and Last the one whose job was put last;
	// zero where that is not known. Both are read, not written.
	Next time.Time `json:"-"`
	Last time.Time `json:"-"`
}

// Missed says what becomes of ticks that passed while no dispatcher ran: those
// more than a minute ago. Younger ones are made up for in any case, all.
type Missed string

const (
	// MissedLast has the last of them run, at once, where no younger one does.
	MissedLast Missed = ""
	// MissedAll has all of them run, at once.
	MissedAll Missed = "all"
	// MissedNone has none of them run.
	MissedNone Missed = "none"
)

// check returns what the recurring job puts and when, or everything that is wrong
// with it.
func (r Recurring) check() (s cron.Schedule, spec job.Spec, err error) {
	s, scheduleErr := cron.Parse(r.Expression, r.Zone)
	spec, specErr := job.DecodeSpec(r.Call, r.Task, r.Quotas, r.Priority, job.Nonce{})
	err = errors.Join(job.CheckRecurring(r.Name), scheduleErr, specErr, job.CheckWithin(0, time.Duration(r.Within)))
	if !slices.Contains([]Missed{MissedLast, MissedAll, MissedNone}, r.Missed) {
		err = errors.Join(err, fmt.Errorf("missed ticks %q: must be %q, %q or empty for the last", r.Missed, MissedAll, MissedNone))
	}
	return s, spec, err
}

// Repeat stores a recurring job that puts jobs like spec, in the place of one of
// the same name. It ticks from then on, as long as a dispatcher of the queue runs.
// It may be repeated.
func (q *Queue) Repeat(ctx context.Context, r Recurring, spec job.Spec) error {
	step := fmt.Sprintf("repeat %s as %s in queue %s", spec.Task, r.Name, q.names.queue)
	var err error
	if r.Call, err = job.EncodeSpec(spec); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	r.Task, r.Quotas, r.Priority, r.By, r.Created = spec.Task, spec.Quotas, spec.Priority, spec.By, time.Now().UTC()
	if _, _, err := r.check(); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if err := q.registerOf(ctx, Entry{Spec: spec}); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return q.writeRecurring(ctx, step, r.Name, func(old *Recurring, _ bool) error {
		*old = r
		return nil
	})
}

// writeRecurring changes a recurring job, or creates it, at the revision that was
// read, again and again while there is no answer or somebody else changes it.
func (q *Queue) writeRecurring(ctx context.Context, step, name string, change func(r *Recurring, found bool) error) error {
	if err := job.CheckRecurring(name); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	for {
		err := q.writeRecurringOnce(ctx, name, change)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kv.ErrConflict):
		case !kv.Unanswered(err) || ctx.Err() != nil:
			return explain(q.conn(), step, err, q.names.cron(name))
		default:
			time.Sleep(tryPause)
		}
	}
}

func (q *Queue) writeRecurringOnce(ctx context.Context, name string, change func(r *Recurring, found bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	key := q.names.cron(name)
	old, err := q.crons.Latest(ctx, key)
	found := !errors.Is(err, kv.ErrNotFound)
	if found && err != nil {
		return err
	}
	if err := change(&old.Value, found); err != nil {
		return err
	}
	if found {
		_, err = q.crons.Update(ctx, key, old.Value, old.Revision, kv.Forever)
	} else {
		_, err = q.crons.Create(ctx, key, old.Value, kv.Forever)
	}
	if tooLarge(err) {
		data, _ := json.Marshal(old.Value)
		err = &TooLargeError{What: "recurring job", Size: len(data), Max: int(q.conn().MaxPayload())}
	}
	return err
}

// PauseRecurring has a recurring job put no jobs, or put them again: from its next
// tick on. It returns [ErrNoRecurring] where there is none.
func (q *Queue) PauseRecurring(ctx context.Context, name string, paused bool) error {
	step := fmt.Sprintf("pause or resume recurring job %s of queue %s", name, q.names.queue)
	return q.writeRecurring(ctx, step, name, func(r *Recurring, found bool) error {
		if !found {
			return ErrNoRecurring
		}
		r.Paused = paused
		return nil
	})
}

// RemoveRecurring has a job recur no more. Those that were put go on. It returns
// [ErrNoRecurring] where there is none.
func (q *Queue) RemoveRecurring(ctx context.Context, name string) error {
	step := fmt.Sprintf("remove recurring job %s of queue %s", name, q.names.queue)
	if err := job.CheckRecurring(name); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	for {
		entry, err := q.crons.Latest(ctx, q.names.cron(name))
		if errors.Is(err, kv.ErrNotFound) {
			return fmt.Errorf("%s: %w", step, ErrNoRecurring)
		}
		if err == nil {
			err = q.crons.Delete(ctx, entry.Key, entry.Revision)
		}
		if errors.Is(err, kv.ErrConflict) {
			continue
		}
		if err != nil {
			return explain(q.conn(), step, err, q.names.cron(name))
		}
		if _, spec, err := entry.Value.check(); err == nil {
			q.dropTimer(cronTimer(name, spec.Nonce))
		}
		return nil
	}
}

// Recurring lists the recurring jobs, sorted by name.
func (q *Queue) Recurring(ctx context.Context) ([]Recurring, error) {
	step := "list recurring jobs of queue " + q.names.queue
	entries, err := q.crons.List(ctx, q.names.cron("*"))
	if err != nil {
		return nil, explain(q.conn(), step, err)
	}
	list := make([]Recurring, len(entries))
	for i, entry := range entries {
		list[i] = entry.Value
		if err := q.readChain(ctx, &list[i], entry.Written); err != nil {
			return nil, explain(q.conn(), step, err)
		}
	}
	slices.SortFunc(list, func(a, b Recurring) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// readChain reads the next and the last tick.
func (q *Queue) readChain(ctx context.Context, r *Recurring, since time.Time) error {
	schedule, spec, err := r.check()
	if err != nil {
		return nil //nolint:nilerr // a newer release made it, and shows more of it
	}
	found, err := q.last(ctx, q.names.eitherWay(cronTimer(r.Name, spec.Nonce)))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // nobody has begun with it
		r.Next = schedule.Next(r.Created, since)
		return nil
	case err != nil:
		return err
	}
	r.Next = due(found.Header).UTC()
	r.Last, _ = time.Parse(time.RFC3339, found.Header.Get(headerLast)) // absent: none
	return nil
}

// RunRecurring puts a job like those of a recurring one, now and beside them, under
// the trace of ctx.
func (q *Queue) RunRecurring(ctx context.Context, name string) (Entry, error) {
	step := fmt.Sprintf("run recurring job %s of queue %s", name, q.names.queue)
	if err := job.CheckRecurring(name); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", step, err)
	}
	found, err := q.crons.Latest(ctx, q.names.cron(name))
	if errors.Is(err, kv.ErrNotFound) {
		return Entry{}, fmt.Errorf("%s: %w", step, ErrNoRecurring)
	}
	if err != nil {
		return Entry{}, explain(q.conn(), step, err)
	}
	_, spec, err := found.Value.check()
	if err != nil {
		return Entry{}, fmt.Errorf("%s: %w", step, err)
	}
	spec.Nonce, spec.At, spec.Trace = job.NewNonce(), time.Now(), job.TraceOf(ctx)
	if found.Value.Within > 0 {
		spec.Deadline = spec.At.Add(time.Duration(found.Value.Within))
	}
	e := Entry{ID: job.ID("cron/" + name + "/" + job.NewID().String()), Chosen: true, Spec: spec}
	return e, q.Put(ctx, e)
}
