package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Outcome is how a job that returns an R ended: with a result or, where Failure is
// not nil, without. Callbacks on any outcome take one, and what goes on with a
// [Parallel] or [Serial] takes a list.
type Outcome[R any] struct {
	Result  R            `json:"result"`
	Failure *job.Failure `json:"failure,omitempty"`
}

// outcomeWire is an outcome as [job.OutcomeValue] writes it.
type outcomeWire struct {
	Result  msgpack.RawMessage `json:"result,omitempty"`
	Failure *job.Failure       `json:"failure,omitempty"`
}

// EncodeMsgpack writes what [job.OutcomeValue] makes of the outcome.
func (o Outcome[R]) EncodeMsgpack(e *msgpack.Encoder) error {
	wire, err := o.wire()
	if err != nil {
		return err
	}
	return e.Encode(wire)
}

// DecodeMsgpack reads what EncodeMsgpack writes.
func (o *Outcome[R]) DecodeMsgpack(d *msgpack.Decoder) error {
	var wire outcomeWire
	if err := d.Decode(&wire); err != nil {
		return err
	}
	return o.read(wire)
}

func (o Outcome[R]) wire() (wire outcomeWire, err error) {
	if wire.Failure = o.Failure; wire.Failure == nil {
		wire.Result, err = encodeRaw(o.Result)
	}
	return wire, err
}

func (o *Outcome[R]) read(wire outcomeWire) error {
	o.Failure = wire.Failure
	return decodeRaw(wire.Result, &o.Result)
}

// Get returns the result, or the Failure as an error.
func (o Outcome[R]) Get() (R, error) {
	if o.Failure != nil {
		return o.Result, o.Failure
	}
	return o.Result, nil
}

// Parallel returns a call of several others, its parts, which are put at once, as jobs
// of their own (FEATURES 200–209). Its result is the list of their outcomes, in order:
// a part that fails does not fail the whole. One without parts returns an empty list.
// While the whole waits it holds no place in any agent and no slot (FEATURES b8).
//
// Parts have their own quotas, priorities, times, retries, callbacks and queues; they
// may be compositions themselves. They choose no ID. The whole has an ID, a time to
// begin, a deadline for that, a retention and callbacks, and nothing else: a put that
// gives it a quota, a priority, a timeout or a retry policy is refused, as is one that
// names a queue or a quota, of any part, that does not exist. Records of parts are kept
// until the outermost whole is completed, and then as long as its own. Cancelling the
// whole cancels its parts; cancelling a part is a part that fails.
//
// The put is one step, however many parts there are, up to [job.MaxParts]; together they
// may take 250 MB. Each part is performed at least once, as any job is, and counted once;
// the whole has one outcome, whichever dispatchers die. Its result is stored as one, and so is bounded by
// the server's max_payload, 1 MB unless configured: where it does not fit the whole fails
// with job.KindInvalid, so have parts with large results store them elsewhere.
func Parallel[R any](parts ...Call[R]) Call[[]Outcome[R]] {
	return compose[[]Outcome[R]](job.FormParallel, parts)
}

// Serial is [Parallel] with parts that begin one after another: each is put when the one
// before is completed, whether it succeeded or not (FEATURES 203, 204). Times and
// deadlines of parts that are durations count from there.
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

// Next is a task that takes an A and returns an R: a [Task], or one that [Bind] made. It
// is what [Then] goes on with.
type Next[A, R any] interface {
	next(A, R) options
}

func (t Task[A, R]) next(A, R) options      { return t.taken() }
func (b BoundTask[A, R]) next(A, R) options { return b.options }

// Then returns a call of first and, with its result, of next, whose result it
// returns. Where first fails the whole fails with that Failure, and next is not
// called; a parallel or serial of failing parts does not fail, so next gets their
// outcomes (FEATURES 202, 206, 207). In all else it is as [Parallel].
//
//	Then(Parallel(Thumbnail.Call(a), Thumbnail.Call(b)), Album)
func Then[A, R any](first Call[A], next Next[A, R]) Call[R] {
	var a A
	var r R
	return Call[R]{options{task: string(job.FormThen), form: job.FormThen, parts: []options{first.options, next.next(a, r)}}}
}

// Any returns the call as one whose result is not decoded, so that calls of several
// types can be parts of one composition. What gets the outcomes decodes each with
// [job.Value.Decode].
func (c Call[R]) Any() Call[job.Value] { return Call[job.Value](c) }

// HandleCall returns the handler that performs the task by another call, which f
// returns: that is put as a job of its own, on the job's queue unless it names another,
// and its outcome is the job's (FEATURES 66). While the job waits for it, it holds no
// place in its agent and no slot. The other may do the same, and may be a composition.
// [Return] makes a call of a result that f has itself.
//
// The job's timeout and retry policy are those of f, and not of the call, which has its
// own: a call that fails is not tried again by the job. f may run more than once, as any
// handler; of the calls that attempts have returned, one is put. A call that cannot be
// put, as one with an ID, or that names a queue or a quota which does not exist, fails
// the job with job.KindInvalid.
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
			if err := delegable(ctx, call); err != nil {
				return job.Value{}, fmt.Errorf("the call that task %s returned: %w", t.options.task, err)
			}
			return job.Value{}, job.Delegate(call)
		},
	}
}

// delegable reports a call that names a queue or a quota which does not exist, as
// [Put] does; to try again would not help. While the server does not answer it asks
// again, until ctx ends: f has done its work. It asks once though ctx has ended.
func delegable(ctx context.Context, call job.Call) error {
	self, err := Self(ctx)
	if err != nil {
		return nil //nolint:nilerr // the handler is called by a test of its own
	}
	for {
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), readPatience)
		err = self.queue.knowsAll(try, call)
		cancel()
		if !errors.Is(err, ErrUnanswered) || ctx.Err() != nil {
			break
		}
	}
	if errors.Is(err, ErrNoQueue) || errors.Is(err, ErrUnknownQuota) {
		return job.Invalidf("%v", err)
	}
	return err
}

// Return is what a handler made by [Task.HandleCall] returns where there is nothing
// to call. It is good for nothing else: a put of it is refused.
func Return[R any](result R) Call[R] { return Call[R]{options{answered: true, arg: result}} }

// AddParts adds parts to a parallel or serial that is not over; they are its last
// ones. A handler of one of its parts may do so, for which [Whole] returns the whole:
// that is surely not over before the part is (FEATURES 205). What an attempt adds
// that is tried again is not added twice, as long as it does so in the same order.
//
// Added to a whole that has not begun, parts begin with it; else at once or, in a
// serial, in their turn. Calling it without parts adds none.
//
// Each adding is noted in the record of the whole, which has room for some thousands: add
// parts together where there are more.
//
// Errors: [ErrCompleted] where the whole has its outcome; [ErrNoParts] for a job that
// is no parallel or serial; [ErrNoJob] where nothing is known of it; [ErrTooLarge] where
// its record has no room for more, and as from [Put]; [ErrNoQueue], [ErrUnknownQuota],
// [ErrPermission] as from [Put]; [ErrUnanswered], where the parts may have been added or
// not, so that adding them again from outside of a handler may be adding them twice.
func AddParts[R any](ctx context.Context, whole *Job[[]Outcome[R]], parts ...Call[R]) error {
	calls := make([]job.Call, len(parts))
	for i, part := range parts {
		var err error
		if calls[i], err = part.options.inner(); err == nil {
			err = whole.queue.knowsAll(ctx, calls[i])
		}
		if err != nil {
			return fmt.Errorf("asyncnats: part %d: %w", i, err)
		}
	}
	name, repeats := job.Deed(ctx)
	if !repeats {
		name = job.NewNonce().String()
	}
	return whole.queue.use(ctx, func(opened *stream.Queue) error {
		return opened.AddParts(ctx, whole.id, whole.nonce, name, calls)
	})
}

// Whole returns the parallel or serial of which the job that is performed under ctx,
// the context of its handler, is a part. It returns [ErrNoSelf] outside of a handler,
// and an error where the job is no part of another; it does not look whether that is a
// parallel or serial, which [AddParts] does. R is what its parts return.
func Whole[R any](ctx context.Context) (*Job[[]Outcome[R]], error) {
	self, err := Self(ctx)
	if err != nil {
		return nil, err
	}
	info, _ := job.FromContext(ctx)
	if !info.Parent.Waits() {
		return nil, errors.New("asyncnats: job is no part of another")
	}
	return newJob[[]Outcome[R]](self.queue.client.Queue(info.Parent.Queue), info.Parent.ID, info.Parent.Nonce), nil
}

// Node is a job with those that it gave rise to, as [Job.Tree] returns it.
type Node struct {
	ID    job.ID    `json:"id"`
	Queue string    `json:"queue"`
	Task  string    `json:"task"`
	State job.State `json:"state"`
	// On says after which outcome it was put, of a callback.
	On job.On `json:"on,omitempty"`
	// Failure is why it failed; nil where it has not.
	Failure *job.Failure `json:"failure,omitempty"`
	Started time.Time    `json:"started,omitzero"`
	Ended   time.Time    `json:"ended,omitzero"`
	// Count is how many parts it has, whether they are put or not, and Done how many of
	// them are completed.
	Count int `json:"count,omitempty"`
	Done  int `json:"done,omitempty"`
	// Parts are the first of its parts, as many as were asked for, and Callbacks all the
	// callbacks that were put.
	Parts     []Node `json:"parts,omitempty"`
	Callbacks []Node `json:"callbacks,omitempty"`
}

// Tree returns the job with its parts, up to limit of each whole, and the callbacks
// that were put, and theirs. It is read from records, job by job, and so is no picture of
// one moment. A part that has no record is pending, and has no task: it is not put yet,
// nobody was given it, or it runs for the first time. Of a whole that is completed it was
// never put, or its record has gone. It returns [ErrNoJob] where nothing is known of the
// job, or another has its ID now.
func (j *Job[R]) Tree(ctx context.Context, limit int) (Node, error) {
	status, nonce, err := j.queue.status(ctx, j.id)
	if err == nil && nonce != j.nonce {
		err = fmt.Errorf("job %s in queue %s: %w (another has its ID now)", j.id, j.queue.name, ErrNoJob)
	}
	node := Node{ID: j.id, Queue: j.queue.name, Task: status.Task, State: status.State}
	if err == nil && status.Record != nil {
		err = j.queue.grow(ctx, &node, *status.Record, limit)
	}
	if err != nil {
		return Node{}, fmt.Errorf("asyncnats: %w", err)
	}
	return node, nil
}

// grow adds to a node what the record of its job says.
func (q *Queue) grow(ctx context.Context, node *Node, record job.Record, limit int) error {
	node.Task, node.State, node.Started, node.Ended = record.Task, record.State, record.Started, record.Ended
	if record.Outcome != nil {
		node.Failure = record.Outcome.Failure
	}
	opened, err := q.open(ctx)
	if err != nil {
		return err
	}
	for _, called := range record.Called {
		at := q
		if called.Queue != "" {
			at = q.client.Queue(called.Queue)
		}
		child := Node{ID: called.ID, Queue: at.name, Task: called.Task, State: job.Pending, On: called.On}
		if err := at.growFrom(ctx, &child, limit); err != nil {
			return err
		}
		node.Callbacks = append(node.Callbacks, child)
	}
	if record.Parts == nil {
		return nil
	}
	node.Count, node.Done = record.Parts.Count, record.Parts.Completed()
	parts, err := opened.PartRecords(ctx, record, limit)
	if err != nil {
		return err
	}
	for _, part := range parts {
		child := Node{ID: part.ID, Queue: part.Queue, State: job.Pending}
		if part.Record.Version > 0 {
			if err := q.client.Queue(part.Queue).grow(ctx, &child, part.Record, limit); err != nil {
				return err
			}
		}
		node.Parts = append(node.Parts, child)
	}
	return nil
}

// growFrom is grow for a job whose record is to be read, if it has one.
func (q *Queue) growFrom(ctx context.Context, node *Node, limit int) error {
	opened, err := q.open(ctx)
	if err != nil {
		return err
	}
	record, _, found, err := opened.Record(ctx, node.ID)
	if err != nil || !found {
		return err
	}
	return q.grow(ctx, node, record, limit)
}
