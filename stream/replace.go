package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/kv"
)

const (
	headerScheduler    = "Nats-Scheduler"
	headerScheduleNext = "Nats-Schedule-Next"
	purgeSchedule      = "purge"
	headerRollup       = "Nats-Rollup"
	rollupSubject      = "sub"
)

// Replace stores a job in the place of the one that has its ID, if that was not
// given out yet; where none has it, or that one is completed, it is put like any
// other. One that was given out and is not completed stays, and the error is an
// [*ExistsError].
//
// The old job's message and the new one change in one write, where the server can
// do that: not where the job goes from its lane to a schedule, or from one lane
// to another. There a crash between the two leaves both, and both are performed.
//
// The error is [ErrAssigned] where the job is stored, and the old one may have been given
// out before it was gone: as where an answer was lost, and the lane has gone on.
func (q *Queue) Replace(ctx context.Context, e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	e.Chosen, e.Replaces = true, true
	var superseded Stored // by a try whose answer was lost; none while its ID is empty
	for {
		err := q.replaceOnce(ctx, e, &superseded)
		again := kv.Unanswered(err) || errors.Is(err, ErrUnanswered)
		if !again && !errors.Is(err, errRepeat) || ctx.Err() != nil {
			if errors.Is(err, errDisturbed) {
				err = fmt.Errorf("put %s: it is stored, and the job before it may be performed: %w", e.Spec.Task, err)
			}
			return err
		}
		e.Spec.Again = e.Spec.Again || again
		if again {
			select {
			case <-ctx.Done():
			case <-time.After(tryPause):
			}
		}
	}
}

// replaceOnce tries once. It makes several requests, and gives up when the answer
// to one must be lost: each try begins with what the last has stored. superseded is the
// job in whose place that is.
func (q *Queue) replaceOnce(ctx context.Context, e Entry, superseded *Stored) error {
	ctx, cancel := context.WithTimeout(ctx, 2*tryPatience)
	defer cancel()
	step := "put " + e.Spec.Task
	old, stored, err := q.findLatest(ctx, e.ID)
	if err != nil {
		return err
	}
	holder, _ := old.Spec()
	if stored && holder.Nonce == e.Spec.Nonce {
		return q.discard(ctx, *superseded) // by a try whose answer was lost
	}
	if !stored {
		err := q.Put(ctx, e)
		if errors.Is(err, ErrExists) {
			return errRepeat
		}
		return err
	}
	if err := q.Register(ctx, e.lane()); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	msg, err := q.message(e, batchHeaders)
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(old.Sequence, 10))
	if err := q.setDeadlines(ctx, e); err != nil {
		return explain(q.conn(), step, err)
	}
	err = q.undisturbed(ctx, old, step, func(ctx context.Context) error {
		*superseded = old
		return q.supersede(ctx, e, old, msg)
	})
	switch {
	case errors.Is(err, errDisturbed):
		return errors.Join(err, q.forget(ctx, old))
	case errors.Is(err, ErrAssigned):
		stored, err := q.resolve(ctx, e)
		if err == nil && !stored {
			err = errRepeat // it was over
		}
		if errors.Is(err, ErrExists) {
			q.DropDeadline(e.ID, e.Spec)
		}
		return err
	case err != nil:
		return err
	}
	return q.forget(ctx, old)
}

// discard removes a job that another has superseded, if there is one, and reports by
// errDisturbed one that may have been given out before. It may be repeated.
func (q *Queue) discard(ctx context.Context, old Stored) error {
	if old.ID == "" {
		return nil
	}
	if _, err := q.remove(ctx, old.Sequence); err != nil {
		return err
	}
	return errors.Join(q.disturbed(ctx, old), q.forget(ctx, old))
}

// forget removes what is left of a job whose message is gone since another superseded it.
func (q *Queue) forget(ctx context.Context, old Stored) error {
	holder, _ := old.Spec()
	q.DropDeadline(old.ID, holder)
	return q.forgetRecord(ctx, old.ID, holder.Nonce)
}

// supersede stores a message in the place of an old one, which nobody is given
// meanwhile.
func (q *Queue) supersede(ctx context.Context, e Entry, old Stored, msg *nats.Msg) error {
	from := q.names.job(old.Lane, old.ID)
	if old.Scheduled {
		from = q.names.later(old.Lane, old.ID)
	}
	atOnce := true
	switch {
	case old.Scheduled && msg.Subject == from: // a schedule rolls up its subject
	case old.Scheduled && msg.Header.Get(headerSchedule) == "":
		msg.Header.Set(headerScheduler, from)
		msg.Header.Set(headerScheduleNext, purgeSchedule)
	case msg.Subject == from:
		msg.Header.Set(headerRollup, rollupSubject)
	default:
		atOnce = false
	}
	err := q.publish(ctx, msg)
	switch {
	case kv.Refused(err):
		return errRepeat
	case err != nil:
		return explain(q.conn(), "put "+e.Spec.Task, err, msg.Subject)
	case atOnce:
		return nil
	}
	_, err = q.remove(ctx, old.Sequence)
	return err
}
