package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// Move gives a pending job other quotas, sorted, and so another lane. It keeps
// its ID and nonce, and comes last in the new lane. It returns [ErrNoJob] where
// there is no such job or its outcome is recorded, and [ErrAssigned] where a
// dispatcher was given it already.
//
// The lane is paused meanwhile, so that the job is not given out. A crash after
// the new message is stored leaves both; the new one is marked as put again, so
// that whoever gets it looks at the record first. So it may be where the job is given
// out before its old message is removed, as while an answer is lost: the error is
// [ErrAssigned] then, and says so.
func (q *Queue) Move(ctx context.Context, id job.ID, nonce job.Nonce, quotas []string) error {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	step := fmt.Sprintf("change the quotas of job %s in queue %s", id, q.names.queue)
	found, err := q.Find(ctx, id)
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	spec, err := found.Spec()
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if spec.Nonce != nonce {
		return fmt.Errorf("%s: %w (another has its ID now)", step, ErrNoJob)
	}
	spec.Quotas, spec.Again = quotas, true
	e := Entry{ID: id, Chosen: true, Spec: spec}
	if err := e.check(); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if e.lane() == found.Lane {
		return nil
	}
	if err := q.Register(ctx, e.lane()); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	msg, err := q.message(e, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(found.Sequence, 10))
	// Should a schedule fire before it is removed, both are delivered, and the
	// second to end is told that the job was reassigned.
	asked := false // and perhaps heard
	err = persist(ctx, func() error {
		return q.undisturbed(ctx, found, step, func(ctx context.Context) error {
			err := q.replace(ctx, found, msg, step)
			asked = asked || err == nil || kv.Unanswered(err)
			return err
		})
	})
	if asked && errors.Is(err, ErrAssigned) {
		err = fmt.Errorf("%s: it may have them, and be performed as it was: %w", step, errDisturbed)
	}
	return q.orOver(ctx, id, nonce, step, err)
}

// orOver turns the answer that a job is assigned into [ErrNoJob] where it has completed, and its message is only still to
// be acked: whoever has waited for its outcome is not told that it runs.
func (q *Queue) orOver(ctx context.Context, id job.ID, nonce job.Nonce, step string, err error) error {
	if !errors.Is(err, ErrAssigned) {
		return err
	}
	record, _, found, lookErr := q.Record(ctx, id)
	if lookErr != nil || !found || record.Nonce != nonce || !record.State.Final() {
		return err
	}
	return fmt.Errorf("%s: %w: it is over", step, ErrNoJob)
}

// replace stores a job's new message and removes its old one. It may be repeated: the
// new one is refused, if it was stored.
func (q *Queue) replace(ctx context.Context, old Stored, msg *nats.Msg, step string) error {
	err := q.publish(ctx, msg)
	if kv.Refused(err) {
		err = q.moved(ctx, old, msg.Subject)
	}
	if err != nil {
		return explain(q.conn(), step, err, msg.Subject)
	}
	_, err = q.remove(ctx, old.Sequence)
	return err
}

// moved looks at what kept a job's new message from being stored: nil if that
// is the message itself.
func (q *Queue) moved(ctx context.Context, old Stored, subject string) error {
	found, err := q.Find(ctx, old.ID)
	if err != nil {
		return err
	}
	if q.names.job(found.Lane, found.ID) != subject && q.names.later(found.Lane, found.ID) != subject {
		return fmt.Errorf("%w: it changed meanwhile", ErrAssigned)
	}
	return nil
}
