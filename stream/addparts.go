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
// another thing, and [ErrCompleted] where it has its outcome: the write of the record
// decides between this and the last part. The error is [ErrUnanswered] where the server
// did not answer in time: adding them again under the same name does no harm.
//
// A crash leaves a timer, by which a dispatcher puts what was added.
func (q *Queue) AddParts(ctx context.Context, id job.ID, nonce job.Nonce, name string, calls []job.Call) error {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	step := fmt.Sprintf("add %d parts to job %s in queue %s", len(calls), id, q.names.queue)
	for i, call := range calls {
		if err := call.Check(); err != nil {
			return fmt.Errorf("%s: part %d: %w", step, i, err)
		}
	}
	for {
		err := q.addParts(ctx, id, nonce, name, calls)
		again := kv.Unanswered(err) || errors.Is(err, ErrUnanswered)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil || !again && !errors.Is(err, kv.ErrConflict):
			return fmt.Errorf("%s: %w", step, err)
		case again:
			select {
			case <-ctx.Done():
			case <-time.After(tryPause):
			}
		}
	}
}

// addParts adds parts once. A composition that has not begun notes them, and begins
// with them in its time.
func (q *Queue) addParts(ctx context.Context, id job.ID, nonce job.Nonce, name string, calls []job.Call) error {
	record, revision, spec, err := q.wholeRecord(ctx, id, nonce)
	if err != nil || len(calls) == 0 {
		return err
	}
	chunks, beside := cut(id, record.Parts.Base, name, calls)
	grown, known := *record.Parts, false
	for _, chunk := range chunks {
		grown, known = grown.Grow(chunk)
	}
	if !known {
		if err := errors.Join(q.storeBeside(ctx, beside), q.setAdvance(ctx, id, record)); err != nil {
			return err
		}
		grown.Beside, grown.Queues = true, job.QueuesOf(grown.Queues, calls)
		record.Parts = &grown
		if _, err := q.Write(ctx, id, record, revision, spec.Keep); err != nil {
			return err
		}
	}
	if record.State == job.Pending {
		return nil
	}
	return q.advance(ctx, id, record.Nonce, time.Now())
}

// wholeRecord reads, or makes, the record of a composition that can grow.
func (q *Queue) wholeRecord(ctx context.Context, id job.ID, nonce job.Nonce) (record job.Record, revision uint64, spec job.Spec, err error) {
	message, stored, err := q.findLatest(ctx, id)
	if err != nil {
		return record, 0, spec, err
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
		return record, 0, spec, err
	case !stored && !found, !nonce.IsZero() && nonce != current:
		return record, 0, spec, ErrNoJob
	case known && record.State.Ended():
		return record, 0, spec, ErrCompleted
	case !known:
		record = q.recordOfMessage(message, spec, job.Record{})
	}
	if record.Parts == nil && spec.Parts != nil {
		parts := *spec.Parts
		parts.Base, parts.Calls = current, nil
		record.Parts = &parts
	}
	if record.Parts == nil || record.Parts.Form != job.FormParallel && record.Parts.Form != job.FormSerial {
		return record, 0, spec, ErrNoParts
	}
	return record, revision, spec, nil
}

// cut makes chunks of parts that are added under a name.
func cut(id job.ID, base job.Nonce, name string, calls []job.Call) (chunks []job.Chunk, beside []besides) {
	for first := 0; first < len(calls); {
		last, size := first, 0
		for last < len(calls) && (last == first || size < chunkBytes) {
			data, _ := job.EncodeCalls(calls[last : last+1]) // what cannot be encoded is refused when it is stored
			size += len(data)
			last++
		}
		b := besides{id, base, name + "-" + strconv.Itoa(first), calls[first:last]}
		chunks, beside = append(chunks, job.Chunk{Name: b.name, Count: last - first, Added: true}), append(beside, b)
		first = last
	}
	return chunks, beside
}
