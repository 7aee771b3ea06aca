package stream

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// However far a machine's clock is from the server's, the server's time is known,
// behind by no more than the fastest message took.
func TestClock(t *testing.T) {
	for name, skew := range map[string]time.Duration{"right": 0, "behind": 2 * time.Minute, "ahead": -2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c Clock
				if !c.Now().IsZero() || c.Skew() != 0 {
					t.Error("it knows the time before it heard of the server")
				}
				server := func() time.Time { return time.Now().Add(skew) }
				hear := func(way time.Duration) {
					stamp := server()
					time.Sleep(way)
					c.saw(stamp, time.Now())
				}
				want := func(behind time.Duration) {
					t.Helper()
					if got := server().Sub(c.Now()); got != behind {
						t.Errorf("%v behind, want %v", got, behind)
					}
					if got := c.Skew(); got != behind-skew {
						t.Errorf("skew %v, want %v", got, behind-skew)
					}
				}
				hear(time.Second)
				want(time.Second)
				hear(10 * time.Millisecond)
				want(10 * time.Millisecond)
				hear(time.Minute) // an old message of a backlog
				want(10 * time.Millisecond)
				time.Sleep(clockPeriod)
				hear(20 * time.Millisecond)
				want(20 * time.Millisecond) // clocks do not go at the same speed, so what is old is forgotten
				time.Sleep(time.Hour)       // nothing is heard: it goes on
				want(20 * time.Millisecond)
			})
		})
	}
}

// The server is asked for its time, again and again; somebody is told where the
// machine's clock is another, once.
func TestSetClock(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		link := NewLink(q.conn(), time.Second)
		ctx, stop := context.WithCancel(t.Context())
		set := 0
		var told []time.Duration
		done := make(chan struct{})
		go func() {
			q.SetClock(ctx, link, func() { set++ }, func(ahead time.Duration) { told = append(told, ahead) })
			close(done)
		}()
		synctest.Wait()
		if behind := time.Since(link.Clock.Now()); behind != 0 || set != 1 {
			t.Errorf("%v behind, told %d times that it is set", behind, set)
		}
		// As it were the machine's clock that is set, or the server's.
		link.Clock.saw(time.Now().Add(time.Minute), time.Now())
		time.Sleep(3 * clockPeriod)
		s.Restart(t)
		time.Sleep(3 * clockPeriod)
		stop()
		<-done
		if behind := time.Since(link.Clock.Now()); behind != 0 || set != 1 {
			t.Errorf("%v behind in the end, told %d times that it is set", behind, set)
		}
		if len(told) != 2 || told[0] > -50*time.Second || told[1].Abs() > time.Second {
			t.Errorf("told %v, want that it was behind, and then that it is not", told)
		}
	})
}
