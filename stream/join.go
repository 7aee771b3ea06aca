package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	_ = w.q.Announce(w.id, w.record) // who misses it reads the record
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
	var records []PartRecord
	var outcomes []job.Outcome
	limit := int(w.q.conn().MaxPayload())
	size := 0
	for page, err := range w.q.partPages(ctx, parts, parts.Count) {
		if err != nil {
			return job.Outcome{}, err
		}
		for _, part := range page {
			outcome := outcomeOf(part)
			outcomes = append(outcomes, outcome)
			size += sizeOf(outcome)
		}
		if size > mostJoined*limit {
			return job.Outcome{Failure: job.Invalidf("outcomes of its first %d parts: %v", len(outcomes), &TooLargeError{What: "result", Size: size, Max: limit})}, nil
		}
		records = append(records, page...)
	}
	w.joined = records
	list, err := job.OutcomesValue(outcomes)
	if parts.Form == job.FormBroadcast {
		list, err = job.OutcomesByName(parts.To, outcomes)
	}
	if err != nil {
		return job.Outcome{Failure: job.Invalidf("outcomes of its parts: %v", err)}, nil
	}
	return job.Outcome{Result: list}, nil
}

// mostJoined is how many times larger than a message the results of parts may be
// together before they are joined: those that are JSON are smaller then.
const mostJoined = 4

// sizeOf is about how many bytes an outcome has.
func sizeOf(o job.Outcome) int {
	if o.Failure != nil {
		return len(o.Failure.Message) + len(o.Failure.Stack)
	}
	return len(o.Result.Data)
}

// outcomeOf reads the outcome of a part that is completed.
func (w *whole) outcomeOf(ctx context.Context, i int) (job.Outcome, error) {
	parts, err := w.q.partRecords(ctx, *w.record.Parts, i, i+1)
	if err != nil {
		return job.Outcome{}, err
	}
	return outcomeOf(parts[0]), nil
}

// outcomeOf is the outcome in the record of a part, which is there unless somebody
// removed it.
func outcomeOf(part PartRecord) job.Outcome {
	if part.Record.Outcome == nil {
		return job.Outcome{Failure: job.Invalidf("the record of part %s was removed", part.ID)}
	}
	return *part.Record.Outcome
}

// damaged is the error of a whole that cannot go on by itself, since somebody has
// removed what it needs.
func (w *whole) damaged(err error) error {
	if !errors.Is(err, errPartsGone) {
		return err
	}
	return fmt.Errorf("%w; cancel the job, or put it anew", err)
}

// cancelledAtOnce is how many parts are cancelled before that is noted.
const cancelledAtOnce = 500

// cancelParts cancels the parts that may have been put and are not completed, and notes
// how far it has come: whoever goes on does not begin anew.
func (w *whole) cancelParts(ctx context.Context) error {
	if w.record.Parts == nil {
		return nil
	}
	for undone := w.record.Parts.Undone(putAtOnce); len(undone) > 0; {
		some := undone[:min(len(undone), cancelledAtOnce)]
		if err := each(some, func(i int) error { return w.cancelPart(ctx, i) }); err != nil {
			return err
		}
		if undone = undone[len(some):]; len(undone) == 0 {
			return nil
		}
		parts := *w.record.Parts
		parts.Stopped = undone[0]
		w.record.Parts = &parts
		if err := w.write(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cancelPart cancels a part that nobody waits for any more, in whichever queue it is:
// its call may be gone, where that was stored beside another job.
func (w *whole) cancelPart(ctx context.Context, i int) error {
	how := cancelling()
	how.over = true
	for _, name := range w.partQueues() {
		queue, err := w.q.ns.opened(ctx, w.q, name)
		if err == nil {
			_, err = queue.stop(ctx, w.record.Parts.PartID(i), w.record.Parts.PartNonce(i), how)
		}
		if err != nil && !errors.Is(err, ErrNoJob) && !errors.Is(err, ErrCompleted) && !errors.Is(err, ErrNoQueue) {
			return err
		}
	}
	return nil
}

// partQueues are the queues that parts may be on.
func (w *whole) partQueues() []string {
	return append([]string{w.q.names.queue}, w.record.Parts.Queues...)
}

// eachAtOnce is how many things are done at once that wait for the server.
const eachAtOnce = 64

// each does something to several things at once, and returns the first error.
func each[T any](things []T, do func(T) error) error {
	var doing sync.WaitGroup
	places := make(chan struct{}, eachAtOnce)
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
	keep, err := w.keepParts(ctx)
	if err != nil {
		return err
	}
	pages := w.q.partPages(ctx, *w.record.Parts, w.record.Parts.Begun(putAtOnce))
	if w.joined != nil {
		pages = func(yield func([]PartRecord, error) bool) { yield(w.joined, nil) }
	}
	for page, err := range pages {
		if err == nil {
			err = w.releaseSome(ctx, page, keep)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// releaseSome releases some parts of a whole, whose records live so long from now on.
func (w *whole) releaseSome(ctx context.Context, parts []PartRecord, keep time.Duration) error {
	parts = slices.DeleteFunc(parts, func(p PartRecord) bool { return !p.Record.State.Final() })
	for _, part := range parts {
		if part.Record.Parts == nil {
			continue
		}
		queue, err := w.q.ns.opened(ctx, w.q, part.Queue)
		if errors.Is(err, ErrNoQueue) {
			continue // with it its records went
		}
		if err != nil {
			return err
		}
		nested := &whole{q: queue, record: part.Record, spec: job.Spec{Keep: w.spec.Keep}}
		if err := nested.releaseParts(ctx); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(parts, releaseAtOnce) {
		writes := make([]kv.Write[job.Record], len(some))
		for i, p := range some {
			writes[i] = kv.Write[job.Record]{Key: names{w.q.names.namespace, p.Queue}.record(p.ID), Value: p.Record, Revision: p.revision}
		}
		if err := w.q.updateEach(ctx, writes, keep); err != nil {
			return fmt.Errorf("release the parts of job %s: %w", w.id, err)
		}
	}
	return nil
}

// updateEach has records live for so long. One that is refused somebody else has
// released.
func (q *Queue) updateEach(ctx context.Context, writes []kv.Write[job.Record], keep time.Duration) error {
	ctx, cancel := briefly(ctx)
	defer cancel()
	_, err := q.records.UpdateEach(ctx, writes, keep)
	return err
}

// keepParts is how long records of parts live from now on: as long as that of the
// whole, but long enough for a redelivery in the queue of any of them.
func (w *whole) keepParts(ctx context.Context) (time.Duration, error) {
	keep := w.q.keepFor(w.spec.Keep)
	for _, name := range w.record.Parts.Queues {
		queue, err := w.q.ns.opened(ctx, w.q, name)
		switch {
		case err == nil:
			keep = max(keep, queue.keepFor(w.spec.Keep))
		case !errors.Is(err, ErrNoQueue):
			return 0, err
		}
	}
	return keep, nil
}

// releaseAtOnce is how many records of parts are written before the answers are
// waited for.
const releaseAtOnce = 500

// disown has the record of a job for which nobody waits live as long as keep says.
func (q *Queue) disown(ctx context.Context, id job.ID, nonce job.Nonce, keep job.Keep) error {
	ctx, cancel := briefly(ctx)
	defer cancel()
	record, revision, found, err := q.Record(ctx, id)
	if err != nil || !found || record.Nonce != nonce || !record.State.Final() || !record.Parent.Waits() {
		return err
	}
	_, err = q.records.Update(ctx, q.names.record(id), record, revision, q.keepFor(keep))
	if errors.Is(err, kv.ErrConflict) {
		return nil
	}
	return err
}
