package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// PutCallbacks puts the callbacks of a job that has its outcome: those of its spec
// and those that were added, in that order. It may be repeated; again says that
// somebody may have put them before, so that those are left out which have begun,
// and whoever is given another looks at its record first.
//
// One that cannot be put, since its queue is gone or what it takes is too large,
// gets a Failure that says so, and holds up none of the others.
//
// It returns what was put, for the record.
func (q *Queue) PutCallbacks(ctx context.Context, id job.ID, spec job.Spec, record job.Record, again bool) (called []job.Called, err error) {
	for i, callback := range slices.Concat(spec.Callbacks, record.Callbacks) {
		if !callback.Takes(*record.Outcome) {
			continue
		}
		e := Entry{ID: spec.Nonce.CallbackID(i)}
		e.Spec.Nonce, e.Spec.By, e.Spec.Trace = spec.Nonce.CallbackNonce(i), spec.By, spec.Trace
		e.Spec.Parent = &job.Parent{Queue: q.names.queue, ID: id, Nonce: spec.Nonce, Callback: true, Number: i}
		if err := q.putCallback(ctx, callback, *record.Outcome, e, again); err != nil {
			return nil, fmt.Errorf("put callback %d of job %s: %w", i, id, err)
		}
		called = append(called, job.Called{On: callback.On, Queue: callback.Call.Queue, ID: e.ID, Task: callback.Call.Task})
	}
	return called, nil
}

// putCallback puts a callback with the ID, nonce and parent that are given.
func (q *Queue) putCallback(ctx context.Context, callback job.Callback, outcome job.Outcome, e Entry, again bool) error {
	queue := callback.Call.Queue
	if queue == "" {
		queue = q.names.queue
	}
	if again {
		begun, _, err := q.begun(ctx, queue, e)
		if err != nil || begun {
			return err
		}
	}
	given := e.Spec
	call, err := callback.With(outcome)
	if err != nil {
		e.Spec.Task = callback.Call.Task
		return q.refuse(ctx, queue, e, fmt.Errorf("its argument cannot be made of the outcome: %w", err))
	}
	now := time.Now()
	e.Spec = call.Spec(now)
	e.Spec.Nonce, e.Spec.Parent, e.Spec.Again = given.Nonce, given.Parent, again
	e.Spec.By, e.Spec.At, e.Spec.Trace = given.By, now, given.Trace
	if there, _, err := q.hasDeadline(ctx, queue, e); there || err != nil {
		return err
	}
	_, err = q.putGiven(ctx, queue, []Entry{e})
	return err
}

// begun reports whether a job has a record, and whether that says that it is over.
func (q *Queue) begun(ctx context.Context, queue string, e Entry) (begun, over bool, err error) {
	ctx, cancel := briefly(ctx)
	defer cancel()
	kept, err := q.records.Latest(ctx, names{q.names.namespace, queue}.record(e.ID))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return false, false, nil
	case err != nil:
		return false, false, explain(q.conn(), fmt.Sprintf("look for the record of job %s", e.ID), err)
	}
	begun = kept.Value.Nonce == e.Spec.Nonce
	return begun, begun && kept.Value.State.Final(), nil
}

// AddCallback gives a job one callback more, the last. One that has its outcome
// and owes nothing more has it put at once. nonce is that of the job meant, or zero
// for whichever has the ID.
//
// It returns [ErrNoJob] where there is no such job, and [ErrNotKept] where the job
// keeps no result: whoever performs it does not look for callbacks. Where the server
// does not answer it is tried again, and is added once.
func (q *Queue) AddCallback(ctx context.Context, id job.ID, nonce job.Nonce, callback job.Callback) error {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	step := fmt.Sprintf("add a callback to job %s in queue %s", id, q.names.queue)
	if err := callback.Check(); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	callback.Added = job.NewNonce()
	if err := persist(ctx, func() error { return q.addCallback(ctx, id, nonce, callback) }); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

func (q *Queue) addCallback(ctx context.Context, id job.ID, nonce job.Nonce, callback job.Callback) error {
	ctx, cancel := context.WithTimeout(ctx, 2*tryPatience)
	defer cancel()
	message, stored, err := q.findLatest(ctx, id)
	if err != nil {
		return err
	}
	record, revision, found, err := q.Record(ctx, id)
	if err != nil {
		return err
	}
	spec, _ := message.Spec() // one that cannot be read has a nonce too
	current := spec.Nonce
	if !stored {
		current = record.Nonce
	}
	known := found && record.Nonce == current
	switch {
	case !stored && !found, !nonce.IsZero() && nonce != current:
		return ErrNoJob
	case known && slices.ContainsFunc(record.Callbacks, func(c job.Callback) bool { return c.Added == callback.Added }):
		return q.settleAdded(ctx, id, record, revision) // by a write whose answer was lost
	case known && record.State.Final():
		e := Entry{ID: callback.Added.CallbackID(0)}
		e.Spec.Nonce, e.Spec.By = callback.Added, record.By
		e.Spec.Parent = &job.Parent{Queue: q.names.queue, ID: id, Nonce: current, Callback: true, Number: len(record.Callbacks)}
		if !callback.Takes(*record.Outcome) {
			return nil
		}
		return q.putCallback(ctx, callback, *record.Outcome, e, true)
	case !known && spec.Keep == job.KeepNone && spec.Parts == nil:
		return ErrNotKept
	case !known:
		record = q.recordOfMessage(message, spec, job.Record{})
	}
	record.Callbacks = append(slices.Clone(record.Callbacks), callback)
	if err := q.checkAdded(record.Callbacks); err != nil {
		return err
	}
	if revision, err = q.Write(ctx, id, record, revision, spec.Keep); err != nil {
		return err
	}
	return q.settleAdded(ctx, id, record, revision)
}

// settleAdded removes the record again that a callback was added to where the job was
// taken back meanwhile, which leaves none: nobody would put the callback, and whoever
// waits for the job would wait for ever.
//
// A crash before leaves that record.
func (q *Queue) settleAdded(ctx context.Context, id job.ID, record job.Record, revision uint64) error {
	if record.State != job.Pending {
		return nil
	}
	gone, err := q.Gone(ctx, id, record.Nonce)
	if err != nil || !gone {
		return err
	}
	if err := q.records.Delete(ctx, q.names.record(id), revision); err != nil {
		return err // a conflict says that somebody else has removed it, or that it has an outcome
	}
	return ErrNoJob
}

// addedShare is which part of a record the callbacks may take that were added: they
// lie in it beside the result.
const addedShare = 16

// checkAdded reports callbacks that leave too little room for the result of their job.
func (q *Queue) checkAdded(callbacks []job.Callback) error {
	calls := make([]job.Call, len(callbacks))
	for i, c := range callbacks {
		calls[i] = c.Call
	}
	data, err := job.EncodeCalls(calls)
	if limit := int(q.conn().MaxPayload()) / addedShare; err == nil && len(data) > limit {
		err = &TooLargeError{What: "what was added of callbacks", Size: len(data), Max: limit}
	}
	return err
}
