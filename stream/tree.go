package stream

import (
	"context"
	"fmt"
	"iter"

	"github.com/asyncnats/asyncnats/job"
)

// PartRecord is a part of a whole, as far as it is known.
type PartRecord struct {
	Number int
	Queue  string
	ID     job.ID
	// Record is the zero Record, of Version 0, of a part that has none: it is not put
	// yet, or waits to be given out, or runs for the first time.
	Record job.Record

	revision uint64
}

// PartRecords reads the records of the parts of a job, of which record is the record,
// up to limit of them, in order.
func (q *Queue) PartRecords(ctx context.Context, record job.Record, limit int) ([]PartRecord, error) {
	if record.Parts == nil {
		return nil, nil
	}
	return q.partRecords(ctx, *record.Parts, 0, min(limit, record.Parts.Count))
}

// partsAtOnce is how many records of parts are held at a time, each of which may be as
// large as a message.
const partsAtOnce = 100

// partPages reads the records of the first parts of a job of the queue, up to another,
// some at a time.
func (q *Queue) partPages(ctx context.Context, parts job.Parts, to int) iter.Seq2[[]PartRecord, error] {
	return func(yield func([]PartRecord, error) bool) {
		for from := 0; from < to; from += partsAtOnce {
			page, err := q.partRecords(ctx, parts, from, min(from+partsAtOnce, to))
			if !yield(page, err) || err != nil {
				return
			}
		}
	}
}

// partRecords reads the records of the parts of a job of the queue, from one up to
// another.
func (q *Queue) partRecords(ctx context.Context, parts job.Parts, from, to int) ([]PartRecord, error) {
	queues := append([]string{q.names.queue}, parts.Queues...)
	var keys [][]string
	for i := from; i < to; i++ {
		var places []string
		for _, queue := range queues {
			places = append(places, names{q.names.namespace, queue}.record(parts.PartID(i)))
		}
		keys = append(keys, places)
	}
	entries, err := q.latestRecords(ctx, keys)
	if err != nil {
		return nil, explain(q.conn(), fmt.Sprintf("read the records of parts in queue %s", q.names.queue), err)
	}
	found := make([]PartRecord, to-from)
	for i := range found {
		number := from + i
		found[i] = PartRecord{Number: number, Queue: q.names.queue, ID: parts.PartID(number)}
		for _, queue := range queues {
			entry := entries[names{q.names.namespace, queue}.record(found[i].ID)]
			if entry.Value.Nonce == parts.PartNonce(number) {
				found[i].Queue, found[i].Record, found[i].revision = queue, entry.Value, entry.Revision
			}
		}
	}
	return found, nil
}

// WholeRecord reads the record of a job that waits for parts, or has waited, or makes
// the record that it begins with. nonce is that of the job meant, or zero for whichever
// has the ID. It returns [ErrNoJob] where there is no such job, and [ErrNoParts] where
// it has none.
func (q *Queue) WholeRecord(ctx context.Context, id job.ID, nonce job.Nonce) (job.Record, error) {
	record, _, found, err := q.PeekRecord(ctx, id)
	if err == nil && found && record.Parts != nil && (nonce.IsZero() || record.Nonce == nonce) {
		return record, nil
	}
	message, stored, err := q.findLatest(ctx, id)
	if err != nil {
		return job.Record{}, err
	}
	spec, _ := message.Spec() // one that cannot be read has no parts
	switch {
	case stored && (nonce.IsZero() || spec.Nonce == nonce) && spec.Parts != nil:
		parts := *spec.Parts
		parts.Base = spec.Nonce
		record = q.recordOfMessage(message, spec, job.Record{})
		record.Parts = &parts
		return record, nil
	case stored && (nonce.IsZero() || spec.Nonce == nonce):
		return job.Record{}, ErrNoParts
	}
	// Its message is gone, so the leader has its record.
	record, _, found, err = q.Record(ctx, id)
	switch {
	case err != nil:
		return job.Record{}, err
	case !found || !nonce.IsZero() && record.Nonce != nonce:
		return job.Record{}, fmt.Errorf("job %s in queue %s: %w", id, q.names.queue, ErrNoJob)
	case record.Parts == nil:
		return job.Record{}, ErrNoParts
	}
	return record, nil
}
