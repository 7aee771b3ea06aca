package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// putPatience is how long a put is repeated where its context sets no
	// deadline.
	putPatience = 30 * time.Second
	// tryPatience is how long one try waits for its answer.
	tryPatience = 3 * time.Second
	// tryPause lies between tries that fail at once.
	tryPause = 100 * time.Millisecond
)

// Put stores a job. It repeats the publish while the server does not answer,
// until ctx ends (30 s where ctx has no deadline), and however often it does,
// the job is stored once: a repeated publish is refused where the first was
// stored, and the nonce tells whose job it is.
//
// Errors: [*ExistsError] where a job with a chosen ID is not completed;
// [*TooLargeError]; [ErrPermission]; [ErrUnanswered] where ctx ended without
// an answer, so that the job may or may not be stored.
func (q *Queue) Put(ctx context.Context, e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	e, err := q.prepared(e)
	if err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	if err := q.registerOf(ctx, e); err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	for {
		msgs, err := q.messages(e, e.size() > 1)
		if err != nil {
			return fmt.Errorf("put %s: %w", e.Spec.Task, err)
		}
		if err = q.setDeadlines(ctx, e); err == nil {
			err = q.publishAll(ctx, msgs)
		}
		subject := msgs[0].Subject
		switch {
		case err == nil:
			return nil
		case kv.Refused(err):
			var stored bool
			if stored, err = q.resolve(ctx, e); err == nil && stored {
				return nil
			}
		case kv.Unanswered(err):
			e.Spec.Again = true
			if err = q.lost(ctx, e, subject, err); err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, errRepeat) {
			if errors.Is(err, ErrExists) {
				q.DropDeadline(e.ID, e.Spec)
			}
			return explain(q.conn(), "put "+e.Spec.Task, err, subject)
		}
	}
}

// registerOf registers the lane of a job; a composition has none.
func (q *Queue) registerOf(ctx context.Context, e Entry) error {
	if e.Spec.Parts != nil {
		return nil
	}
	return q.Register(ctx, e.lane())
}

// errRepeat says that a put is to be repeated.
var errRepeat = errors.New("repeat")

// lost decides what to do about a put without an answer: nil if its job turns
// out to be stored, errRepeat if it is to be repeated, else why not.
//
// The job may have been stored, performed and acked, and its ID be free, so the
// put is not repeated before the record was read. (One that is completed
// between that read and the repeated publish is stored again; whoever claims it
// sees Again, reads the record, and acks.)
func (q *Queue) lost(ctx context.Context, e Entry, subject string, err error) error {
	if ctx.Err() != nil || denied(q.conn(), subject) {
		return err
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		if err := q.there(ctx); errors.Is(err, ErrNoQueue) {
			return err
		}
	}
	for {
		record, err := q.latest(ctx, e.ID)
		switch {
		case err == nil && record.Nonce == e.Spec.Nonce:
			return nil
		case !kv.Unanswered(err):
			return errRepeat
		}
		if rest(ctx, tryPause) != nil {
			return err
		}
	}
}

// there looks whether the queue is there still, waiting a while for the answer: a
// cluster that elects drops the question.
func (q *Queue) there(ctx context.Context) error {
	try, cancel := briefly(ctx)
	defer cancel()
	_, err := q.ns.Queue(try, q.names.queue)
	return err
}

// latest reads a record, waiting a while for the answer.
func (q *Queue) latest(ctx context.Context, id job.ID) (job.Record, error) {
	try, cancel := briefly(ctx)
	defer cancel()
	entry, err := q.records.Latest(try, q.names.record(id))
	return entry.Value, err
}

// resolve looks at the holder of an ID after the server refused to store a
// second job with it. stored says that the holder is this very job, stored by
// a try whose answer was lost. A nil error otherwise says that the holder is
// gone, and the put is to be repeated.
func (q *Queue) resolve(ctx context.Context, e Entry) (stored bool, err error) {
	try, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	found, err := q.Find(try, e.ID)
	switch {
	case errors.Is(err, ErrNoJob):
		return false, nil
	case errors.Is(err, ErrUnanswered) && ctx.Err() == nil:
		return false, errRepeat
	case err != nil:
		return false, err
	}
	// A body that cannot be read has a nonce too, made of its place.
	holder, _ := found.Spec()
	if holder.Nonce == e.Spec.Nonce {
		return true, nil
	}
	record, err := q.latest(ctx, e.ID)
	switch {
	case err == nil && record.Nonce == holder.Nonce && record.State.Final() && found.Waits:
		// It owes more than that its message goes.
		return false, q.Advance(ctx, e.ID, holder.Nonce, time.Now())
	case err == nil && record.Nonce == holder.Nonce && record.State.Final():
		// The holder is completed and its ack is on its way: remove what the
		// ack would remove.
		_, err := q.remove(ctx, found.Sequence)
		return false, err
	case err == nil || errors.Is(err, kv.ErrNotFound):
		return false, &ExistsError{Queue: q.names.queue, ID: e.ID, Nonce: holder.Nonce}
	case kv.Unanswered(err) && ctx.Err() == nil:
		return false, errRepeat
	}
	return false, err
}

// publish sends one message and waits a while for its answer.
func (q *Queue) publish(ctx context.Context, msg *nats.Msg) error {
	try, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	_, err := kv.Publish(try, q.ns.js, msg)
	if tooLarge(err) {
		return &TooLargeError{What: "job", Size: payload(msg), Max: q.maxMsgSize}
	}
	return err
}

// publishAll stores messages, all or none, and waits a while for the answer.
func (q *Queue) publishAll(ctx context.Context, msgs []*nats.Msg) error {
	if len(msgs) == 1 {
		return q.publish(ctx, msgs[0])
	}
	_, err := kv.PublishAll(ctx, q.ns.js, msgs, tryPatience)
	return err
}
