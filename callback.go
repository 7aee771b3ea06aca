package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Callback is a task that is called when a job has its outcome, with an A that is
// made of it: a [Task] whose argument is an A, or one that [Bind] made.
//
// It is put as a job of its own, on the queue of the job it belongs to unless the
// task names another ([Task.Queue]), with the options and callbacks of the task, and
// under the trace and baggage of the job. A task that does not say how it is retried
// is, as a callback, tried for ever (FEATURES 85, 173). What becomes of it changes
// nothing of the job (FEATURES 81), nor does the job wait for it: it is completed when
// its callbacks are put, while zc.async ran them before (FEATURES 86).
//
// Each starts at least once after the outcome is recorded, and has one outcome of its
// own. A crash at any point leaves nothing unput. One that cannot be put, since its
// queue was deleted or its argument is too large, fails with job.KindInvalid.
type Callback[A any] interface {
	callback(A) options
}

func (t Task[A, R]) callback(A) options { return t.taken() }

// taken is what a task that takes its argument from elsewhere says of its jobs.
func (t Task[A, R]) taken() options {
	o := t.options
	o.arg = None{}
	if t.uniqueBy != nil {
		o.unique = func() (string, error) { return "", nil } // which is refused
	}
	return o
}

// Bound is the argument of a task that is called with something of the caller's, and
// with what it is made to take: see [Bind].
type Bound[W, A any] struct {
	With W `json:"with"`
	Got  A `json:"got"`
}

// boundWire is a Bound as it travels.
type boundWire struct {
	With msgpack.RawMessage `json:"with,omitempty"`
	Got  msgpack.RawMessage `json:"got,omitempty"`
}

// EncodeMsgpack writes the two as they would be written alone.
func (b Bound[W, A]) EncodeMsgpack(e *msgpack.Encoder) error {
	with, err := encodeRaw(b.With)
	if err != nil {
		return err
	}
	got, err := encodeRaw(b.Got)
	if err != nil {
		return err
	}
	return e.Encode(boundWire{with, got})
}

// DecodeMsgpack reads what EncodeMsgpack writes.
func (b *Bound[W, A]) DecodeMsgpack(d *msgpack.Decoder) error {
	var wire boundWire
	if err := d.Decode(&wire); err != nil {
		return err
	}
	return errors.Join(decodeRaw(wire.With, &b.With), decodeRaw(wire.Got, &b.Got))
}

// BoundTask is a task half of whose argument is given. Make it with [Bind].
type BoundTask[A, R any] struct {
	options options
}

func (b BoundTask[A, R]) callback(A) options { return b.options }

// Bind gives a task the half of its argument that is known already. What is left is a
// callback, or what [Then] goes on with (FEATURES 59, 206).
func Bind[W, A, R any](t Task[Bound[W, A], R], with W) BoundTask[A, R] {
	o := t.taken()
	o.arg = with
	if value, err := encodeValue(with, job.MsgPack); err == nil && value.IsNone() {
		o.arg = nil // which is written, so that the task takes two halves
	}
	return BoundTask[A, R]{o}
}

// callback is a callback of a call.
type callback struct {
	on      job.On
	options options
}

// after returns options with one callback more.
func after[A any](o options, on job.On, c Callback[A]) options {
	var none A
	o.callbacks = append(slices.Clone(o.callbacks), callback{on, c.callback(none)})
	return o
}

// forever is how callbacks are tried again where their task does not say.
var forever = job.Retry{Max: job.Forever, Interrupts: job.Forever}

func (c callback) call() (job.Callback, error) {
	call, err := c.options.inner()
	if err != nil {
		return job.Callback{}, fmt.Errorf("callback on %s: %w", c.on, err)
	}
	if call.Retry == (job.Retry{}) {
		call.Retry = forever
	}
	return job.Callback{On: c.on, Call: call}, nil
}

// callbacksOf are the callbacks that travelled with a job.
func callbacksOf(calls []job.Callback) []callback {
	var made []callback
	for _, c := range calls {
		made = append(made, callback{c.On, options{
			task: c.Call.Task, arg: c.Call.Arg, queue: c.Call.Queue, quotas: c.Call.Quotas, priority: c.Call.Priority,
			timeout: c.Call.Timeout, keep: c.Call.Keep, retry: c.Call.Retry,
			begin: c.Call.Begin, delay: c.Call.Delay, within: c.Call.Within, callbacks: callbacksOf(c.Call.Callbacks),
		}})
	}
	return made
}

// OnSuccess adds a callback that is put, with the result, if the job succeeds. A
// job's callbacks are put in the order in which they were added, those that the task
// has first, when the job's outcome is recorded: see [Callback]. They start in that
// order where they are of one task and one agent place performs them (FEATURES 77–85).
func (c Call[R]) OnSuccess(cb Callback[R]) Call[R] {
	c.options = after(c.options, job.OnSuccess, cb)
	return c
}

// OnFailure adds a callback that is put, with the Failure, if the job fails: also if
// it is cancelled, aborted, or its deadline passes. An attempt that is tried again is
// no failure of the job.
func (c Call[R]) OnFailure(cb Callback[job.Failure]) Call[R] {
	c.options = after(c.options, job.OnFailure, cb)
	return c
}

// OnDone adds a callback that is put, with the outcome, whichever it is.
func (c Call[R]) OnDone(cb Callback[Outcome[R]]) Call[R] {
	c.options = after(c.options, job.OnAny, cb)
	return c
}

// OnSuccess adds a callback to a job that was put: see [Call.OnSuccess]. If the job
// is completed already the callback is put at once (FEATURES 83).
//
// Errors: [ErrNoJob] where nothing is known of the job; [ErrNotKept] for a job that
// keeps no result and is not over, which takes callbacks only when it is put;
// [ErrNoQueue] and [ErrUnknownQuota] for what the callback names; [ErrPermission];
// [ErrTooLarge], where the callbacks that were added leave too little room for the
// result; [ErrUnanswered], where ctx ended, or 30 seconds passed, and the callback may
// have been added or not: adding it again may be adding it twice.
func (j *Job[R]) OnSuccess(ctx context.Context, cb Callback[R]) error {
	return addCallback(ctx, j, job.OnSuccess, cb)
}

// OnFailure adds a callback to a job that was put: see [Call.OnFailure] and
// [Job.OnSuccess].
func (j *Job[R]) OnFailure(ctx context.Context, cb Callback[job.Failure]) error {
	return addCallback(ctx, j, job.OnFailure, cb)
}

// OnDone adds a callback to a job that was put: see [Call.OnDone] and
// [Job.OnSuccess].
func (j *Job[R]) OnDone(ctx context.Context, cb Callback[Outcome[R]]) error {
	return addCallback(ctx, j, job.OnAny, cb)
}

func addCallback[R, A any](ctx context.Context, j *Job[R], on job.On, cb Callback[A]) error {
	o := after(options{}, on, cb)
	added, err := o.callbacks[0].call()
	if err == nil {
		err = j.queue.knowsAll(ctx, added.Call)
	}
	if err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	return j.queue.use(ctx, func(opened *stream.Queue) error { return opened.AddCallback(ctx, j.id, j.nonce, added) })
}

// knowsAll reports a queue that does not exist, or a quota, among those that a call
// names and the calls in it.
func (q *Queue) knowsAll(ctx context.Context, call job.Call) error {
	if call.Queue != "" {
		q = q.client.Queue(call.Queue)
	}
	opened, err := q.open(ctx)
	if err != nil {
		return err
	}
	isBroadcast := call.Parts != nil && call.Parts.Form == job.FormBroadcast
	switch {
	case isBroadcast && !opened.Broadcast():
		return fmt.Errorf("queue %s is no broadcast queue: create one (asyncnats queue add NAME --broadcast), or put the call of %s itself", q.name, call.Parts.Calls[0].Task)
	case opened.Broadcast() && call.Parts == nil:
		return fmt.Errorf("queue %s is a broadcast queue: put ToAll of the call of %s, or choose another queue", q.name, call.Task)
	}
	if err := q.knowsBeside(ctx, call); err != nil || call.Parts == nil {
		return err
	}
	if isBroadcast {
		return q.knowsBeside(ctx, call.Parts.Calls[0])
	}
	for i, part := range call.Parts.Calls {
		if err := q.knowsAll(ctx, part); err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
	}
	return nil
}

// knowsBeside is knowsAll for the quotas and callbacks of a call that is put on the
// queue, of whichever kind that is.
func (q *Queue) knowsBeside(ctx context.Context, call job.Call) error {
	if err := q.known(ctx, call.Quotas); err != nil {
		return err
	}
	for _, c := range call.Callbacks {
		knows := q.knowsAll
		if c.Call.Queue == "" {
			knows = q.knowsBeside
		}
		if err := knows(ctx, c.Call); err != nil {
			return err
		}
	}
	return nil
}

// check reports a queue other than the one that a call is put on.
func (q *Queue) check(call job.Call) error {
	if call.Queue != "" && call.Queue != q.name {
		return errors.New("call names queue " + call.Queue + " and is put on queue " + q.name)
	}
	return nil
}
