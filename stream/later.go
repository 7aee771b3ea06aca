package stream

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// A job that is not to begin yet is a schedule: a message on its later subject
// that the server moves to its job subject when the time has come. Nobody polls.
//
// The server does so up to 0.27 s late. So a schedule aims a little too early,
// and says in a header when the job is due; whoever is given it holds it until
// then. A job that names quotas is not aimed early, for few of its lane are given
// out at a time, and one that is held would keep others from their slots; nor is
// one that others may replace until it is due.
const (
	// fireEarly is how much too early a schedule aims.
	fireEarly = 300 * time.Millisecond
	// MaxHold is how long a job is held that was given out before it is due.
	// One that is due later than that is scheduled again.
	MaxHold = time.Second
)

const (
	headerDue            = "Asyncnats-Due"
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
)

// aim returns when a job's schedule is to fire.
func aim(spec job.Spec) time.Time {
	if spec.Quotas != nil {
		return spec.Begin
	}
	return spec.Begin.Add(-fireEarly)
}

// schedule makes a job's message a schedule that fires at the given time, unless
// that has come.
func (n names) schedule(msg *nats.Msg, lane Lane, id job.ID, spec job.Spec, at, now time.Time) {
	switch {
	case spec.Begin.IsZero():
	case at.After(now):
		fireAt(msg, n.later(lane, id), n.job(lane, id), at, spec.Begin)
	default:
		setDue(msg, spec.Begin)
	}
}

// fireAt makes a message a schedule on a subject, in the place of one that is
// there: the server moves it to another subject at the given time, where it says
// when it is due. (The client's package writes that time in whole seconds.)
func fireAt(msg *nats.Msg, subject, target string, at, due time.Time) {
	setDue(msg, due)
	msg.Subject = subject
	msg.Header.Set(headerSchedule, "@at "+at.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(headerScheduleTarget, target)
}

func setDue(msg *nats.Msg, due time.Time) {
	msg.Header.Set(headerDue, strconv.FormatInt(due.UnixNano(), 10))
}

// due reads when a delivered job is due; the zero time where that is not said.
func due(header nats.Header) time.Time {
	ns, err := strconv.ParseInt(header.Get(headerDue), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Postpone schedules a job that was delivered anew, as spec says. It may be
// repeated: where a newer message of the job exists it does nothing. The
// delivered message is to be acked after it.
func (q *Queue) Postpone(ctx context.Context, s Stored, spec job.Spec) error {
	body, err := job.EncodeSpec(spec)
	if err != nil {
		return fmt.Errorf("postpone job %s: %w", s.ID, err)
	}
	msg := nats.NewMsg(q.names.job(s.Lane, s.ID))
	msg.Data = body
	q.names.schedule(msg, s.Lane, s.ID, spec, aim(spec), time.Time{}) // in any case: the server knows what time it is
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(s.Sequence, 10))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, q.names.anywhere(s.ID))
	if err := q.publish(ctx, msg); err != nil && !kv.Refused(err) {
		return explain(q.conn(), fmt.Sprintf("postpone job %s", s.ID), err, msg.Subject)
	}
	return nil
}
