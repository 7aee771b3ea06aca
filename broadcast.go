package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// ToAll returns a call that every dispatcher performs: each that, when it is put, is
// alive and has an agent in the queue which takes the task, and a handler for it. It
// is put on a broadcast queue ([QueueConfig]); as a part of a composition it names one
// ([Call.Queue]). Its result is a map of their outcomes, by dispatcher's UUID: who
// fails does not fail the whole.
//
// Each dispatcher's copy is a job like any other, with its quotas, retries, timeout and
// callbacks. It waits for one that is away for less than the queue's grace; who is gone
// for longer has job.KindAbsent for its outcome, and what it says later is dropped. A
// deadline ([Call.Within]) of the call bounds when copies begin. One who joins later
// does not perform it, unless its Config says so. Callbacks of what ToAll returns get
// the whole map, and so does the task that it is the first part of ([Then]); cancelling
// it cancels all copies.
//
//	stats, err := asyncnats.Put(ctx, fleet, asyncnats.ToAll(Stats.Call(asyncnats.None{})))
//	byDispatcher, err := stats.Wait(ctx)
//
// zc.async had the idea (FEATURES 24).
func ToAll[R any](call Call[R]) Call[map[string]Outcome[R]] {
	return Call[map[string]Outcome[R]]{options{task: string(job.FormBroadcast), form: job.FormBroadcast, parts: []options{call.options}}}
}

// address has a broadcast be performed by who would perform it now.
func (q *Queue) address(ctx context.Context, call job.Call) (job.Call, error) {
	if call.Parts == nil || call.Parts.Form != job.FormBroadcast {
		return call, nil
	}
	opened, err := q.open(ctx)
	if err != nil || !opened.Broadcast() {
		return call, err // which is refused later
	}
	var to []string
	err = q.client.namespace.Persist(ctx, "look who performs broadcasts of queue "+q.name, func(ctx context.Context) (err error) {
		to, err = opened.Hearers(ctx, call.Parts.Calls[0].Task)
		return err
	})
	if err != nil {
		return call, err
	}
	parts := call.Parts.Address(to)
	call.Parts = &parts
	return call, nil
}

// Reply is the outcome of one dispatcher's copy of a broadcast.
type Reply[R any] struct {
	Dispatcher string // UUID
	Outcome[R]
}

// replyWire is a reply as it travels.
type replyWire struct {
	Dispatcher string
	outcomeWire
}

// EncodeMsgpack writes the outcome, and whose it is beside it.
func (r Reply[R]) EncodeMsgpack(e *msgpack.Encoder) error {
	wire, err := r.wire()
	if err != nil {
		return err
	}
	return e.Encode(replyWire{r.Dispatcher, wire})
}

// DecodeMsgpack reads what EncodeMsgpack writes.
func (r *Reply[R]) DecodeMsgpack(d *msgpack.Decoder) error {
	var wire replyWire
	if err := d.Decode(&wire); err != nil {
		return err
	}
	r.Dispatcher = wire.Dispatcher
	return r.read(wire.outcomeWire)
}

// Expected lists the dispatchers that perform a broadcast, sorted by UUID. It returns
// [ErrNoJob] where nothing is known of it, and its failure where it ended before it began.
func Expected[R any](ctx context.Context, broadcast *Job[map[string]Outcome[R]]) ([]string, error) {
	record, err := broadcast.broadcastRecord(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return record.Parts.To, nil
}

// broadcastRecord reads the record of a broadcast, or makes it of its message where it
// has not begun. One that failed before it began has no parts: its failure is the
// error. It persists as open does.
func (j *Job[R]) broadcastRecord(ctx context.Context) (record job.Record, err error) {
	opened, err := j.queue.open(ctx)
	if err != nil {
		return job.Record{}, err
	}
	err = opened.Namespace().Persist(ctx, fmt.Sprintf("read the record of job %s", j.id), func(ctx context.Context) (err error) {
		record, err = opened.WholeRecord(ctx, j.id, j.nonce)
		if errors.Is(err, ErrNoParts) {
			return j.neverBegan(ctx, opened)
		}
		return err
	})
	if err == nil && record.Parts.Form != job.FormBroadcast {
		err = j.noBroadcast()
	}
	return record, err
}

// neverBegan is the failure of a broadcast that has no parts since it ended before it
// began.
func (j *Job[R]) neverBegan(ctx context.Context, opened *stream.Queue) error {
	record, ended, err := j.outcome(ctx, opened)
	switch {
	case err != nil:
		return err
	case ended && record.Outcome.Failure != nil:
		return record.Outcome.Failure
	}
	return j.noBroadcast()
}

func (j *Job[R]) noBroadcast() error { return fmt.Errorf("job %s is no broadcast", j.id) }

// Replies yields the replies to a broadcast as they come, each once, until all have
// replied; or an error, as when ctx ends, which ends it. Where the broadcast ended
// before all its copies were put, as one that is cancelled before it begins, that
// is the [*job.Failure] it ended with. It survives reconnects.
func Replies[R any](ctx context.Context, broadcast *Job[map[string]Outcome[R]]) iter.Seq2[Reply[R], error] {
	return func(yield func(Reply[R], error) bool) {
		if err := broadcast.replies(ctx, func(dispatcher string, record job.Record) (bool, error) {
			reply := Reply[R]{Dispatcher: dispatcher}
			if reply.Failure = record.Outcome.Failure; reply.Failure == nil {
				if err := decodeValue(record.Outcome.Result, &reply.Result); err != nil {
					return false, fmt.Errorf("reply of dispatcher %s: %w", dispatcher, err)
				}
			}
			return yield(reply, nil), nil
		}); err != nil {
			yield(Reply[R]{}, fmt.Errorf("asyncnats: replies to job %s: %w", broadcast.id, err))
		}
	}
}

// replies tells of the copies of a broadcast that are over, each once, until told
// returns false or all are. What is announced is read; what was missed is found from
// time to time.
func (j *Job[R]) replies(ctx context.Context, told func(dispatcher string, record job.Record) (bool, error)) error {
	opened, err := j.queue.open(ctx)
	if err != nil {
		return err
	}
	heard, err := opened.AwaitAny()
	if err != nil {
		return err
	}
	defer heard.Close()
	seen := make(map[job.ID]bool)
	pause := pollFirst
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-heard.Heard():
		case <-heard.Reconnected():
			pause = pollFirst
		case <-poll.C:
			poll.Reset(pause)
			pause = min(2*pause, pollLast)
		}
		record, err := j.broadcastRecord(ctx)
		if errors.Is(err, ErrUnanswered) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		parts, err := opened.PartRecords(ctx, record, record.Parts.Count)
		if err != nil {
			continue // it is looked again
		}
		for i, part := range parts {
			if seen[part.ID] || part.Record.Outcome == nil {
				continue
			}
			seen[part.ID] = true
			if more, err := told(record.Parts.To[i], part.Record); err != nil || !more {
				return err
			}
		}
		if len(seen) == record.Parts.Count {
			return nil
		}
		if record.State.Final() { // it was read before its parts: no more will come
			if record.Outcome.Failure != nil {
				return record.Outcome.Failure
			}
			return ErrOutcomeNotKept
		}
	}
}

// WaitReplies waits until n dispatchers have replied to a broadcast, whatever they said, or
// all, if they are fewer, and returns these replies by dispatcher. Where ctx ends first,
// or no more can come, it returns those that came, and an error as [Replies] does.
func WaitReplies[R any](ctx context.Context, broadcast *Job[map[string]Outcome[R]], n int) (map[string]Outcome[R], error) {
	came := make(map[string]Outcome[R])
	if n < 1 {
		return came, nil
	}
	for reply, err := range Replies(ctx, broadcast) {
		if err != nil {
			return came, err
		}
		if came[reply.Dispatcher] = reply.Outcome; len(came) == n {
			break
		}
	}
	return came, nil
}
