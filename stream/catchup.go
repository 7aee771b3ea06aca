package stream

import (
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
// It may be repeated: each is put once, as long as the record of its copy is kept.
func (q *Queue) CatchUp(ctx context.Context, dispatcher string, tasks []string, since time.Time) (int, error) {
	past, err := q.Recent(ctx, mostCaughtUp, func(r KeptRecord) bool {
		parts := r.Record.Parts
		return parts != nil && parts.Form == job.FormBroadcast && len(parts.Calls) == 1 && !r.Record.Put.Before(since) &&
			slices.Contains(tasks, parts.Calls[0].Task) && !slices.Contains(parts.To, dispatcher)
	})
	if err != nil {
		return 0, fmt.Errorf("look for past broadcasts of queue %s: %w", q.names.queue, err)
	}
	slices.SortStableFunc(past, func(a, b KeptRecord) int { return a.Record.Put.Compare(b.Record.Put) })
	put := 0
	for _, kept := range past {
		now := time.Now()
		spec := kept.Record.Parts.Calls[0].Spec(now)
		spec.Nonce, spec.Again, spec.To = kept.Record.Nonce.CopyNonce(dispatcher), true, dispatcher
		spec.By, spec.At = kept.Record.By, now
		if err := q.Put(ctx, Entry{ID: kept.Record.Nonce.CopyID(dispatcher), Spec: spec}); err != nil {
			return put, fmt.Errorf("put broadcast %s for dispatcher %s: %w", kept.ID, dispatcher, err)
		}
		put++
	}
	return put, nil
}
