package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// A whole is a job that waits for its parts, or a composition, which is nothing
// but its parts. No dispatcher has it: its message lies on a subject that nobody
// pulls from, and its record says how far it has come. Whoever completes a part
// says so there, and goes on with the whole from where it finds it, before the
// message of the part goes; so whatever dies, the part comes back, and whoever is
// given it goes on in the place of the dead. A whole is begun, cancelled and grown
// on behalf of a timer, which is given out again in the same way.
//
// Every step is conditional on the record, or may be repeated; so it does no harm
// that several go on with a whole at once. The write of the record decides between
// the last part, a cancel, and a part that is added.
type whole struct {
	q        *Queue
	id       job.ID
	nonce    job.Nonce
	record   job.Record
	revision uint64
	again    bool // somebody else may have put what comes next

	message Stored // as loaded
	spec    job.Spec
	joined  []PartRecord // of the parts that were joined; nil for none
}

// AdvanceDue is [Queue.Advance] for a timer that has fired.
func (q *Queue) AdvanceDue(ctx context.Context, due Due, now time.Time) error {
	id, err := job.ParseID(due.Of)
	if err != nil {
		return nil //nolint:nilerr // no job has that ID
	}
	if now.IsZero() { // it is not known yet; a timer may have waited for long
		now = time.Now()
	}
	if err := q.advanceAgain(ctx, id, due); err != nil && !errors.Is(err, ErrNoQueue) {
		return fmt.Errorf("look whether job %s in queue %s waits: %w", id, q.names.queue, err)
	}
	return q.Advance(ctx, id, due.Nonce, later(now, due.Fired))
}

// Advance goes on with a job that waits for others, from wherever it is: it puts
// the parts whose turn it is, and where all are completed it records the outcome,
// puts callbacks, tells the job that waits for this one in turn, and removes what
// is left. It may be repeated, and done by several at once. now is the server's
// time, as far as it is known.
//
// It returns nil where there is nothing to do, as for a job that is gone.
func (q *Queue) Advance(ctx context.Context, id job.ID, nonce job.Nonce, now time.Time) error {
	err := q.advance(ctx, id, nonce, now)
	if errors.Is(err, ErrOver) || errors.Is(err, ErrNoQueue) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("go on with job %s in queue %s: %w", id, q.names.queue, err)
	}
	return nil
}

// advance goes on with a whole of which some parts were completed. The error is
// ErrOver where it had its outcome before they were.
func (q *Queue) advance(ctx context.Context, id job.ID, nonce job.Nonce, now time.Time, done ...int) error {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	return persist(ctx, func() error {
		w := &whole{q: q, id: id, nonce: nonce}
		return w.advance(ctx, now, done)
	})
}

// persist does something again and again while others change what it reads, or there
// is no answer, until ctx ends. Those who are in each other's way, as who tell a whole
// of parts that were completed together, rest a moment, of another length each.
func persist(ctx context.Context, do func() error) error {
	for conflicts := 0; ; conflicts++ {
		err := do()
		pause := tryPause
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, kv.ErrConflict):
			pause = rand.N(time.Millisecond << min(conflicts, 4))
		case !kv.Unanswered(err) && !errors.Is(err, ErrUnanswered):
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (w *whole) advance(ctx context.Context, now time.Time, done []int) (err error) {
	var found bool
	if found, err = w.read(ctx); err != nil {
		return err
	}
	known := found && w.record.Nonce == w.nonce
	switch {
	case !known && len(done) > 0:
		return ErrOver
	case !known:
		w.record = job.Record{}
		return w.begin(ctx, now)
	case w.record.State == job.Pending: // callbacks were added to it
		return w.begin(ctx, now)
	case w.record.State == job.Waiting:
		return w.goOn(ctx, done)
	case !w.record.State.Ended():
		return nil
	}
	for _, i := range done {
		if w.record.Parts == nil || !w.record.Parts.IsDone(i) {
			return ErrOver
		}
	}
	w.again = true
	return w.goOnPaying(ctx)
}

// goOnPaying pays what a job owes whose outcome is recorded, in the place of whoever
// has begun with that and died.
func (w *whole) goOnPaying(ctx context.Context) error {
	there, err := w.load(ctx)
	switch {
	case err != nil || !there:
		return err
	case w.message.Waits || w.record.Parts != nil:
		return w.pay(ctx)
	case !w.record.Stopped():
		return nil // whoever has performed it pays, or whoever is given its message
	case w.record.State.Final():
		return w.q.paid(ctx, w.id, w.spec, false)
	}
	_, err = w.q.settle(ctx, w.id, w.spec, w.record, w.revision, Cancelled{Nonce: w.nonce, State: job.Callbacks}, false)
	return err
}

// briefly bounds one exchange with the server: who goes on with a whole does so for
// longer, and an answer that is lost is not to take all of that time.
func briefly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, tryPatience)
}

// read reads the record of the whole, or whatever has its ID.
func (w *whole) read(ctx context.Context) (found bool, err error) {
	ctx, cancel := briefly(ctx)
	defer cancel()
	w.record, w.revision, found, err = w.q.Record(ctx, w.id)
	return found, err
}

// load reads the message of the whole. there is false where it is gone: then all
// is done.
func (w *whole) load(ctx context.Context) (there bool, err error) {
	if w.message.ID != "" {
		return true, nil
	}
	ctx, cancel := briefly(ctx)
	defer cancel()
	message, stored, err := w.q.findLatest(ctx, w.id)
	if err != nil || !stored {
		return false, err
	}
	spec, err := message.Spec()
	if spec.Nonce != w.nonce {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.message, w.spec = message, spec
	return true, nil
}

// write writes the record of the whole as it is now.
func (w *whole) write(ctx context.Context) error {
	ctx, cancel := briefly(ctx)
	defer cancel()
	revision, err := w.q.Write(ctx, w.id, w.record, w.revision, w.spec.Keep)
	if err == nil {
		w.revision = revision
	}
	return err
}

// begin records that a composition waits for its parts, and puts the first.
//
// A crash leaves the timer, which is given out again.
func (w *whole) begin(ctx context.Context, now time.Time) error {
	if there, err := w.load(ctx); err != nil || !there || w.spec.Parts == nil {
		return err
	}
	if !w.spec.Deadline.IsZero() && !now.Before(w.spec.Deadline) {
		return nil // its deadline has a timer of its own
	}
	if now.Before(w.spec.Begin) { // by the clock of whoever put it, the time had come
		return w.q.publish(ctx, w.q.names.advanceMessage(w.id, w.nonce, w.spec.Begin, now))
	}
	parts := *w.spec.Parts
	parts.Base = w.nonce
	if w.record.Parts != nil { // some were added
		parts = *w.record.Parts
	}
	if parts.Form == job.FormBroadcast { // whose call others may ask for later
		var err error
		if parts, err = w.q.address(ctx, w.id, parts, now); err != nil {
			return err
		}
	} else {
		parts.Calls = nil // the message has them
	}
	w.record = w.q.recordOfMessage(w.message, w.spec, w.record)
	w.record.State, w.record.Parts, w.record.Started = job.Waiting, &parts, now
	if err := w.write(ctx); err != nil {
		return err
	}
	return w.putNext(ctx)
}

// recordOfMessage makes the record of a job that has none but perhaps one that says
// which callbacks were added.
func (q *Queue) recordOfMessage(message Stored, spec job.Spec, known job.Record) job.Record {
	return job.Record{
		Version: job.RecordVersion, Nonce: spec.Nonce, Task: message.Lane.Task, Quotas: message.Lane.Quotas(), Priority: message.Lane.Priority, To: message.Lane.To,
		State: job.Pending, Message: spec.Attempt, Parent: spec.Parent, Callbacks: known.Callbacks, By: spec.By, Put: message.Stored,
	}
}

// goOn notes which parts are completed, and puts those whose turn it is or, after
// the last, records the outcome.
//
// Of several who complete a part only one is the first to note it: that one puts
// the next part of a sequence as one that was never put.
func (w *whole) goOn(ctx context.Context, done []int) error {
	parts, fresh := w.record.Parts.SetDone(done...)
	if len(fresh) > 0 {
		w.record.Parts = &parts
		if err := w.write(ctx); err != nil {
			return err
		}
	}
	w.again = len(fresh) == 0
	switch {
	case parts.AllDone():
		return w.join(ctx)
	case len(done) > 0 && !parts.Sequential():
		return nil // whoever has begun it puts the others
	}
	return w.putNext(ctx)
}

// pay pays what a whole owes whose outcome is recorded.
//
// A crash between any two steps leaves its message; whoever goes on with it does
// them again.
func (w *whole) pay(ctx context.Context) error {
	if there, err := w.load(ctx); err != nil || !there {
		return err
	}
	if w.record.State == job.Callbacks {
		if err := w.complete(ctx); err != nil {
			return err
		}
	}
	released := false
	if w.spec.Parent.Waits() {
		err := w.q.ns.Pay(ctx, *w.spec.Parent)
		if err != nil && !errors.Is(err, ErrOver) {
			return err
		}
		released = err == nil // by the whole that it is a part of, in its time
	}
	if !released {
		if err := w.release(ctx); err != nil {
			return err
		}
	}
	if err := w.purgeParts(ctx); err != nil {
		return err
	}
	return w.q.removeAll(ctx, w.id, w.nonce)
}

// complete cancels the parts that nobody waits for any more, puts the callbacks,
// and calls the whole completed.
func (w *whole) complete(ctx context.Context) error {
	if err := w.cancelParts(ctx); err != nil {
		return err
	}
	called, err := w.q.PutCallbacks(ctx, w.id, w.spec, w.record, w.again)
	if err != nil {
		return err
	}
	w.record.Called = called
	w.record.State = job.Completed
	if w.spec.Parts == nil { // the parts of a composition are kept, each by itself
		if err := w.q.buryFailed(ctx, w.id, w.message.Body, w.record); err != nil {
			return err
		}
	}
	if err := w.write(ctx); err != nil {
		return err
	}
	if w.again { // else it was announced when it was recorded
		_ = w.q.Announce(w.id, w.record) // who misses it reads the record
	}
	w.q.DropDeadline(w.id, w.spec)
	return nil
}

// purgeParts removes the parts that are stored beside a whole.
func (w *whole) purgeParts(ctx context.Context) error {
	beside := func(p *job.Parts) bool { return p != nil && p.Beside }
	if !beside(w.record.Parts) && !beside(w.spec.Parts) {
		return nil
	}
	ctx, cancel := briefly(ctx)
	defer cancel()
	// The message is there after the last part that is stored beside it was found:
	// so that is not of a later job of the same ID, which is put when the message is gone.
	last, err := w.q.latestOn(ctx, fmt.Sprintf("look for parts of job %s", w.id), w.q.names.chunksOf(w.id))
	if err != nil || last == nil {
		return err
	}
	if message, stored, err := w.q.findLatest(ctx, w.id); err != nil || !stored || message.Sequence != w.message.Sequence {
		return err
	}
	return w.q.purge(ctx, w.q.names.chunksOf(w.id), last.Sequence)
}

// buryFailed keeps a job that failed, unless it was cancelled, for people to look
// at. What is wrong with that holds up nothing, but for a server that is silent.
func (q *Queue) buryFailed(ctx context.Context, id job.ID, body []byte, record job.Record) error {
	if record.Outcome.Succeeded() || record.EndedAs(job.KindCancelled) || record.EndedAs(job.KindAbsent) {
		return nil
	}
	err := q.Bury(ctx, id, job.Dead{Version: job.DeadVersion, Body: body, Record: record})
	if errors.Is(err, ErrUnanswered) {
		return err
	}
	return nil
}

// Park has the message of a job that was delivered lie where nobody is given it, as
// that of one that waits for others. It may be repeated. The delivered message is to
// be acked after it.
func (q *Queue) Park(ctx context.Context, s Stored, spec job.Spec) error {
	body, err := job.EncodeSpec(spec)
	if err != nil {
		return fmt.Errorf("park job %s: %w", s.ID, err)
	}
	msg := nats.NewMsg(q.names.wait(s.Lane, s.ID))
	msg.Data = body
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(s.Sequence, 10))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, q.names.anywhere(s.ID))
	if err := q.publish(ctx, msg); err != nil && !kv.Refused(err) {
		return explain(q.conn(), fmt.Sprintf("park job %s", s.ID), err, msg.Subject)
	}
	return nil
}
