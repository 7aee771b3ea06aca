package stream

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
)

// PartRecord is a part of a whole, as far as it is known.
type PartRecord struct {
	Number int
	Queue  string
	ID     job.ID
	// Record is the zero Record of a part that has none: it is not put yet, or
	// waits to be given out, or runs for the first time.
	Record job.Record
}

// PartRecords reads the records of the parts of a job, of which record is the record,
// up to limit of them, in order.
func (q *Queue) PartRecords(ctx context.Context, record job.Record, limit int) ([]PartRecord, error) {
	if record.Parts == nil {
		return nil, nil
	}
	n := min(limit, record.Parts.Count)
	queues := append([]string{q.names.queue}, record.Parts.Queues...)
	keys := make([]string, 0, n*len(queues))
	for i := range n {
		for _, queue := range queues {
			keys = append(keys, names{q.names.namespace, queue}.record(record.Parts.PartID(i)))
		}
	}
	entries, err := q.latestRecords(ctx, keys)
	if err != nil {
		return nil, explain(q.conn(), fmt.Sprintf("read the parts of a job in queue %s", q.names.queue), err)
	}
	parts := make([]PartRecord, n)
	for i := range parts {
		parts[i] = PartRecord{Number: i, Queue: q.names.queue, ID: record.Parts.PartID(i)}
		for _, queue := range queues {
			entry := entries[names{q.names.namespace, queue}.record(parts[i].ID)]
			if entry.Value.Nonce == record.Parts.PartNonce(i) {
				parts[i].Queue, parts[i].Record = queue, entry.Value
			}
		}
	}
	return parts, nil
}
