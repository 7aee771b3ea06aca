package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// lanePause is how long a lane may stand still while a job is taken from it: longer
// than that may take, which is tryPatience.
const lanePause = 5 * time.Second

// turnPause is how long at most who waits for a lane rests between looks.
const turnPause = 20 * time.Millisecond

// errDisturbed is [ErrAssigned] of a job that may have been given out before its message
// was gone.
var errDisturbed = fmt.Errorf("perhaps %w", ErrAssigned)

// undisturbed calls f, by which a job's message goes, while nobody is given the job,
// provided that nobody was: else the error is [ErrAssigned]. A schedule may fire all the
// same.
//
// Its lane is paused meanwhile. Should this process die, the lane goes on by itself. The
// pause may end too soon, by the hand of somebody else. So the lane is looked at once more
// when f is done: where it has given out the job by then, or one behind it, the error is
// errDisturbed.
//
// In a cluster a delivery that was on its way when the lane was paused shows when most
// servers have it, and whichever gives out of the lane hears of f when it has caught up.
// Where one of these takes longer than f and the looks the job is given out unnoticed.
func (q *Queue) undisturbed(ctx context.Context, s Stored, step string, f func(context.Context) error) error {
	switch {
	case s.Waits:
		return fmt.Errorf("%s: %w: it waits for others, or is a composition; it can be cancelled", step, ErrAssigned)
	case s.Scheduled:
		ctx, cancel := briefly(ctx)
		defer cancel()
		return f(ctx)
	}
	consumer, err := q.turn(ctx, s)
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	ctx, cancel := briefly(ctx)
	defer cancel()
	until := consumer.TimeStamp.Add(lanePause) // by the server's clock
	consumer, err = q.pauseLane(ctx, s.Lane, consumer, until)
	if err == nil && passed(consumer, s) {
		err = ErrAssigned
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", step, err)
	} else {
		err = f(ctx)
	}
	consumer, resumeErr := q.resumeLane(ctx, s.Lane, until)
	switch {
	case resumeErr != nil:
		return errors.Join(err, fmt.Errorf("%s: the lane may rest for some seconds more: %w", step, resumeErr))
	case err == nil && passed(consumer, s):
		return errDisturbed
	}
	return err
}

// disturbed reports, by errDisturbed, a job that may have been given out before its
// message was gone.
func (q *Queue) disturbed(ctx context.Context, gone Stored) error {
	if gone.Scheduled {
		return nil
	}
	consumer, err := q.consumer(ctx, gone.Lane)
	if err == nil && passed(consumer, gone) {
		err = errDisturbed
	}
	return err
}

// passed reports whether a consumer has given out a message, or one after it. Where it
// is false of a message that is gone nobody was ever given it.
func passed(consumer *jetstream.ConsumerInfo, s Stored) bool {
	return consumer.Delivered.Stream >= s.Sequence
}

// turn waits while somebody else takes a job from the lane of a job, which shows by a
// pause that is no longer than ours, and returns its consumer. The error is [ErrAssigned]
// where it has given out the job.
func (q *Queue) turn(ctx context.Context, s Stored) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := briefly(ctx)
	defer cancel()
	for {
		consumer, err := q.consumer(ctx, s.Lane)
		switch {
		case err != nil:
			return nil, err
		case passed(consumer, s):
			return nil, ErrAssigned
		case consumer.PauseRemaining == 0, consumer.PauseRemaining > lanePause:
			return consumer, nil
		}
		if err := rest(ctx, rand.N(turnPause)); err != nil {
			return nil, fmt.Errorf("wait for lane %s, which somebody else has paused: %w", s.Lane.Token(), err)
		}
	}
}

// pauseLane has a lane give nothing out until then at least, and returns its consumer as
// it is when that says so: in a cluster the server answers before it is paused.
func (q *Queue) pauseLane(ctx context.Context, lane Lane, consumer *jetstream.ConsumerInfo, until time.Time) (*jetstream.ConsumerInfo, error) {
	for pause := time.Duration(0); pausedUntil(consumer).Before(until); pause = 2*pause + time.Millisecond {
		if err := rest(ctx, pause); err != nil {
			return nil, fmt.Errorf("wait for lane %s to be paused: %w", lane.Token(), err)
		}
		_, err := q.ns.js.PauseConsumer(ctx, q.names.stream(), lane.Token(), until)
		if err != nil {
			return nil, explain(q.conn(), "pause lane "+lane.Token(), err)
		}
		if consumer, err = q.consumer(ctx, lane); err != nil {
			return nil, err
		}
	}
	return consumer, nil
}

// resumeLane ends the pause of a lane, unless it is another by now, which somebody else
// sees to. It returns the lane's consumer as it was before.
func (q *Queue) resumeLane(ctx context.Context, lane Lane, until time.Time) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := briefly(context.WithoutCancel(ctx))
	defer cancel()
	consumer, err := q.consumer(ctx, lane)
	if err != nil || !pausedUntil(consumer).Equal(until) {
		return consumer, err
	}
	_, err = q.ns.js.ResumeConsumer(ctx, q.names.stream(), lane.Token())
	return consumer, explainNil(q.conn(), "resume lane "+lane.Token(), err)
}

func pausedUntil(consumer *jetstream.ConsumerInfo) time.Time {
	if consumer.Config.PauseUntil == nil {
		return time.Time{}
	}
	return *consumer.Config.PauseUntil
}
