package asyncnats

import (
	"context"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// lookInto is up to how many parts of a whole are looked into for parts of their own.
const lookInto = 100

// wholeProgress is how many parts of a job are completed, and of how many. Parts that
// are compositions count as many as they have, once they have begun, where their whole
// has up to a hundred parts. ok is false for a job that waits for none.
func (j *Job[R]) wholeProgress(ctx context.Context) (p Progress, ok bool, err error) {
	opened, err := j.queue.open(ctx)
	if err != nil {
		return p, false, err
	}
	record, _, found, err := opened.PeekRecord(ctx, j.id)
	if err != nil || !found || record.Nonce != j.nonce || record.Parts == nil {
		return p, false, err
	}
	p.Done, p.Total, err = j.queue.countParts(ctx, opened, record)
	return p, err == nil, err
}

func (q *Queue) countParts(ctx context.Context, opened *stream.Queue, record job.Record) (done, total int64, err error) {
	parts := record.Parts
	if parts.Count > lookInto {
		return int64(parts.Completed()), int64(parts.Count), nil
	}
	found, err := opened.PartRecords(ctx, record, parts.Count)
	if err != nil {
		return 0, 0, err
	}
	for _, part := range found {
		if part.Record.Parts == nil {
			total++
			if parts.IsDone(part.Number) {
				done++
			}
			continue
		}
		at, err := q.client.Queue(part.Queue).open(ctx)
		if err != nil {
			return 0, 0, err
		}
		d, t, err := q.countParts(ctx, at, part.Record)
		if err != nil {
			return 0, 0, err
		}
		done, total = done+d, total+t
	}
	return done, total, nil
}
