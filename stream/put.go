package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// putPatience is how long a put is repeated where its context sets no
	// deadline.
	putPatience = 30 * time.Second
	// tryPatience is how long one try waits for its answer.
	tryPatience = 3 * time.Second
	// MaxBatch is how many jobs the server stores in one atomic batch.
	MaxBatch = 1000
)

// Entry is a job about to be put.
type Entry struct {
	ID job.ID
	// Chosen says that the caller chose the ID, so that the whole queue must
	// be free of it; an ID made by job.NewID is free by construction, and its
	// subject alone is cheaper to check.
	Chosen bool
	Spec   job.Spec
}

func (e Entry) lane() Lane { return Lane{Task: e.Spec.Task} }

// Put stores a job. It repeats the publish while the server does not answer,
// until ctx ends (30 s where ctx has no deadline), and however often it does,
// the job is stored once: a repeated publish is refused where the first was
// stored, and the nonce tells whose job it is.
//
// Errors: [*ExistsError] where a job with a chosen ID is not completed;
// [*TooLargeError]; [ErrPermission]; [ErrUnanswered] where ctx ended without
// an answer, so that the job may or may not be stored.
func (q *Queue) Put(ctx context.Context, e Entry) error {
	if err := e.Spec.Check(); err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	if err := q.Register(ctx, e.lane()); err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	for {
		msg, err := q.message(e)
		if err != nil {
			return fmt.Errorf("put %s: %w", e.Spec.Task, err)
		}
		err = q.publish(ctx, msg)
		switch {
		case err == nil:
			return nil
		case wrongSequence(err):
			var stored bool
			if stored, err = q.resolve(ctx, e); err == nil && stored {
				return nil
			}
		case unanswered(err):
			e.Spec.Again = true
			if err = q.lost(ctx, e, err); err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, errRepeat) {
			return explain(q.conn(), "put "+e.Spec.Task, err)
		}
	}
}

// errRepeat says that a put is to be repeated.
var errRepeat = errors.New("repeat")

// lost decides what to do about a put without an answer: nil if its job turns
// out to be stored, errRepeat if it is to be repeated, else why not.
func (q *Queue) lost(ctx context.Context, e Entry, err error) error {
	if permission := explain(q.conn(), "", err); errors.Is(permission, ErrPermission) {
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		if _, err := q.ns.Queue(ctx, q.names.queue); errors.Is(err, ErrNoQueue) {
			return err
		}
	}
	record, recordErr := q.ns.records.Latest(ctx, q.names.record(e.ID))
	if recordErr == nil && record.Value.Nonce == e.Spec.Nonce {
		return nil
	}
	return errRepeat
}

// resolve looks at the holder of an ID after the server refused to store a
// second job with it. stored says that the holder is this very job, stored by
// a try whose answer was lost. A nil error otherwise says that the holder is
// gone, and the put is to be repeated.
func (q *Queue) resolve(ctx context.Context, e Entry) (stored bool, err error) {
	found, err := q.Find(ctx, e.ID)
	if errors.Is(err, ErrNoJob) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// A body that cannot be read has a nonce too, made of its place.
	holder, _ := found.Spec()
	if holder.Nonce == e.Spec.Nonce {
		return true, nil
	}
	record, err := q.ns.records.Latest(ctx, q.names.record(e.ID))
	switch {
	case err == nil && record.Value.Nonce == holder.Nonce && record.Value.State.Final():
		// The holder is completed and its ack is on its way: remove what the
		// ack would remove.
		return false, q.remove(ctx, found.Sequence)
	case err == nil || errors.Is(err, kv.ErrNotFound):
		return false, &ExistsError{Queue: q.names.queue, ID: e.ID, Nonce: holder.Nonce}
	}
	return false, err
}

// publish sends one message and waits a while for its answer.
func (q *Queue) publish(ctx context.Context, msg *nats.Msg) error {
	try, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	_, err := q.ns.js.PublishMsg(try, msg)
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum {
		return &TooLargeError{What: "job", Size: msg.Size(), Max: q.maxMsgSize}
	}
	return err
}

// message makes the message of an entry, conditional on its ID being free.
func (q *Queue) message(e Entry) (*nats.Msg, error) {
	body, err := job.EncodeSpec(e.Spec)
	if err != nil {
		return nil, err
	}
	msg := nats.NewMsg(q.names.job(e.lane(), e.ID))
	msg.Data = body
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.Itoa(0))
	if e.Chosen {
		msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, q.names.anywhere(e.ID))
	}
	if limit := int(q.conn().MaxPayload()); msg.Size() > limit {
		return nil, &TooLargeError{What: "job", Size: msg.Size(), Max: limit}
	}
	return msg, nil
}

// PutMany stores jobs in atomic batches of up to [MaxBatch], in order. stored
// says how many, from the first on, were stored; where err is not nil the
// others were not, except after [ErrUnanswered], where the batch that follows
// may have been. Each batch is repeated as Put repeats a job.
func (q *Queue) PutMany(ctx context.Context, entries []Entry) (stored int, err error) {
	for len(entries) > 0 {
		batch := entries[:min(MaxBatch, len(entries))]
		if err := q.putBatch(ctx, batch); err != nil {
			return stored, err
		}
		stored += len(batch)
		entries = entries[len(batch):]
	}
	return stored, nil
}

// putBatch stores one batch, wholly or not at all.
func (q *Queue) putBatch(ctx context.Context, entries []Entry) error {
	if len(entries) == 1 {
		return q.Put(ctx, entries[0])
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	msgs := make([]*nats.Msg, len(entries))
	for again := false; ; again = true {
		for i, e := range entries {
			e.Spec.Again = e.Spec.Again || again
			if err := e.Spec.Check(); err != nil {
				return fmt.Errorf("put job %d of the batch: %w", i, err)
			}
			if err := q.Register(ctx, e.lane()); err != nil {
				return fmt.Errorf("put job %d of the batch: %w", i, err)
			}
			msg, err := q.message(e)
			if err != nil {
				return fmt.Errorf("put job %d of the batch: %w", i, err)
			}
			msgs[i] = msg
		}
		try, cancel := context.WithTimeout(ctx, tryPatience)
		_, err := jetstreamext.PublishMsgBatch(try, q.ns.js, msgs, jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: tryPatience})
		cancel()
		switch {
		case err == nil:
			return nil
		case wrongSequence(err):
			var stored bool
			if stored, err = q.resolveBatch(ctx, entries); err == nil && stored {
				return nil
			}
		case unanswered(err):
			// The batch is atomic: one of its jobs stands for all.
			if err = q.lost(ctx, entries[0], err); err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, errRepeat) {
			return explain(q.conn(), fmt.Sprintf("put a batch of %d jobs", len(entries)), err)
		}
	}
}

// resolveBatch finds which entry of a refused batch exists already; the server
// does not say.
func (q *Queue) resolveBatch(ctx context.Context, entries []Entry) (stored bool, err error) {
	for _, e := range entries {
		if stored, err := q.resolve(ctx, e); stored || err != nil {
			return stored, err
		}
	}
	return false, nil
}
