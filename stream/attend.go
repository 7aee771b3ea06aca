package stream

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// attendAtOnce is how many timers that fired a dispatcher looks after at
	// once.
	attendAtOnce = 64
	// attendAgain is the time between two tries to take timers.
	attendAgain = time.Second
	// attendLast is how long the server may take to send its last ones.
	attendLast = 2 * time.Second
)

// Due is a timer that has fired.
type Due struct {
	Timer
	// At is when it was due, by the server's clock.
	At time.Time
	// Fired is when it fired, by the server's clock.
	Fired time.Time
	// Again is how many times it was set again after it had fired.
	Again int

	sequence uint64    // of its message
	last     time.Time // of a recurring job: the tick before
}

// Attend takes timers that have fired, with the other dispatchers of the queue,
// until ctx ends, and has act look after them, several at a time. One for which
// act returns an error, or whose dispatcher dies meanwhile, is given out again
// when the queue's ack wait has passed; so act must be safe to repeat, and
// safe from others who do the same. failed is told of what went wrong.
func (q *Queue) Attend(ctx context.Context, act func(context.Context, Due) error, failed func(error)) {
	for ctx.Err() == nil {
		if err := q.attend(ctx, act, failed); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(attendAgain):
		}
	}
}

// attend takes timers until ctx ends, or until the consumer has to be looked
// after.
func (q *Queue) attend(ctx context.Context, act func(context.Context, Due) error, failed func(error)) error {
	consumer, err := q.durable(ctx, "take the timers of queue "+q.names.queue, dueConfig(q.names, q.AckWait()))
	if err != nil {
		return err
	}
	broken := make(chan error, 1)
	var acting sync.WaitGroup
	defer acting.Wait()
	places := make(chan struct{}, attendAtOnce)
	taking, err := consumer.Consume(func(msg jetstream.Msg) {
		places <- struct{}{}
		acting.Go(func() {
			defer func() { <-places }()
			if err := q.attendTo(ctx, msg, act); err != nil && ctx.Err() == nil {
				failed(err)
			}
		})
	}, jetstream.PullMaxMessages(attendAtOnce), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		select {
		case broken <- err:
		default:
		}
	}))
	if err != nil {
		return fmt.Errorf("take the timers of queue %s: %w", q.names.queue, err)
	}
	defer func() {
		taking.Drain() // what was sent before is looked after
		select {
		case <-taking.Closed():
		case <-time.After(attendLast):
		}
	}()
	select {
	case <-ctx.Done():
		return nil
	case err := <-broken:
		return fmt.Errorf("take the timers of queue %s: %w", q.names.queue, err)
	}
}

// attendTo has act look after one timer, and removes it.
func (q *Queue) attendTo(ctx context.Context, msg jetstream.Msg, act func(context.Context, Due) error) error {
	due, err := q.dueOf(msg)
	if err != nil {
		_ = msg.Ack() // nobody will ever make sense of it
		return err
	}
	// What was begun is done, though intake has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.AckWait())
	defer cancel()
	if err := act(ctx, due); err != nil {
		return fmt.Errorf("timer %s of %s: %w", due.Kind, due.Of, err)
	}
	return msg.Ack()
}

func (q *Queue) dueOf(msg jetstream.Msg) (Due, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return Due{}, err
	}
	timer, err := q.names.parseDue(msg.Subject())
	if err != nil {
		return Due{}, err
	}
	last, _ := time.Parse(time.RFC3339, msg.Headers().Get(headerLast)) // absent: none
	again, _ := strconv.Atoi(msg.Headers().Get(headerAgain))           // absent: the first time
	return Due{
		Timer: timer, At: due(msg.Headers()), Fired: meta.Timestamp, Again: again,
		sequence: meta.Sequence.Stream, last: last,
	}, nil
}
