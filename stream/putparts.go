package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// putAtOnce is how many parts are put before that is noted.
const putAtOnce = 1000

// putNext puts the parts whose turn it is.
func (w *whole) putNext(ctx context.Context) error {
	if w.record.Parts.Count == 0 {
		return w.join(ctx)
	}
	if w.record.Parts.Sequential() {
		return w.putStep(ctx)
	}
	return w.putParallel(ctx)
}

// putStep puts the first part of a sequence that is not completed. Where one was
// to give it its argument, and failed, it ends the whole.
func (w *whole) putStep(ctx context.Context) error {
	if there, err := w.load(ctx); err != nil || !there {
		return err
	}
	i := w.record.Parts.First()
	call, err := w.calls().call(ctx, i)
	if err != nil {
		return w.damaged(err)
	}
	if w.record.Parts.Form == job.FormThen && i > 0 {
		before, err := w.outcomeOf(ctx, i-1)
		if err != nil {
			return err
		}
		if !before.Succeeded() {
			return w.end(ctx, before)
		}
		if call, err = call.Take(before.Result); err != nil {
			return w.end(ctx, job.Outcome{Failure: job.Invalidf("argument of part %d: %v", i, err)})
		}
	}
	refused, err := w.put(ctx, []part{{i, call}})
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		return w.goOn(ctx, refused)
	}
	return w.stillWaited(ctx, []part{{i, call}})
}

// putParallel puts the parts that were not put yet, some at a time, and notes each
// time how far it has come.
func (w *whole) putParallel(ctx context.Context) error {
	if there, err := w.load(ctx); err != nil || !there {
		return err
	}
	for {
		p, calls := *w.record.Parts, w.calls() // some may be added meanwhile
		if p.Put >= p.Count {
			return nil
		}
		var next []part
		for i := p.Put; i < min(p.Count, p.Put+putAtOnce); i++ {
			call, err := calls.call(ctx, i)
			if err != nil {
				return w.damaged(err)
			}
			if !p.IsDone(i) {
				next = append(next, part{i, call})
			}
		}
		upTo := min(p.Count, p.Put+putAtOnce)
		refused, err := w.put(ctx, next)
		if err != nil {
			return err
		}
		if over, err := w.notePut(ctx, upTo, refused); err != nil {
			return err
		} else if over {
			return w.cancelPut(ctx, next)
		}
		if w.record.Parts.AllDone() {
			return w.join(ctx)
		}
	}
}

// notePut notes that the parts up to a number were put, and that some of them are
// over already. over says that the whole is.
func (w *whole) notePut(ctx context.Context, upTo int, done []int) (over bool, err error) {
	for {
		parts, _ := w.record.Parts.SetDone(done...)
		parts.Put = max(parts.Put, upTo)
		w.record.Parts = &parts
		err := w.write(ctx)
		if !errors.Is(err, kv.ErrConflict) {
			return false, err
		}
		if over, err := w.reread(ctx); over || err != nil {
			return over, err
		}
	}
}

// reread reads the record again, which others have written: they may put the same
// parts. over says that the whole waits no more.
func (w *whole) reread(ctx context.Context) (over bool, err error) {
	now := &whole{q: w.q, id: w.id}
	found, err := now.read(ctx)
	if err != nil {
		return false, err
	}
	if !found || now.record.Nonce != w.nonce || now.record.State != job.Waiting {
		return true, nil
	}
	w.record, w.revision, w.again = now.record, now.revision, true
	return false, nil
}

// stillWaited cancels parts that were just put where the whole was cancelled
// meanwhile: whoever did that may have looked for them before they were there.
//
// A crash before leaves parts that run for nobody.
func (w *whole) stillWaited(ctx context.Context, put []part) error {
	over, err := w.reread(ctx)
	if err != nil || !over {
		return err
	}
	return w.cancelPut(ctx, put)
}

func (w *whole) cancelPut(ctx context.Context, put []part) error {
	return each(put, func(p part) error {
		if w.record.Parts.IsDone(p.number) {
			return nil
		}
		return w.cancelPart(ctx, p.number)
	})
}

// part is a part of a whole, with its argument.
type part struct {
	number int
	call   job.Call
}

// put puts parts of the whole. refused are those that cannot be put, or could not be
// when somebody else tried: they have their outcome by that.
func (w *whole) put(ctx context.Context, parts []part) (refused []int, err error) {
	byQueue := make(map[string][]part)
	var queues []string
	for _, p := range parts {
		name := w.partNames(p.call).queue
		if byQueue[name] == nil {
			queues = append(queues, name)
		}
		byQueue[name] = append(byQueue[name], p)
	}
	for _, name := range queues {
		var entries []Entry
		for _, p := range byQueue[name] {
			e := w.entry(p)
			there, over, err := w.q.hasDeadline(ctx, name, e)
			switch {
			case err != nil:
				return nil, err
			case over:
				refused = append(refused, p.number)
			case !there:
				entries = append(entries, e)
			}
		}
		bad, err := w.q.putGiven(ctx, name, entries)
		if err != nil {
			return nil, err
		}
		for _, i := range bad {
			refused = append(refused, entries[i].Spec.Parent.Number)
		}
	}
	return refused, nil
}

// entry makes the entry of a part.
func (w *whole) entry(p part) Entry {
	now := time.Now()
	spec := p.call.Spec(now)
	spec.Nonce, spec.Again = w.record.Parts.PartNonce(p.number), w.again
	spec.By, spec.At, spec.Trace = w.spec.By, now, w.spec.Trace
	if w.record.Parts.Form == job.FormBroadcast {
		spec.To = w.record.Parts.To[p.number]
	}
	spec.Parent = &job.Parent{Queue: w.q.names.queue, ID: w.id, Nonce: w.nonce, Number: p.number}
	return Entry{ID: w.record.Parts.PartID(p.number), Spec: spec}
}

// calls reads the parts of the whole, which is loaded.
func (w *whole) calls() *partsOf {
	parts := *w.record.Parts
	if w.spec.Parts != nil { // the record of a composition does not repeat them
		parts.Calls = w.spec.Parts.Calls
	}
	return &partsOf{queue: w.q, id: w.id, parts: parts}
}

// partNames makes the names of the queue that a part is in.
func (w *whole) partNames(call job.Call) names {
	if call.Queue == "" {
		return w.q.names
	}
	return names{w.q.names.namespace, call.Queue}
}

// putGiven puts jobs that another job gave rise to, whose IDs and nonces follow
// from its own: it may be repeated. Those that cannot be put, since their queue is
// gone or they are too large, get a record that says so; it returns which. The
// names of their quotas were looked at when that other job was put.
func (q *Queue) putGiven(ctx context.Context, queue string, entries []Entry) (refused []int, err error) {
	target, err := q.ns.opened(ctx, q, queue)
	if err == nil {
		_, err = target.PutMany(ctx, entries)
	}
	if !beyondHelp(err) {
		return nil, err
	}
	gone := errors.Is(err, ErrNoQueue)
	if gone {
		q.ns.queues.forget(queue)
	}
	for i, e := range entries {
		err := err
		if !gone {
			err = target.Put(ctx, e)
		}
		if err == nil {
			continue
		}
		if !beyondHelp(err) {
			return nil, err
		}
		if err := q.refuse(ctx, queue, e, err); err != nil {
			return nil, err
		}
		refused = append(refused, i)
	}
	return refused, nil
}

// hasDeadline reports whether a job has a deadline and was put already. To put it
// again would set its timer anew, and so later. over says that it is completed, and has
// no message by which anybody could still be told.
func (q *Queue) hasDeadline(ctx context.Context, queue string, e Entry) (there, over bool, err error) {
	if e.Spec.Deadline.IsZero() || !e.Spec.Again {
		return false, false, nil
	}
	ctx, cancel := briefly(ctx)
	defer cancel()
	target, err := q.ns.opened(ctx, q, queue)
	if errors.Is(err, ErrNoQueue) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	found, stored, err := target.findLatest(ctx, e.ID)
	if holder, _ := found.Spec(); err == nil && stored && holder.Nonce == e.Spec.Nonce {
		return true, false, nil
	}
	if err != nil && !errors.Is(err, ErrNoQueue) {
		return false, false, err
	}
	return q.begun(ctx, queue, e)
}

// beyondHelp reports whether a put would fail the same way however often it is
// repeated.
func beyondHelp(err error) bool {
	return errors.Is(err, ErrNoQueue) || errors.Is(err, ErrTooLarge) || errors.Is(err, errInvalidEntry)
}

// refuse records that a job could not be put, as the outcome that it has, and keeps
// it among the failed ones.
func (q *Queue) refuse(ctx context.Context, queue string, e Entry, why error) error {
	now := time.Now()
	failure := job.Invalidf("%v", why)
	failure.At = now
	record := job.Record{
		Version: job.RecordVersion, Nonce: e.Spec.Nonce, Task: e.Spec.Task, Quotas: e.Spec.Quotas, Priority: e.Spec.Priority, To: e.Spec.To,
		State: job.Completed, Parent: e.Spec.Parent, By: e.Spec.By, Put: now, Ended: now, Outcome: &job.Outcome{Failure: failure},
	}
	ttl := kv.Forever
	if !e.Spec.Parent.Waits() {
		ttl = DefaultKeep
	}
	ctx, cancel := briefly(ctx)
	defer cancel()
	_, err := q.records.Create(ctx, names{q.names.namespace, queue}.record(e.ID), record, ttl)
	if err != nil && !errors.Is(err, kv.ErrConflict) {
		return fmt.Errorf("record that job %s cannot be put: %w", e.ID, err)
	}
	body, err := job.EncodeSpec(e.Spec)
	if err != nil {
		return nil // nobody could read it
	}
	return q.buryFailed(ctx, e.ID, body, record)
}
