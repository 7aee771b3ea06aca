package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// advanceAfter is when somebody else goes on with a job whose canceller died.
const advanceAfter = 5 * time.Second

// herePatience is how long the dispatcher that has a job may take to say so.
const herePatience = 250 * time.Millisecond

// Cancelled is a job as it was when it was cancelled.
type Cancelled struct {
	Nonce job.Nonce
	// State is how far it had come: Pending, Retrying, or Active where it was
	// given out.
	State job.State
	// Here says that a dispatcher has it and has answered: its handler is told
	// now. Where a job is Active and nobody answers its handler is told when it
	// extends its lease next, or its worker is dead.
	Here bool
}

// Cancel ends a job that is not over, whatever it does, with a Failure of
// job.KindCancelled. The write of its record decides between this, another
// cancel, and the end of the job: where it comes too late the error is
// [ErrCompleted]. nonce is that of the job meant, or zero for whichever has the
// ID. It returns [ErrNoJob] where there is no such job.
//
// A job without a record may have been given out and not begun; whoever has it
// is told, and looks at the record before it begins.
//
// A crash after the record is written leaves state Callbacks, and the message:
// whoever is given that, or cancels again, goes on from there.
func (q *Queue) Cancel(ctx context.Context, id job.ID, nonce job.Nonce) (Cancelled, error) {
	cancelled, err := q.stop(ctx, id, nonce, cancelling())
	if err != nil {
		err = fmt.Errorf("cancel job %s in queue %s: %w", id, q.names.queue, err)
	}
	return cancelled, err
}

// cancelling is how a job is cancelled.
func cancelling() stopping {
	return stopping{
		kind: job.KindCancelled,
		failure: func(record job.Record) *job.Failure {
			return &job.Failure{Kind: job.KindCancelled, Message: fmt.Sprintf("it was %s", record.State)}
		},
	}
}

// stopping is how a job is ended by somebody who does not perform it.
type stopping struct {
	kind    job.Kind
	failure func(job.Record) *job.Failure // the Failure for a job with this record
	// began refuses, with errBegan, to end a job that was begun; else that is
	// no hindrance.
	began bool
	// over says that the job is a part for which nobody waits any more.
	over bool

	// token tells this stopping from another of the same job, in its record; was
	// is the state that it found the job in.
	token job.Token
	was   job.State
}

// errBegan: the job was begun.
var errBegan = errors.New("job was begun")

// stop ends a job, again and again while there is no answer.
func (q *Queue) stop(ctx context.Context, id job.ID, nonce job.Nonce, how stopping) (Cancelled, error) {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	how.token = job.Token(rand.Uint64())
	var stopped Cancelled
	err := persist(ctx, func() (err error) {
		stopped, err = q.stopOnce(ctx, id, nonce, &how)
		return err
	})
	return stopped, err
}

func (q *Queue) stopOnce(ctx context.Context, id job.ID, nonce job.Nonce, how *stopping) (Cancelled, error) {
	ctx, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	message, stored, err := q.findLatest(ctx, id)
	if err != nil {
		return Cancelled{}, err
	}
	record, revision, found, err := q.Record(ctx, id)
	if err != nil {
		return Cancelled{}, err
	}
	spec, _ := message.Spec() // one that cannot be read has a nonce too
	current := spec.Nonce
	if !stored {
		current = record.Nonce
	}
	known := found && record.Nonce == current
	stopped := known && record.EndedAs(how.kind)
	ours := stopped && record.Attempt.Same(job.Attempt{Token: how.token})
	switch {
	case !stored && !found, !nonce.IsZero() && nonce != current:
		return Cancelled{}, ErrNoJob
	case stopped && record.State.Final() && stored: // it is not paid yet, or nobody has seen to the end of that
		err := q.goOnSettling(ctx, id, message, spec, record, how.over)
		if err == nil && !ours {
			err = ErrCompleted
		}
		return Cancelled{Nonce: current, State: how.was}, err
	case ours && record.State.Final():
		return Cancelled{Nonce: current, State: how.was}, nil
	case known && record.State.Ended() && (record.State.Final() || !stopped):
		return Cancelled{}, ErrCompleted
	case how.began && known && (record.State == job.Active || record.State == job.Waiting):
		return Cancelled{}, errBegan
	}
	if !known {
		record = q.recordOfMessage(message, spec, job.Record{})
	}
	if !stopped {
		if err := q.setAdvance(ctx, id, message, spec, record, how.over); err != nil {
			return Cancelled{}, err
		}
		now := time.Now()
		failure := how.failure(record)
		failure.Attempt, failure.At = record.Attempt.Number, now
		how.was = record.State
		record.Outcome = &job.Outcome{Failure: failure}
		record.State, record.Attempt, record.Ended = job.Callbacks, job.Attempt{Token: how.token}, now
		if revision, err = q.Write(ctx, id, record, revision, spec.Keep); err != nil {
			return Cancelled{}, err
		}
		ours = true
	}
	out := Cancelled{Nonce: current, State: job.Callbacks}
	if ours {
		out.State = how.was
	}
	out, err = q.settle(ctx, id, spec, record, revision, out, how.over)
	if err == nil && !ours {
		err = ErrCompleted // somebody else has stopped it before
	}
	return out, err
}

// settle has somebody pay what a job owes that was stopped: the dispatcher that has it
// or, where it surely has none, itself.
func (q *Queue) settle(ctx context.Context, id job.ID, spec job.Spec, record job.Record, revision uint64, out Cancelled, over bool) (Cancelled, error) {
	message, stored, err := q.messageOf(ctx, id, out.Nonce)
	if err != nil {
		return Cancelled{}, err
	}
	if stored && (message.Waits || record.Parts != nil) {
		return out, q.publish(ctx, q.names.advanceMessage(id, out.Nonce, time.Time{}, time.Time{}))
	}
	if out.Here, err = q.tellCancelled(ctx, out.Nonce, message, stored); err != nil {
		return Cancelled{}, err
	}
	if !out.Here { // who had it may have ended it meanwhile
		if message, stored, err = q.messageOf(ctx, id, out.Nonce); err != nil {
			return Cancelled{}, err
		}
	}
	if !stored && out.State == job.Pending {
		// It ended meanwhile, and left no record; or somebody has paid what it
		// owed, and written that.
		if err := q.records.Delete(ctx, q.names.record(id), revision); err != nil {
			return Cancelled{}, err
		}
		return Cancelled{}, ErrCompleted
	}
	if out.Here && out.State == job.Pending {
		out.State = job.Active
	}
	// One that is to run again at once has kept its slots.
	keeps := out.State == job.Active || out.State == job.Retrying && record.Due.IsZero() && len(spec.Quotas) > 0
	if out.Here || stored && keeps {
		return out, nil
	}
	if record.Called, err = q.PutCallbacks(ctx, id, spec, record, true); err != nil {
		return Cancelled{}, err
	}
	record.State = job.Completed
	if stored {
		if err := q.buryFailed(ctx, id, message.Body, record); err != nil {
			return Cancelled{}, err
		}
	}
	// A conflict says that a callback was added, or that somebody else has done it.
	if _, err := q.Write(ctx, id, record, revision, spec.Keep); err != nil {
		return Cancelled{}, err
	}
	_ = q.Announce(id, record) // who misses it reads the record
	return out, q.paid(ctx, id, spec, over)
}

// messageOf finds the message of a job by its ID and nonce.
func (q *Queue) messageOf(ctx context.Context, id job.ID, nonce job.Nonce) (message Stored, stored bool, err error) {
	message, stored, err = q.findLatest(ctx, id)
	if holder, _ := message.Spec(); err != nil || holder.Nonce != nonce { // one that cannot be read has a nonce too
		return Stored{}, false, err
	}
	return message, stored, nil
}

// goOnSettling goes on with what is left to do about a job that was stopped and is
// completed, whose message is there still.
func (q *Queue) goOnSettling(ctx context.Context, id job.ID, message Stored, spec job.Spec, record job.Record, over bool) error {
	if message.Waits || record.Parts != nil {
		return q.publish(ctx, q.names.advanceMessage(id, record.Nonce, time.Time{}, time.Time{}))
	}
	return q.paid(ctx, id, spec, over)
}

// paid does the last things for a job that was stopped and is completed: the job
// that waits for it is told, and its messages go. It may be repeated.
func (q *Queue) paid(ctx context.Context, id job.ID, spec job.Spec, over bool) error {
	q.DropDeadline(id, spec)
	if err := q.PayOrDisown(ctx, id, spec, over); err != nil {
		return err
	}
	return q.removeAll(ctx, id, spec.Nonce)
}

// setAdvance sees to it that somebody pays what a job owes that is about to be
// stopped, should whoever stops it die: where the job waits for others, or another
// waits for it. over says that it does no more.
func (q *Queue) setAdvance(ctx context.Context, id job.ID, message Stored, spec job.Spec, record job.Record, over bool) error {
	if record.State != job.Waiting && !message.Waits && (over || !spec.Parent.Waits()) {
		return nil
	}
	at := time.Now().Add(advanceAfter)
	return q.publish(ctx, q.names.timerMessage(Timer{TimerAdvance, string(id), record.Nonce}, at, at))
}

// PayOrDisown tells the job that waits for a part that this is completed, where it
// is one; where nobody waits any more, which over says where it is known, the record
// of the part lives from now on as long as it says itself. It may be repeated.
func (q *Queue) PayOrDisown(ctx context.Context, id job.ID, spec job.Spec, over bool) error {
	if !spec.Parent.Waits() {
		return nil
	}
	if !over {
		if err := q.ns.Pay(ctx, *spec.Parent); !errors.Is(err, ErrOver) {
			return err
		}
	}
	return q.disown(ctx, id, spec.Nonce, spec.Keep)
}

// ackedPatience is how long the message of a job that was acked may still be there.
const ackedPatience = 100 * time.Millisecond

// given says whether a job's message was given to a dispatcher.
type given int

const (
	givenNever given = iota
	// givenBefore: it was, and was handed back, or acked just now.
	givenBefore
	// givenNow: it may be with one.
	givenNow
)

func (q *Queue) given(ctx context.Context, message Stored, stored bool) (given, error) {
	if !stored || message.Scheduled {
		return givenNever, nil
	}
	switch info, err := q.laneConsumer(ctx, message.Lane); {
	case err != nil:
		return givenNever, err
	case info == nil || info.Delivered.Stream < message.Sequence:
		return givenNever, nil
	case info.NumAckPending == 0:
		return givenBefore, nil
	}
	return givenNow, nil
}

// removeAll removes every message of a job.
func (q *Queue) removeAll(ctx context.Context, id job.ID, nonce job.Nonce) error {
	for {
		removed, err := q.removeOne(ctx, id, nonce)
		if err != nil || !removed {
			return err
		}
	}
}

// removeOne removes the last message of a job; it reports false where there is none.
func (q *Queue) removeOne(ctx context.Context, id job.ID, nonce job.Nonce) (removed bool, err error) {
	ctx, cancel := briefly(ctx)
	defer cancel()
	message, stored, err := q.messageOf(ctx, id, nonce)
	if err != nil || !stored {
		return false, err
	}
	_, err = q.remove(ctx, message.Sequence)
	return true, err
}

// cancelNews is what the dispatchers of a queue are told of a cancelled job.
type cancelNews struct {
	Nonce job.Nonce `json:"nonce"`
}

// tellCancelled tells all dispatchers of the queue that a job was cancelled, whose
// message was found as given. here says that one of them had it and has answered
// that it has.
//
// Whoever is given the job later was told before, so it is asked after that who may
// have it, and those who may are told again. Who had it when they were told first may
// have done by then all that is to be done: that answer counts as well.
func (q *Queue) tellCancelled(ctx context.Context, nonce job.Nonce, message Stored, stored bool) (here bool, err error) {
	data, err := json.Marshal(cancelNews{nonce})
	if err != nil {
		return false, err
	}
	answers, err := q.conn().SubscribeSync(q.conn().NewInbox())
	if err != nil {
		return false, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	tell := func() error { return q.conn().PublishRequest(q.names.cancel(), answers.Subject, data) }
	if err := tell(); err != nil {
		return false, err
	}
	given, err := q.given(ctx, message, stored)
	switch {
	case err != nil || given == givenNever:
		return false, err
	case given == givenBefore: // an ack is counted before the message goes
		return isHere(ctx, answers, ackedPatience)
	}
	if err := tell(); err != nil {
		return false, err
	}
	return isHere(ctx, answers, herePatience)
}

// isHere waits for the answer that a dispatcher has the job; where nobody heard that
// it was asked, twice, there is none to wait for.
func isHere(ctx context.Context, answers *nats.Subscription, patience time.Duration) (bool, error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	for range 2 {
		switch _, err := answers.NextMsgWithContext(ctx); {
		case err == nil:
			return true, nil
		case errors.Is(err, nats.ErrNoResponders):
		case kv.Unanswered(err):
			return false, nil
		default:
			return false, err
		}
	}
	return false, nil
}

// OnCancel has f told of jobs that were cancelled, until stop is called. f
// reports whether the job is here, is called from another goroutine, and must not block.
func (q *Queue) OnCancel(f func(job.Nonce) (here bool)) (stop func(), err error) {
	sub, err := q.conn().Subscribe(q.names.cancel(), func(msg *nats.Msg) {
		var news cancelNews
		if json.Unmarshal(msg.Data, &news) == nil && f(news.Nonce) && msg.Reply != "" {
			_ = msg.Respond(nil) // the asker does not wait for ever
		}
	})
	if err != nil {
		return nil, fmt.Errorf("hear of cancelled jobs of queue %s: %w", q.names.queue, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
