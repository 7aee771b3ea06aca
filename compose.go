package asyncnats

import (
	"context"

	"github.com/asyncnats/asyncnats/job"
)

// Outcome is how a job that returns an R ended: with a result or, where Failure is
// not nil, without.
type Outcome[R any] struct {
	Result  R            `json:"result"`
	Failure *job.Failure `json:"failure,omitempty"`
}

// Get returns the result, or the Failure as an error.
func (o Outcome[R]) Get() (R, error) {
	if o.Failure != nil {
		return o.Result, o.Failure
	}
	return o.Result, nil
}

// Parallel returns a call of several others, which are put at once, as jobs of their
// own. Its result is the list of their outcomes, in order: a part that fails does not
// fail the whole. While it waits for them it holds no place in any agent and no slot.
//
// Parts have their own quotas, times, retries, callbacks and queues; they may be
// compositions themselves. The whole has an ID, a time to begin, a deadline for that,
// a retention and callbacks; records of parts are kept as long as its own. Cancelling
// it cancels its parts. Its result is stored as one, and so is bounded by the server's
// max_payload: have parts with large results store them elsewhere.
func Parallel[R any](parts ...Call[R]) Call[[]Outcome[R]] {
	return compose[[]Outcome[R]](job.FormParallel, parts)
}

// Serial is [Parallel] with parts that begin one after another: each when the one
// before is completed, whether it succeeded or not.
func Serial[R any](parts ...Call[R]) Call[[]Outcome[R]] {
	return compose[[]Outcome[R]](job.FormSerial, parts)
}

func compose[W, R any](form job.Form, parts []Call[R]) Call[W] {
	o := options{task: string(form), form: form, parts: make([]options, len(parts))}
	for i, part := range parts {
		o.parts[i] = part.options
	}
	return Call[W]{o}
}

// Next is a task that takes an A and returns an R: a [Task], or one that [Bind] made.
type Next[A, R any] interface {
	next(A, R) options
}

func (t Task[A, R]) next(A, R) options      { return t.taken() }
func (b BoundTask[A, R]) next(A, R) options { return b.options }

// Then returns a call of first and, with its result, of next, whose result it
// returns. Where first fails the whole fails with that Failure, and next is not
// called; a parallel or serial of failing parts does not fail, so next gets their
// outcomes. In all else it is as [Parallel].
//
//	Then(Parallel(Thumbnail.Call(a), Thumbnail.Call(b)), Album)
func Then[A, R any](first Call[A], next Next[A, R]) Call[R] {
	var a A
	var r R
	return Call[R]{options{task: string(job.FormThen), form: job.FormThen, parts: []options{first.options, next.next(a, r)}}}
}

// Any returns the call as one whose result is not decoded, so that calls of several
// types can be parts of one composition.
func (c Call[R]) Any() Call[job.Value] { return Call[job.Value](c) }

// HandleCall returns the handler that performs the task by another call, which f
// returns: that is put as a job of its own, and its outcome is the job's. While the
// job waits for it, it holds no place in its agent and no slot. The other may do the
// same. [Return] makes a call of a result that f has itself.
func (t Task[A, R]) HandleCall(f func(ctx context.Context, arg A) (Call[R], error)) job.Handler {
	return job.Handler{
		Task: t.options.task,
		Perform: func(ctx context.Context, encoded job.Value) (job.Value, error) {
			var arg A
			if err := decodeValue(encoded, &arg); err != nil {
				return job.Value{}, job.Invalidf("argument does not fit task %s: %v", t.options.task, err)
			}
			next, err := f(ctx, arg)
			if err != nil {
				return job.Value{}, err
			}
			if next.options.answered {
				return t.encodeResult(next.options.arg, encoded.Encoding)
			}
			call, err := next.options.inner()
			if err != nil {
				return job.Value{}, job.Invalidf("the call that task %s returned: %v", t.options.task, err)
			}
			return job.Value{}, job.Delegate(call)
		},
	}
}

// Return is what a handler made by [Task.HandleCall] returns where there is nothing
// to call.
func Return[R any](result R) Call[R] { return Call[R]{options{answered: true, arg: result}} }
