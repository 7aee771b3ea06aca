package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// AddParts adds parts to a parallel or serial that is not over: they are its last
// ones. name tells this adding from others: parts that were added under it are not
// added again. nonce is that of the job meant, or zero for whichever has the ID.
//
// It returns [ErrNoJob] where there is no such job, [ErrNoParts] where the job is
// another thing, [ErrTooLarge] where parts were added so often that its record has no
// room for more, and [ErrCompleted] where it has its outcome: the write of the record
// decides between this and the last part. The error is [ErrUnanswered] where the server
// did not answer in time: adding them again under the same name does no harm.
//
// A crash leaves a timer, by which a dispatcher puts what was added; or, before, what was
// stored of the parts.
func (q *Queue) AddParts(ctx context.Context, id job.ID, nonce job.Nonce, name string, calls []job.Call) error {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	step := fmt.Sprintf("add %d parts to job %s in queue %s", len(calls), id, q.names.queue)
	for i, call := range calls {
		if err := call.Check(); err != nil {
			return fmt.Errorf("%s: part %d: %w", step, i, err)
		}
	}
	adding := adding{name: name, own: job.NewNonce(), calls: calls}
	if err := persist(ctx, func() error { return q.addPartsOf(ctx, id, nonce, &adding) }); err != nil {
		if !adding.lost {
			q.dropChunks(adding.beside)
		}
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

// adding is parts that are added to a composition.
type adding struct {
	name string
	// own tells what is stored by this call from what another attempt has stored
	// under the same name, which may be something else.
	own    job.Nonce
	calls  []job.Call
	beside []besides // what was stored; nil for nothing
	lost   bool      // the answer to a write that adds it may be
}

// prefix is how the names of all chunks begin that were added under a name.
func (a *adding) prefix() string { return a.name + "-" }

// cut makes chunks of the parts, of up to most bytes where they are several.
func (a *adding) cut(id job.ID, base job.Nonce, most int) (chunks []job.Chunk, beside []besides) {
	sizes := make([]int, len(a.calls))
	for i := range a.calls {
		data, _ := job.EncodeCalls(a.calls[i : i+1]) // what cannot be encoded is refused when it is stored
		sizes[i] = len(data)
	}
	for first, last := range divide(sizes, most) {
		b := besides{id, base, a.prefix() + a.own.String() + "-" + strconv.Itoa(first), a.calls[first:last]}
		chunks, beside = append(chunks, job.Chunk{Name: b.name, Count: last - first, Added: true}), append(beside, b)
	}
	return chunks, beside
}

// addPartsOf adds parts once. A composition that has not begun notes them, and begins
// with them in its time.
func (q *Queue) addPartsOf(ctx context.Context, id job.ID, nonce job.Nonce, a *adding) error {
	message, record, revision, spec, err := q.wholeRecord(ctx, id, nonce)
	switch {
	case errors.Is(err, ErrCompleted) && record.Parts != nil && record.Parts.Added(a.prefix()):
		return nil // by a write whose answer was lost, or another attempt
	case errors.Is(err, ErrCompleted), errors.Is(err, ErrNoJob):
		q.dropChunks(a.beside)
		return err
	case err != nil || len(a.calls) == 0:
		return err
	}
	if !record.Parts.Added(a.prefix()) {
		chunks, beside := a.cut(id, record.Parts.Base, q.chunkSize())
		grown := record.Parts.Grow(chunks...)
		grown.Beside, grown.Queues = true, job.QueuesOf(grown.Queues, a.calls)
		record.Parts = &grown
		if err := q.checkGrown(record); err != nil {
			q.dropChunks(a.beside)
			return err
		}
		a.beside = beside
		if err := q.storeBeside(ctx, beside); err != nil {
			return err
		}
		if record.State == job.Waiting {
			if err := q.setAdvance(ctx, id, message, spec, record, true); err != nil {
				return err
			}
		}
		w := &whole{q: q, id: id, record: record, revision: revision, spec: spec}
		if err := w.write(ctx); err != nil {
			a.lost = a.lost || !errors.Is(err, kv.ErrConflict)
			return err
		}
		a.beside = nil
	}
	if record.State == job.Pending {
		return nil
	}
	return q.advance(ctx, id, record.Nonce, time.Now())
}

// grownShare is which part of what a message holds the record of a composition may
// take that parts were added to: the outcome lies in it beside their chunks.
const grownShare = 2

// checkGrown reports parts that leave too little room for the outcome of their whole.
func (q *Queue) checkGrown(record job.Record) error {
	if record.Parts.Count > job.MaxParts {
		return fmt.Errorf("composition is %w: it would have %d parts, and may have %d: put another composition", ErrTooLarge, record.Parts.Count, job.MaxParts)
	}
	data, err := job.EncodeRecord(record)
	if err != nil {
		return err
	}
	size := len(data) + record.Parts.Count/8 // the bits, most of which are to come
	if limit := int(q.conn().MaxPayload()) / grownShare; size > limit {
		return fmt.Errorf("composition is %w: its record would have %d bytes, and may have %d before it is over, some for each time that parts were added: add more of them at a time, or put another composition",
			ErrTooLarge, size, limit)
	}
	return nil
}

// dropChunks removes what was stored of parts that were not added, and does not wait
// for that: what is left goes with the queue.
func (q *Queue) dropChunks(beside []besides) {
	for _, b := range beside {
		q.dropSubject(q.names.chunk(b.owner, b.base, b.name))
	}
}

// wholeRecord reads, or makes, the record of a composition that can grow.
func (q *Queue) wholeRecord(ctx context.Context, id job.ID, nonce job.Nonce) (message Stored, record job.Record, revision uint64, spec job.Spec, err error) {
	ctx, cancel := briefly(ctx)
	defer cancel()
	message, stored, err := q.findLatest(ctx, id)
	if err != nil {
		return message, record, 0, spec, err
	}
	spec, _ = message.Spec() // one that cannot be read has a nonce too
	record, revision, found, err := q.Record(ctx, id)
	current := spec.Nonce
	if !stored {
		current = record.Nonce
	}
	known := found && record.Nonce == current
	switch {
	case err != nil:
		return message, record, 0, spec, err
	case !stored && !found, !nonce.IsZero() && nonce != current:
		return message, record, 0, spec, ErrNoJob
	case known && record.State.Ended():
		return message, record, 0, spec, ErrCompleted
	case !known:
		record = q.recordOfMessage(message, spec, job.Record{})
	}
	if record.Parts == nil && spec.Parts != nil {
		parts := *spec.Parts
		parts.Base, parts.Calls = current, nil
		record.Parts = &parts
	}
	if record.Parts == nil || record.Parts.Form != job.FormParallel && record.Parts.Form != job.FormSerial {
		return message, record, 0, spec, ErrNoParts
	}
	return message, record, revision, spec, nil
}
