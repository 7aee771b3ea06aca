package asyncnats

import (
	"context"
	"encoding/json"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
)

// None is the argument type of a task without argument, or the result type of
// one without result.
type None struct{}

// Task is a named function with an argument type A and a result type R: what
// producers and workers share. It is an immutable value; its methods return
// changed copies.
//
// Arguments and results are encoded in msgpack, with the field names of their
// json tags. A or R may be [job.Value]: it passes encoded values untouched.
type Task[A, R any] struct {
	options  options
	uniqueBy func(A) any
}

// Define returns the task of that name: parts of letters, digits, '-' and '_',
// joined by dots. A name that is not legal is refused when a job of the task is
// put, and when a dispatcher with a handler for it is made.
func Define[A, R any](name string) Task[A, R] {
	return Task[A, R]{options: options{task: name}}
}

// Name returns the task's name.
func (t Task[A, R]) Name() string { return t.options.task }

// Timeout bounds each attempt: when it passes, the handler's context ends with
// job.ErrTimeout, and if the handler then returns an error the job fails with
// job.KindTimeout. 0, the default, is no bound.
func (t Task[A, R]) Timeout(d time.Duration) Task[A, R] { t.options.timeout = d; return t }

// Keep says how long outcomes are kept: job.KeepDefault (24 hours), job.KeepNone, or job.KeepFor a duration.
func (t Task[A, R]) Keep(k job.Keep) Task[A, R] { t.options.keep = k; return t }

// Retry says what happens to jobs whose attempts fail, and to those whose worker
// died. By default the first end as they are, and the second are started again,
// nine times at most. A handler may say otherwise: job.Permanent,
// job.RetryAfter, job.Snooze.
func (t Task[A, R]) Retry(r job.Retry) Task[A, R] { t.options.retry = r; return t }

// Quota names the quotas in each of which the jobs need a slot while they run,
// all or none: see [Queue.Limit]. A put that names one that does not exist is
// refused with [ErrUnknownQuota].
func (t Task[A, R]) Quota(names ...string) Task[A, R] { t.options.quotas = quotaNames(names); return t }

// Priority says before which other jobs of a queue the jobs are taken; it is
// job.Normal where it is not said. Agents take jobs of a higher priority first,
// whatever their task; every tenth job is of a lower one all the same: see
// [job.Priority].
func (t Task[A, R]) Priority(p job.Priority) Task[A, R] { t.options.priority = p; return t }

// Within gives the jobs a deadline: one that has not begun when d has passed
// since it was put or, where it is to begin later, since then, is not begun any
// more, and fails with job.KindExpired, also where nobody would take it. A retry
// does not begin after it either, nor does it move it. 0, the default, is no
// deadline; one that lies after 2249 is refused. It costs a job three writes more.
// zc.async: begin_by (FEATURES 99–101).
func (t Task[A, R]) Within(d time.Duration) Task[A, R] { t.options.within = d; return t }

// UniqueBy makes the jobs unique by what f takes of their argument, in any form
// that JSON has: see [Call.Unique]. f must not be nil.
func (t Task[A, R]) UniqueBy(f func(arg A) any) Task[A, R] {
	t.uniqueBy = f
	return t
}

// Queue names the queue that the jobs are put on where they are parts of a
// composition or callbacks; by default it is that of the job they belong to. What is
// put by itself is put on the queue that [Put] is given.
func (t Task[A, R]) Queue(name string) Task[A, R] { t.options.queue = name; return t }

// OnSuccess is [Call.OnSuccess] for all jobs of the task.
func (t Task[A, R]) OnSuccess(c Callback[R]) Task[A, R] {
	t.options = after(t.options, job.OnSuccess, c)
	return t
}

// OnFailure is [Call.OnFailure] for all jobs of the task.
func (t Task[A, R]) OnFailure(c Callback[job.Failure]) Task[A, R] {
	t.options = after(t.options, job.OnFailure, c)
	return t
}

// OnDone is [Call.OnDone] for all jobs of the task.
func (t Task[A, R]) OnDone(c Callback[Outcome[R]]) Task[A, R] {
	t.options = after(t.options, job.OnAny, c)
	return t
}

// Call returns the task with its argument, to be put on a queue.
func (t Task[A, R]) Call(arg A) Call[R] {
	options := t.options
	options.arg = arg
	if t.uniqueBy != nil {
		options.unique = func() (string, error) {
			key, err := json.Marshal(t.uniqueBy(arg))
			return string(key), err
		}
	}
	return Call[R]{options}
}

// Handle returns the handler that performs the task with f. An error that f
// returns, or a panic, becomes the job's [job.Failure].
func (t Task[A, R]) Handle(f func(ctx context.Context, arg A) (R, error)) job.Handler {
	return job.Handler{
		Task: t.options.task,
		Perform: func(ctx context.Context, encoded job.Value) (job.Value, error) {
			var arg A
			if err := decodeValue(encoded, &arg); err != nil {
				return job.Value{}, job.Invalidf("argument does not fit task %s: %v", t.options.task, err)
			}
			result, err := f(ctx, arg)
			if err != nil {
				return job.Value{}, err
			}
			return t.encodeResult(result, encoded.Encoding)
		},
	}
}

func (t Task[A, R]) encodeResult(result any, encoding job.Encoding) (job.Value, error) {
	value, err := encodeValue(result, encoding)
	if err != nil {
		return job.Value{}, job.Invalidf("result of task %s: %v", t.options.task, err)
	}
	return value, nil
}

// Call is a task with its argument and options, whose job returns an R. It is
// an immutable value; its methods return changed copies. It can be put any
// number of times, unless it has an ID.
type Call[R any] struct {
	options options
}

// Task returns the name of the task that is called.
func (c Call[R]) Task() string { return c.options.task }

// ID chooses the job's ID, so that a second job with it is refused until the
// first is completed: 1 to 128 letters, digits, '-', '_', '/' or '='.
func (c Call[R]) ID(id string) Call[R] { c.options.id = id; return c }

// Timeout is [Task.Timeout] for this call.
func (c Call[R]) Timeout(d time.Duration) Call[R] { c.options.timeout = d; return c }

// Keep is [Task.Keep] for this call.
func (c Call[R]) Keep(k job.Keep) Call[R] { c.options.keep = k; return c }

// Retry is [Task.Retry] for this call.
func (c Call[R]) Retry(r job.Retry) Call[R] { c.options.retry = r; return c }

// Quota is [Task.Quota] for this call, instead of the task's.
func (c Call[R]) Quota(names ...string) Call[R] { c.options.quotas = quotaNames(names); return c }

// Priority is [Task.Priority] for this call.
func (c Call[R]) Priority(p job.Priority) Call[R] { c.options.priority = p; return c }

// At has the job begin at the given instant, not before; one that lies in the
// past is no different from none, one after 2249 is refused. It is met to the
// millisecond, by the server's clock, where the agents have a place free. A job
// that names quotas may begin up to 0.3 s later. zc.async: begin_after (FEATURES 92–97).
func (c Call[R]) At(t time.Time) Call[R] { c.options.begin, c.options.delay = t, 0; return c }

// In has the job begin when d has passed since it was put: see [Call.At]. What
// counts is the clock of the process that puts it.
func (c Call[R]) In(d time.Duration) Call[R] {
	c.options.begin, c.options.delay = time.Time{}, d
	return c
}

// Within is [Task.Within] for this call.
func (c Call[R]) Within(d time.Duration) Call[R] { c.options.within = d; return c }

// Queue is [Task.Queue] for this call.
func (c Call[R]) Queue(name string) Call[R] { c.options.queue = name; return c }

// Unique lets no second job of the task and key exist: a put is refused with
// [ErrExists], and the handle of the one there is, until that is completed, or
// gone in any other way. It chooses the job's ID, so that [Call.ID] is not used
// beside it. Any text is a key.
func (c Call[R]) Unique(key string) Call[R] {
	c.options.unique = func() (string, error) { return key, nil }
	return c
}

// Replace has the put of a job take the place of the one that has its ID, by
// [Call.ID] or [Call.Unique], if that was not given to a dispatcher yet; else the
// put is refused as ever. Who waits for the job that was replaced is told that
// its outcome was not kept. With a time to begin it can be replaced itself until
// then, and may begin 0.3 s later.
//
// Where that job may have been given out just before it was gone, as while an answer
// was lost, the put returns [ErrAssigned] beside the handle of the new one: both may be
// performed.
func (c Call[R]) Replace() Call[R] { c.options.replace = true; return c }

// Debounce has the job begin when d has passed since the last put of its ID: each
// put replaces the job before it, as [Call.Replace] does, and moves the time
// ([Call.In]).
func (c Call[R]) Debounce(d time.Duration) Call[R] { return c.In(d).Replace() }

func encodeValue(v any, encoding job.Encoding) (job.Value, error) {
	switch given := v.(type) {
	case job.Value:
		return given, nil
	case None:
		return job.Value{}, nil
	}
	return job.Encode(v, encoding)
}

// encodeRaw writes what is a part of an argument or a result, in msgpack, as that
// would be alone; nil for none.
func encodeRaw(v any) (msgpack.RawMessage, error) {
	value, err := encodeValue(v, job.MsgPack)
	if err != nil {
		return nil, err
	}
	return value.AsMsgPack()
}

// decodeRaw reads what encodeRaw writes.
func decodeRaw(raw msgpack.RawMessage, into any) error {
	return decodeValue(job.Value{Data: raw}, into)
}

func decodeValue(encoded job.Value, into any) error {
	switch wanted := into.(type) {
	case *job.Value:
		*wanted = encoded
		return nil
	case *None:
		return nil
	}
	return encoded.Decode(into)
}
