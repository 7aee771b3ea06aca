package stream

import (
	"context"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// Timer names something that is to be done at a time, by whichever dispatcher of
// the queue then lives: a schedule in the queue's own stream, which the server
// moves to a subject that all of them pull from ([Queue.Attend]).
type Timer struct {
	Kind TimerKind
	// Of says of what: a job's ID, the name of a recurring job.
	Of string
	// Nonce tells one use of that name from another.
	Nonce job.Nonce
}

// TimerKind is what a timer is for.
type TimerKind string

const (
	// TimerDeadline ends a job that has not begun: see [Queue.Expire].
	TimerDeadline TimerKind = "deadline"
	// TimerAdvance goes on with a job that waits for others: see [Queue.Advance].
	TimerAdvance TimerKind = "advance"
	// TimerPresence looks whether the dispatchers that are to perform a broadcast are
	// there: see [Queue.Missing] and [Queue.GiveUp].
	TimerPresence TimerKind = "presence"
	// TimerCron puts the next job of a recurring one: see [Queue.Tick].
	TimerCron TimerKind = "cron"
)

func (t Timer) token() string { return string(t.Kind) + "." + t.Of + "." + t.Nonce.String() }

// headerAgain counts how many times a timer was set again after it had fired.
const headerAgain = "Asyncnats-Again"

// timerMessage makes the message of a timer that fires at the given time, by the
// server's clock, up to 0.3 s late, and says that it is due at another. It takes
// the place of one of that name that has not fired.
func (n names) timerMessage(t Timer, fires, due time.Time) *nats.Msg {
	msg := nats.NewMsg("")
	fireAt(msg, n.timer(t), n.due(t), fires, due)
	return msg
}

// advanceMessage makes the message that has a dispatcher go on with a job that
// waits for others: now or, where begin lies in the future, then.
func (n names) advanceMessage(id job.ID, nonce job.Nonce, begin, now time.Time) *nats.Msg {
	t := Timer{TimerAdvance, string(id), nonce}
	if begin.After(now) {
		return n.timerMessage(t, begin, begin)
	}
	return nats.NewMsg(n.due(t))
}

// advanceAgain sets a timer once more that was set before a write ([Queue.setAdvance])
// and has fired while that may be yet to come: by a connection that stands, or a clock
// that is behind. What begins a composition is no such timer.
func (q *Queue) advanceAgain(ctx context.Context, id job.ID, due Due) error {
	if due.At.IsZero() {
		return nil
	}
	message, stored, err := q.messageOf(ctx, id, due.Nonce)
	if err != nil {
		return err
	}
	record, _, found, err := q.Record(ctx, id)
	if err != nil {
		return err
	}
	known := found && record.Nonce == due.Nonce
	switch {
	case !stored, known && record.State.Ended():
		return nil
	case message.Waits && (!known || record.State == job.Pending):
		return nil // it begins now: what is written late meets that
	}
	return q.onceMore(ctx, due)
}

// dropTimer removes a timer that has not fired, and does not wait for it: one
// that stays there fires in vain.
func (q *Queue) dropTimer(t Timer) { q.dropSubject(q.names.timer(t)) }

// dropSubject removes the messages on a subject, and does not wait for it.
func (q *Queue) dropSubject(subject string) {
	request := []byte(`{"filter":` + strconv.Quote(subject) + `}`)
	_ = q.conn().Publish(kv.APIPrefix(q.ns.js)+"STREAM.PURGE."+q.names.stream(), request)
}
