package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// Pull takes a job back that nobody was given: it is removed, and leaves no
// outcome. nonce is that of the job meant, or zero for whichever has the ID. It
// returns [ErrAssigned] for a job that was given out, even if it was handed back
// since, and [ErrNoJob] where there is none or its outcome is recorded. One that
// another job waits for is refused: that would wait for ever.
//
// Its lane is paused meanwhile. While the server does not answer it is tried again,
// until ctx ends (30 s where ctx has no deadline).
//
// The job is returned beside an error, too, where it was taken back, as when its record
// cannot be removed, or may have been. Where the error is [ErrAssigned] somebody may have
// been given it before it was removed, as where an answer was lost and the lane has gone
// on: that one performs it, and nobody else will, should that one die.
//
// A scheduled job that is gone after an answer was lost counts as taken back unless its
// record has an outcome; one that keeps no result may have ended instead.
func (q *Queue) Pull(ctx context.Context, id job.ID, nonce job.Nonce) (Stored, error) {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	t := takeback{q: q, id: id, nonce: nonce, step: fmt.Sprintf("pull job %s from queue %s", id, q.names.queue)}
	err := persist(ctx, func() error {
		try, cancel := context.WithTimeout(ctx, 2*tryPatience)
		defer cancel()
		return t.try(try)
	})
	switch {
	case err == nil, t.removed:
		return t.message, err
	case errors.Is(err, ErrAssigned):
		return Stored{}, q.orOver(ctx, id, t.nonce, t.step, err)
	case errors.Is(err, ErrNoJob), !t.lost:
		return Stored{}, err
	}
	return t.message, err
}

// takeback is a pull of a job, over its tries.
type takeback struct {
	q     *Queue
	id    job.ID
	nonce job.Nonce
	step  string

	message Stored // that was asked to be removed last
	lost    bool   // an answer to that was
	removed bool
	alone   bool // nobody was given the job before
}

// try makes one try.
func (t *takeback) try(ctx context.Context) error {
	for !t.removed { // a schedule fires meanwhile, or somebody else removes the message
		if err := t.remove(ctx); err != nil {
			return err
		}
	}
	if err := t.confirm(ctx); err != nil {
		return err
	}
	if spec, err := t.message.Spec(); err == nil {
		t.q.DropDeadline(t.id, spec)
	}
	if err := t.q.forgetRecord(ctx, t.id, t.nonce); err != nil {
		return fmt.Errorf("%s: it was taken back, and its record is left: %w", t.step, err)
	}
	return nil
}

// remove looks for the job's message and removes it.
func (t *takeback) remove(ctx context.Context) error {
	message, stored, err := t.q.findLatest(ctx, t.id)
	if err != nil {
		return fmt.Errorf("%s: %w", t.step, err)
	}
	spec, _ := message.Spec() // one that cannot be read has a nonce too
	gone := !stored || !t.nonce.IsZero() && spec.Nonce != t.nonce
	switch {
	case gone && t.lost:
		t.removed = true // by a try whose answer was lost, unless it is over
		return nil
	case gone:
		return fmt.Errorf("%s: %w", t.step, ErrNoJob)
	case spec.Parent.Waits():
		return fmt.Errorf("%s: job %s in queue %s waits for it: cancel it, or that job", t.step, spec.Parent.ID, spec.Parent.Queue)
	}
	t.nonce = spec.Nonce
	err = t.q.undisturbed(ctx, message, t.step, func(ctx context.Context) (err error) {
		t.message = message
		if t.removed, err = t.q.remove(ctx, message.Sequence); err != nil {
			t.lost = t.lost || errors.Is(err, ErrUnanswered)
			err = fmt.Errorf("%s: %w", t.step, err)
		}
		return err
	})
	t.alone = t.removed && err == nil
	if errors.Is(err, errDisturbed) {
		return nil // its message is gone, by this or by another hand
	}
	return err
}

// confirm finds out whether nobody else has a job whose message is gone.
func (t *takeback) confirm(ctx context.Context) error {
	if t.alone {
		return nil
	}
	record, _, found, err := t.q.Record(ctx, t.id)
	if err != nil {
		return fmt.Errorf("%s: %w", t.step, err)
	}
	if found && record.Nonce == t.nonce && record.State.Ended() {
		t.removed = false
		return fmt.Errorf("%s: %w", t.step, ErrNoJob)
	}
	if err := t.q.disturbed(ctx, t.message); err != nil {
		return fmt.Errorf("%s: it is removed, and may be performed: %w", t.step, err)
	}
	t.alone = true
	return nil
}

// forgetRecord removes the record of a job that was taken back, unless somebody was given
// it all the same and has begun it.
func (q *Queue) forgetRecord(ctx context.Context, id job.ID, nonce job.Nonce) error {
	record, revision, found, err := q.Record(ctx, id)
	if err != nil || !found || record.Nonce != nonce || record.State == job.Active || record.State.Ended() {
		return err
	}
	err = q.records.Delete(ctx, q.names.record(id), revision)
	if err == nil || errors.Is(err, kv.ErrConflict) {
		return nil
	}
	return explain(q.conn(), fmt.Sprintf("remove the record of job %s", id), err)
}
