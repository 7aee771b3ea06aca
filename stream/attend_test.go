package stream

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// attenders counts who looked after what.
type attenders struct {
	mu   sync.Mutex
	seen []Due
}

func (a *attenders) add(due Due) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, due)
}

func (a *attenders) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

// attendTest runs an attender until the test ends or it is stopped.
func attendTest(t *testing.T, q *Queue, act func(Due) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		q.Attend(ctx, func(_ context.Context, due Due) error { return act(due) }, func(err error) { t.Log(err) })
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	return stop
}

func setTimer(t *testing.T, q *Queue, timer Timer, at time.Time) {
	t.Helper()
	if err := q.publish(t.Context(), q.names.timerMessage(timer, at, at)); err != nil {
		t.Fatal(err)
	}
}

func TestTimerIsLookedAfterOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		var done attenders
		for range 3 {
			attendTest(t, createQueue(t, s.Connect(t), Config{}), func(due Due) error { done.add(due); return nil })
		}
		timer := Timer{Kind: TimerDeadline, Of: "order/7", Nonce: job.NewNonce()}
		at := time.Now().Add(time.Hour).Round(0)
		setTimer(t, q, timer, at)
		wantMessages(t, q, 1)
		time.Sleep(time.Hour - time.Millisecond)
		if n := done.count(); n != 0 {
			t.Fatalf("looked after %d times before it was due", n)
		}
		time.Sleep(time.Second)
		if done.count() != 1 || done.seen[0].Timer != timer || !done.seen[0].At.Equal(at) || done.seen[0].Again != 0 ||
			done.seen[0].Fired.Before(at) || done.seen[0].Fired.Sub(at) > 300*time.Millisecond {
			t.Errorf("looked after as %+v, want once, at %v", done.seen, at)
		}
		wantMessages(t, q, 0)
	})
}

// A timer that nobody has looked after to the end is looked after by another.
func TestTimerOutlivesItsAttender(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		doomed, wire := wired(t, s)
		begun := make(chan struct{})
		attendTest(t, doomed, func(Due) error {
			close(begun)
			time.Sleep(time.Minute)
			return nil
		})
		setTimer(t, q, Timer{TimerDeadline, "a", job.NewNonce()}, time.Now())
		<-begun
		wire.Cut()
		var done attenders
		attendTest(t, q, func(due Due) error {
			done.add(due)
			if done.count() == 1 {
				return errors.New("not yet")
			}
			return nil
		})
		time.Sleep(2*ackWait + 2*time.Second)
		if n := done.count(); n != 2 {
			t.Errorf("looked after %d times by others, want 2", n)
		}
		wantMessages(t, q, 0)
	})
}

// What fires while nobody lives waits, also for a consumer that is gone.
func TestTimerWaitsForAnAttender(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		var done attenders
		act := func(due Due) error { done.add(due); return nil }
		attendTest(t, q, act)()
		setTimer(t, q, Timer{TimerDeadline, "a", job.NewNonce()}, time.Now())
		time.Sleep(time.Hour)
		attendTest(t, q, act)
		time.Sleep(time.Second)
		if err := q.ns.js.DeleteConsumer(t.Context(), q.names.stream(), dueConsumer); err != nil {
			t.Fatal(err)
		}
		setTimer(t, q, Timer{TimerDeadline, "b", job.NewNonce()}, time.Now())
		time.Sleep(5 * time.Second)
		s.Restart(t)
		time.Sleep(time.Second)
		setTimer(t, q, Timer{TimerDeadline, "c", job.NewNonce()}, time.Now())
		time.Sleep(time.Minute)
		if n := done.count(); n != 3 {
			t.Errorf("%d timers looked after, want 3", n)
		}
	})
}

func TestTimerIsReplacedAndDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		var done attenders
		attendTest(t, q, func(due Due) error { done.add(due); return nil })
		timer := Timer{TimerDeadline, "a", job.NewNonce()}
		setTimer(t, q, timer, time.Now().Add(time.Minute))
		setTimer(t, q, timer, time.Now().Add(time.Hour))
		wantMessages(t, q, 1)
		time.Sleep(2 * time.Minute)
		if n := done.count(); n != 0 {
			t.Errorf("replaced timer fired %d times", n)
		}
		q.dropTimer(timer)
		time.Sleep(2 * time.Hour)
		if n := done.count(); n != 0 {
			t.Errorf("dropped timer fired %d times", n)
		}
		wantMessages(t, q, 0)
	})
}

// Timers are no jobs: they take no ID, and are not counted.
func TestTimerIsNoJob(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		setTimer(t, q, Timer{TimerDeadline, "a", job.NewNonce()}, time.Now().Add(time.Hour))
		setTimer(t, q, Timer{TimerDeadline, "a", job.NewNonce()}, time.Now())
		time.Sleep(time.Second)
		put(t, q, chosen("a", task))
		info, err := q.Info(t.Context(), time.Millisecond)
		if err != nil || info.Messages != 1 || info.Strays != 0 {
			t.Errorf("%d messages, %d strays, %v: want the job alone", info.Messages, info.Strays, err)
		}
	})
}
