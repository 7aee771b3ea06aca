package stream

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/cron"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// A recurring job is a chain of timers, one at a time: each is for one tick, and
// whoever looks after it stores the tick's job and the timer of the next in one
// atomic batch, on the condition that the chain has not gone on since it fired.
// So each tick has one job, whatever dies, and whoever else looks after the same
// timer. What is stored of the recurring job itself says how the chain begins:
// every dispatcher sees to it that there is one ([Queue.KeepRecurring]).
//
// The ID of a tick's job is cron/<name>/<tick>, in seconds since 1970, and its
// nonce is made of the same; so the tick has one job also where the recurring one
// is replaced, paused or removed at that moment.

const (
	// tickLead is how long before its tick a timer fires, so that the job is
	// there in time, and begins to the millisecond.
	tickLead = 2 * time.Second
	// tickFresh is how old a tick may be to be no missed one.
	tickFresh = time.Minute
	// mostTicks is how many jobs are put at once of ticks that were missed.
	mostTicks = 100
	// chainAgain is how often it is looked whether the chains are there.
	chainAgain = 5 * time.Minute
)

// headerLast is, in the timer of a recurring job, the last tick that has a job.
const headerLast = "Asyncnats-Last"

func cronTimer(name string, nonce job.Nonce) Timer { return Timer{TimerCron, name, nonce} }

// tickID is the ID of a tick's job.
func tickID(name string, tick time.Time) job.ID {
	return job.ID("cron/" + name + "/" + strconv.FormatInt(tick.Unix(), 10))
}

// tickNonce is the nonce of a tick's job, wherever it is made.
func (n names) tickNonce(name string, tick time.Time) (nonce job.Nonce) {
	sum := sha256.Sum256([]byte(strings.Join([]string{"cron", n.namespace, n.queue, string(tickID(name, tick))}, "\n")))
	copy(nonce[:], sum[:])
	return nonce
}

// chain makes the timer of a tick.
func (r Recurring) chain(n names, nonce job.Nonce, tick, last time.Time) *nats.Msg {
	msg := n.timerMessage(cronTimer(r.Name, nonce), tick.Add(-r.lead()), tick)
	if !last.IsZero() {
		msg.Header.Set(headerLast, last.UTC().Format(time.RFC3339))
	}
	return msg
}

// lead is how long before its tick a timer of r fires. One that looks whether the
// job before is completed looks no sooner than at the tick.
func (r Recurring) lead() time.Duration {
	if r.Alone {
		return 0
	}
	return tickLead
}

// KeepRecurring sees to it that the recurring jobs have their chains, those that
// are there and those that come, for some minutes or until ctx ends. Where a timer
// could not be stored it returns when those that are there were seen to, and is to be
// called again soon; a recurring job that is illegal keeps nobody waiting.
func (q *Queue) KeepRecurring(ctx context.Context) error {
	watching, cancel := context.WithTimeout(ctx, chainAgain)
	defer cancel()
	var failed error
	current, again := false, false
	for change, err := range q.crons.Watch(watching, q.names.cron("*")) {
		switch {
		case err != nil:
		case change.Current:
			current = true
		case !change.Deleted:
			err = q.beginChain(watching, change.Entry.Value, change.Entry.Written)
			again = again || err != nil && !errors.Is(err, errInvalidEntry)
		}
		if err != nil && watching.Err() == nil {
			failed = err // the others go on
		}
		if current && again {
			return failed
		}
	}
	return failed
}

// beginChain stores a recurring job's first timer, where it has none.
func (q *Queue) beginChain(ctx context.Context, r Recurring, since time.Time) error {
	step := fmt.Sprintf("begin with recurring job %s of queue %s", r.Name, q.names.queue)
	schedule, spec, err := r.check()
	if err != nil {
		return fmt.Errorf("%s: %w", step, &invalidEntryError{err})
	}
	msg := r.chain(q.names, spec.Nonce, schedule.Next(r.Created, since), time.Time{})
	q.expect(msg, cronTimer(r.Name, spec.Nonce), 0)
	if err := q.publish(ctx, msg); err != nil && !kv.Refused(err) {
		return explain(q.conn(), step, err, msg.Subject)
	}
	return nil
}

// expect makes a message conditional on the last of a chain.
func (q *Queue) expect(msg *nats.Msg, t Timer, sequence uint64) {
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(sequence, 10))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, q.names.eitherWay(t))
}

// Tick puts the job of a tick whose timer has fired, and sets the timer of the
// next. now is the server's time, as far as it is known.
func (q *Queue) Tick(ctx context.Context, due Due, now time.Time) error {
	if now.Before(due.Fired) {
		now = due.Fired
	}
	found, err := q.crons.Latest(ctx, q.names.cron(due.Of))
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r := found.Value
	schedule, spec, err := r.check()
	if err != nil {
		return err
	}
	if spec.Nonce != due.Nonce {
		return nil // it was replaced, and its chain ends here
	}
	ticks, next := r.ticks(schedule, found.Written, due.At, now)
	if ticks, err = q.alone(ctx, r, ticks, due.last); err != nil {
		return err
	}
	return q.goOn(ctx, r, spec, due, ticks, next, now)
}

// ticks returns the ticks whose jobs are to be put now, and the one after them.
// first is the tick of the timer; those up to since do not count. It is a pure
// function.
func (r Recurring) ticks(s cron.Schedule, since, first, now time.Time) (ticks []time.Time, next time.Time) {
	from := first
	if !from.After(since) {
		from = s.Next(r.Created, since)
	}
	upTo, fresh := now.Add(r.lead()), now.Add(-tickFresh)
	if from.Before(fresh) && r.Missed != MissedAll {
		begin := s.Next(r.Created, fresh.Add(-1))
		if last := s.Last(r.Created, from, fresh.Add(-1)); r.Missed == MissedLast && begin.After(upTo) && !last.IsZero() {
			begin = last
		}
		from = begin
	}
	for next = from; !next.After(upTo) && len(ticks) < mostTicks; next = s.Next(r.Created, next) {
		ticks = append(ticks, next)
	}
	if r.Paused {
		return nil, next
	}
	return ticks, next
}

// alone leaves the last of the ticks of a recurring job that runs alone, or none
// where the job of the one before is not completed.
func (q *Queue) alone(ctx context.Context, r Recurring, ticks []time.Time, last time.Time) ([]time.Time, error) {
	if !r.Alone || len(ticks) == 0 {
		return ticks, nil
	}
	if !last.IsZero() {
		gone, err := q.Gone(ctx, tickID(r.Name, last), q.names.tickNonce(r.Name, last))
		if err != nil || !gone {
			return nil, err
		}
	}
	return ticks[len(ticks)-1:], nil
}

// goOn stores the jobs of ticks and the timer of the next, all or none, if the
// chain has not gone on yet. A job that is there already, put by a chain that
// was replaced, is left out. Of ticks that one batch does not hold, the next timer is for
// the first that is left.
func (q *Queue) goOn(ctx context.Context, r Recurring, spec job.Spec, due Due, ticks []time.Time, next, now time.Time) error {
	if err := q.registerOf(ctx, Entry{Spec: spec}); err != nil {
		return err
	}
	last := due.last
	if len(ticks) > 0 {
		last = ticks[len(ticks)-1]
	}
	for {
		jobs, n, err := q.tickBatch(r, spec, ticks, now)
		if err != nil {
			return err
		}
		if n < len(ticks) {
			last, next = ticks[n-1], ticks[n]
		}
		timer := r.chain(q.names, due.Nonce, next, last)
		q.expect(timer, due.Timer, due.sequence)
		err = q.publishAll(ctx, append([]*nats.Msg{timer}, jobs...))
		if err == nil || !kv.Refused(err) {
			return err
		}
		step := fmt.Sprintf("look for the timer of recurring job %s of queue %s", r.Name, q.names.queue)
		latest, err := q.latestOn(ctx, step, q.names.eitherWay(due.Timer))
		if err != nil {
			return err
		}
		if latest == nil || latest.Sequence != due.sequence {
			return nil // the chain has gone on
		}
		if ticks, err = q.absent(ctx, r, ticks[:n]); err != nil {
			return err
		}
	}
}

// tickBatch makes the messages of the first n ticks, as many as one batch holds beside
// the next timer; of one at least, if there is any.
func (q *Queue) tickBatch(r Recurring, spec job.Spec, ticks []time.Time, now time.Time) (msgs []*nats.Msg, n int, err error) {
	for _, tick := range ticks {
		made, err := q.tickMessages(r, spec, tick, now)
		if err != nil {
			return nil, 0, err
		}
		if n > 0 && 1+len(msgs)+len(made) > MaxBatch {
			break
		}
		msgs, n = append(msgs, made...), n+1
	}
	return msgs, n, nil
}

// absent leaves the ticks whose jobs are not there.
func (q *Queue) absent(ctx context.Context, r Recurring, ticks []time.Time) ([]time.Time, error) {
	var errs []error
	left := slices.DeleteFunc(slices.Clone(ticks), func(tick time.Time) bool {
		_, stored, err := q.findLatest(ctx, tickID(r.Name, tick))
		errs = append(errs, err)
		return stored
	})
	return left, errors.Join(errs...)
}

// tickMessages makes the message of a tick's job, and that of its deadline. The
// job is marked as put again: whoever claims it looks whether a chain that was
// replaced had put it.
func (q *Queue) tickMessages(r Recurring, spec job.Spec, tick, now time.Time) ([]*nats.Msg, error) {
	spec.Nonce, spec.Begin, spec.At, spec.Again = q.names.tickNonce(r.Name, tick), tick, now, true
	var msgs []*nats.Msg
	e := Entry{ID: tickID(r.Name, tick), Chosen: true}
	if r.Within > 0 {
		spec.Deadline = later(tick, now).Add(time.Duration(r.Within))
		msgs = append(msgs, q.names.timerMessage(deadlineOf(e.ID, spec.Nonce), spec.Deadline, spec.Deadline))
	}
	e.Spec = spec
	e, err := q.prepared(e)
	if err != nil {
		return nil, err
	}
	made, err := q.messages(e, true)
	return append(msgs, made...), err
}
