package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// join records the outcome of a whole, which follows from those of its parts, and
// pays what it owes. One of those who try does the first.
func (w *whole) join(ctx context.Context) error {
	outcome, err := w.outcome(ctx)
	if err != nil {
		return err
	}
	return w.end(ctx, outcome)
}

// end records an outcome of a whole, and pays what it owes.
func (w *whole) end(ctx context.Context, outcome job.Outcome) error {
	if there, err := w.load(ctx); err != nil || !there {
		return err
	}
	w.record.State, w.record.Outcome, w.record.Ended = job.Callbacks, &outcome, time.Now()
	err := w.write(ctx)
	if errors.Is(err, ErrTooLarge) {
		w.record.Outcome = &job.Outcome{Failure: job.Invalidf("%v", err)}
		w.record.Outcome.Failure.At = w.record.Ended
		err = w.write(ctx)
	}
	if err != nil {
		return err
	}
	w.again = false
	return w.pay(ctx)
}

// outcome makes the outcome of a whole all of whose parts are completed.
func (w *whole) outcome(ctx context.Context) (job.Outcome, error) {
	parts := *w.record.Parts
	switch parts.Form {
	case job.FormThen, job.FormDelegate:
		return w.outcomeOf(ctx, parts.Count-1)
	}
	records, err := w.records(ctx, parts.Count)
	if err != nil {
		return job.Outcome{}, err
	}
	outcomes := make([]job.Outcome, parts.Count)
	for i, record := range records {
		outcomes[i] = outcomeOf(record, parts.PartID(i))
	}
	list, err := job.OutcomesValue(outcomes)
	if err != nil {
		return job.Outcome{Failure: job.Invalidf("outcomes of its parts: %v", err)}, nil
	}
	return job.Outcome{Result: list}, nil
}

// outcomeOf reads the outcome of a part that is completed.
func (w *whole) outcomeOf(ctx context.Context, i int) (job.Outcome, error) {
	call, err := w.calls().call(ctx, i)
	if err != nil {
		return job.Outcome{}, w.damaged(err)
	}
	id := w.record.Parts.PartID(i)
	entry, err := w.q.buckets.records.Latest(ctx, w.partNames(call).record(id))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return job.Outcome{}, fmt.Errorf("read the outcome of part %s: %w", id, err)
	}
	return outcomeOf(entry.Value, id), nil
}

// outcomeOf is the outcome in the record of a part, which is there unless somebody
// removed it.
func outcomeOf(record job.Record, id job.ID) job.Outcome {
	if record.Outcome == nil {
		return job.Outcome{Failure: job.Invalidf("the record of part %s was removed", id)}
	}
	return *record.Outcome
}

// damaged is the error of a whole that cannot go on by itself, since somebody has
// removed what it needs.
func (w *whole) damaged(err error) error {
	return fmt.Errorf("%w; cancel the job, or put it anew", err)
}

// records reads the records of the first n parts, in order; the zero Record where
// there is none.
func (w *whole) records(ctx context.Context, n int) ([]job.Record, error) {
	keys := make([]string, n)
	calls := w.calls()
	for i := range n {
		call, err := calls.call(ctx, i)
		if err != nil {
			return nil, w.damaged(err)
		}
		keys[i] = w.partNames(call).record(w.record.Parts.PartID(i))
	}
	entries, err := w.q.latestRecords(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read the records of its parts: %w", err)
	}
	records := make([]job.Record, n)
	for i, key := range keys {
		if entry := entries[key]; entry.Value.Nonce == w.record.Parts.PartNonce(i) {
			records[i] = entry.Value
		}
	}
	return records, nil
}

// cancelAtOnce is how many parts are cancelled, or released, at once.
const cancelAtOnce = 16

// cancelParts cancels the parts that may have been put and are not completed.
func (w *whole) cancelParts(ctx context.Context) error {
	if w.record.Parts == nil {
		return nil
	}
	var undone []part
	calls := w.calls()
	for _, i := range w.record.Parts.Undone() {
		call, err := calls.call(ctx, i)
		if errors.Is(err, errPartsGone) {
			break // they were never put
		}
		if err != nil {
			return err
		}
		undone = append(undone, part{i, call})
	}
	return each(undone, func(p part) error { return w.cancelPart(ctx, p.call, p.number) })
}

// cancelPart cancels a part that nobody waits for any more.
func (w *whole) cancelPart(ctx context.Context, call job.Call, i int) error {
	queue, err := w.partQueue(ctx, call)
	if err == nil {
		how := cancelling()
		how.over = true
		_, err = queue.stop(ctx, w.record.Parts.PartID(i), w.record.Parts.PartNonce(i), how)
	}
	if errors.Is(err, ErrNoJob) || errors.Is(err, ErrCompleted) || errors.Is(err, ErrNoQueue) {
		return nil
	}
	return err
}

// each does something to several things at once, and returns the first error.
func each[T any](things []T, do func(T) error) error {
	var doing sync.WaitGroup
	places := make(chan struct{}, cancelAtOnce)
	var mu sync.Mutex
	var first error
	for _, thing := range things {
		places <- struct{}{}
		doing.Go(func() {
			defer func() { <-places }()
			if err := do(thing); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = err
				}
			}
		})
	}
	doing.Wait()
	return first
}

// release has the records of the parts of a whole, and of theirs, live as long as
// its own.
func (w *whole) release(ctx context.Context) error {
	if err := w.q.disown(ctx, w.id, w.nonce, w.spec.Keep); err != nil {
		return err
	}
	if w.record.Parts == nil {
		return nil
	}
	return w.releaseParts(ctx)
}

// releaseParts releases the parts of a whole. One that is not completed yet finds
// out by itself that nobody waits for it.
func (w *whole) releaseParts(ctx context.Context) error {
	parts := *w.record.Parts
	keys, calls := make(map[string]job.Call), w.calls()
	var list []string
	for i := range parts.Count {
		call, err := calls.call(ctx, i)
		if errors.Is(err, errPartsGone) {
			break // released before
		}
		if err != nil {
			return err
		}
		key := w.partNames(call).record(parts.PartID(i))
		keys[key], list = call, append(list, key)
	}
	entries, err := w.q.latestRecords(ctx, list)
	if err != nil {
		return err
	}
	ttl := w.q.keepFor(w.spec.Keep)
	var nested []*whole
	var final []kv.Entry[job.Record]
	for i, key := range list {
		entry := entries[key]
		if entry.Value.Nonce != parts.PartNonce(i) || !entry.Value.State.Final() {
			continue
		}
		final = append(final, entry)
		if entry.Value.Parts != nil {
			queue, err := w.partQueue(ctx, keys[key])
			if err != nil {
				continue // with its queue its records are gone
			}
			nested = append(nested, &whole{q: queue, id: parts.PartID(i), nonce: parts.PartNonce(i), record: entry.Value, spec: job.Spec{Keep: w.spec.Keep}})
		}
	}
	for _, n := range nested {
		if err := errors.Join(n.releaseParts(ctx), n.purgeParts(ctx)); err != nil {
			return err
		}
	}
	return each(final, func(e kv.Entry[job.Record]) error {
		_, err := w.q.buckets.records.Update(ctx, e.Key, e.Value, e.Revision, ttl)
		if errors.Is(err, kv.ErrConflict) {
			return nil // the ID was used again, or somebody else has released it
		}
		return err
	})
}

// disown has the record of a job for which nobody waits live as long as keep says.
func (q *Queue) disown(ctx context.Context, id job.ID, nonce job.Nonce, keep job.Keep) error {
	record, revision, found, err := q.Record(ctx, id)
	if err != nil || !found || record.Nonce != nonce || !record.State.Final() || !record.Parent.Waits() {
		return err
	}
	_, err = q.buckets.records.Update(ctx, q.names.record(id), record, revision, q.keepFor(keep))
	if errors.Is(err, kv.ErrConflict) {
		return nil
	}
	return err
}
