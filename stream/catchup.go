package stream

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// mostCaughtUp is how many broadcasts of the past a dispatcher performs at most.
const mostCaughtUp = 10_000

// CatchUp puts, for one dispatcher, the broadcasts of these tasks that were put since
// then and that it was not to perform, the oldest first, and returns how many they are.
// One that is to begin later is put for then, and stays if it is cancelled. CatchUp may
// be repeated: each is put once, as long as the record of its copy is kept.
func (q *Queue) CatchUp(ctx context.Context, dispatcher string, tasks []string, since time.Time) (int, error) {
	missed := func(r KeptRecord) bool {
		parts := r.Record.Parts
		return parts != nil && parts.Form == job.FormBroadcast && len(parts.Calls) == 1 && !r.Record.Put.Before(since) &&
			slices.Contains(tasks, parts.Calls[0].Task) && !slices.Contains(parts.To, dispatcher)
	}
	step := "look for past broadcasts of queue " + q.names.queue
	// Before the records: one that begins, or ends, meanwhile is found twice, not missed.
	past, begins, err := q.notOver(ctx)
	if err != nil {
		return 0, explain(q.conn(), step, err)
	}
	begun, err := q.Recent(ctx, mostCaughtUp, missed)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", step, err)
	}
	past = append(slices.DeleteFunc(past, func(r KeptRecord) bool { return !missed(r) }), begun...)
	slices.SortFunc(past, func(a, b KeptRecord) int {
		return cmp.Or(a.Record.Put.Compare(b.Record.Put), bytes.Compare(a.Record.Nonce[:], b.Record.Nonce[:]))
	})
	past = slices.CompactFunc(past, func(a, b KeptRecord) bool { return a.Record.Nonce == b.Record.Nonce })
	put := 0
	for _, kept := range past {
		now, begin := time.Now(), begins[kept.Record.Nonce]
		spec := kept.Record.Parts.Calls[0].Spec(later(now, begin))
		spec.Nonce, spec.Again, spec.To = kept.Record.Nonce.CopyNonce(dispatcher), true, dispatcher
		spec.By, spec.At, spec.Begin = kept.Record.By, now, later(spec.Begin, begin)
		if err := q.Put(ctx, Entry{ID: kept.Record.Nonce.CopyID(dispatcher), Spec: spec}); err != nil {
			return put, fmt.Errorf("put broadcast %s for dispatcher %s: %w", kept.ID, dispatcher, err)
		}
		put++
	}
	return put, nil
}

// notOver lists the broadcasts that are not completed and were put for certain
// dispatchers, each with the record that it has, or would have, when it begins, and
// when that is.
func (q *Queue) notOver(ctx context.Context) (broadcasts []KeptRecord, begins map[job.Nonce]time.Time, err error) {
	lane := LaneOf(string(job.FormBroadcast), nil, job.Normal)
	messages, err := q.read(ctx, q.names.stream(), q.names.wait(lane, "*"), 1, mostCaughtUp)
	if err != nil {
		return nil, nil, err
	}
	begins = make(map[job.Nonce]time.Time)
	for _, message := range messages {
		stored, err := q.stored(message)
		if err != nil {
			continue // a stray: Info counts those
		}
		spec, err := stored.Spec()
		if err != nil || spec.Parts == nil || !spec.Parts.Addressed {
			continue // its dispatchers are known when it begins
		}
		record := q.recordOfMessage(stored, spec, job.Record{})
		record.Parts = spec.Parts
		broadcasts, begins[spec.Nonce] = append(broadcasts, KeptRecord{stored.ID, record}), spec.Begin
	}
	return broadcasts, begins, nil
}
