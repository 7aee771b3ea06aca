package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// MaxBatch is how many jobs the server stores in one atomic batch.
const MaxBatch = 1000

// PutMany stores jobs in atomic batches of up to [MaxBatch], in order. stored
// says how many, from the first on, were stored; where err is not nil the
// others were not, except after [ErrUnanswered], where the batch that follows
// may have been. Each batch is repeated as Put repeats a job.
func (q *Queue) PutMany(ctx context.Context, entries []Entry) (stored int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for b := range q.batches(ctx, entries) {
		if b.err != nil {
			return stored, fmt.Errorf("put job %d: %w", stored, b.err)
		}
		if err := q.putBatch(ctx, b); err != nil {
			return stored, err
		}
		stored += len(b.entries)
	}
	if stored < len(entries) {
		return stored, explain(q.conn(), fmt.Sprintf("put job %d", stored), ctx.Err())
	}
	return stored, nil
}

// batch is jobs that are stored together.
type batch struct {
	entries []Entry
	msgs    []*nats.Msg
	err     error // of the first entry after it that cannot be put
}

// batches makes batches of entries, one while the one before is stored, until there is
// an error or ctx ends.
func (q *Queue) batches(ctx context.Context, entries []Entry) <-chan batch {
	made := make(chan batch)
	go func() {
		defer close(made)
		for len(entries) > 0 {
			b := q.nextBatch(entries)
			if b.err == nil {
				b.msgs, b.err = q.messagesOf(ctx, b.entries)
			}
			select {
			case made <- b:
			case <-ctx.Done():
				return
			}
			if b.err != nil {
				return
			}
			entries = entries[len(b.entries):]
		}
	}()
	return made
}

// nextBatch returns the first entries, prepared, that are stored as up to MaxBatch
// messages; one at least.
func (q *Queue) nextBatch(entries []Entry) (b batch) {
	size := 0
	for _, e := range entries {
		e, err := q.prepared(e)
		if err != nil {
			return batch{err: err}
		}
		if size += e.size(); size > MaxBatch && len(b.entries) > 0 {
			break
		}
		b.entries = append(b.entries, e)
	}
	return b
}

// messagesOf makes the messages of a batch, and registers its lanes. There are none for
// a single entry, which is put by itself.
func (q *Queue) messagesOf(ctx context.Context, entries []Entry) (msgs []*nats.Msg, err error) {
	if len(entries) == 1 {
		return nil, nil
	}
	for i, e := range entries {
		err := e.check()
		if err == nil {
			err = q.registerOf(ctx, e)
		}
		if err != nil {
			return nil, fmt.Errorf("job %d of the batch: %w", i, err)
		}
		made, err := q.messages(e, true)
		if err != nil {
			return nil, fmt.Errorf("job %d of the batch: %w", i, err)
		}
		msgs = append(msgs, made...)
	}
	return msgs, nil
}

// putBatch stores one batch, wholly or not at all.
func (q *Queue) putBatch(ctx context.Context, b batch) error {
	entries, msgs := b.entries, b.msgs
	if len(entries) == 1 {
		return q.Put(ctx, entries[0])
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	if err := q.distinct(entries); err != nil {
		return fmt.Errorf("put a batch of %d jobs: %w", len(entries), err)
	}
	for {
		err := q.setDeadlines(ctx, entries...)
		if err == nil {
			err = q.publishAll(ctx, msgs)
		}
		switch {
		case err == nil:
			return nil
		case kv.Refused(err):
			entries, err = q.missing(ctx, entries)
		case kv.Unanswered(err):
			entries, err = q.unrecorded(ctx, entries, msgs[0].Subject, err)
		}
		if err == nil && len(entries) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, errRepeat) {
			return explain(q.conn(), fmt.Sprintf("put a batch of %d jobs", len(entries)), err, msgs[0].Subject)
		}
		if entries = again(entries); len(entries) == 1 {
			return q.Put(ctx, entries[0])
		}
		if msgs, err = q.messagesOf(ctx, entries); err != nil {
			return fmt.Errorf("put a batch of %d jobs: %w", len(entries), err)
		}
	}
}

// again marks entries as put again, and leaves those that are given as they are.
func again(entries []Entry) []Entry {
	marked := slices.Clone(entries)
	for i := range marked {
		marked[i].Spec.Again = true
	}
	return marked
}

// distinct reports an ID that occurs twice. The server checks each message of a
// batch against what is stored, not against the batch.
func (q *Queue) distinct(entries []Entry) error {
	seen := make(map[job.ID]job.Nonce, len(entries))
	for _, e := range entries {
		if nonce, twice := seen[e.ID]; twice {
			return &ExistsError{Queue: q.names.queue, ID: e.ID, Nonce: nonce}
		}
		seen[e.ID] = e.Spec.Nonce
	}
	return nil
}

// unrecorded returns the entries of a batch without an answer that are to be put again;
// see [Queue.lost]. The first stands for all where it has no record. Where it has one, the
// batch may have been stored, or it was put alone by somebody else.
func (q *Queue) unrecorded(ctx context.Context, entries []Entry, subject string, why error) ([]Entry, error) {
	if err := q.lost(ctx, entries[0], subject, why); err != nil {
		return entries, err
	}
	var rest []Entry
	for _, e := range entries[1:] {
		switch err := q.lost(ctx, e, subject, why); {
		case errors.Is(err, errRepeat):
			rest = append(rest, e)
		case err != nil:
			return entries, err
		}
	}
	return rest, nil
}

// missing returns the entries of a refused batch that are not stored; the server
// does not say which was refused. Each is looked for: of a batch that another try has
// stored all are there, but parts of a composition are put by whoever goes on with it,
// some by one and some by another.
func (q *Queue) missing(ctx context.Context, entries []Entry) ([]Entry, error) {
	var rest []Entry
	for _, e := range entries {
		stored, err := q.resolve(ctx, e)
		if err != nil {
			return entries, err
		}
		if !stored {
			rest = append(rest, e)
		}
	}
	return rest, nil
}
