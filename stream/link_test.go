package stream

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

func TestLinkProven(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, _ *Queue) {
		nc, wire := s.ConnectWire(t, quiet)
		link := NewLink(nc, time.Second)
		if !link.Proven().IsZero() {
			t.Error("something is proven without a ping")
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go link.Run(ctx)
		behind := func() time.Duration { synctest.Wait(); return time.Since(link.Proven()) }
		time.Sleep(time.Second)
		for range 100 {
			// The last ping but one is at least an interval old.
			if got := behind(); got < time.Second || got > 2*time.Second {
				t.Fatalf("%v behind", got)
			}
			time.Sleep(700 * time.Millisecond)
		}
		wire.Freeze()
		frozen := time.Now()
		time.Sleep(time.Minute)
		if link.Proven().After(frozen) {
			t.Error("a frozen wire proves something")
		}
		wire.Thaw()
		time.Sleep(2100 * time.Millisecond)
		if got := behind(); got > 2*time.Second {
			t.Errorf("%v behind two seconds after a gap", got)
		}
		wire.Cut()
		time.Sleep(time.Minute)
		wire.Restore()
		time.Sleep(3 * time.Second)
		if got := behind(); got > 2*time.Second {
			t.Errorf("%v behind three seconds after a cut", got)
		}
	})
}

// A delivery that lay in a frozen wire looks fresh when it arrives. It counts from before the freeze.
func TestDeliveryFromFrozenWire(t *testing.T) {
	tests := map[string]struct {
		frozen time.Duration
		held   bool
	}{
		"for a moment":            {time.Second, true},
		"for a part of its lease": {8 * time.Second, true},
		"beyond its lease":        {ackWait, false},
		"beyond its ack wait":     {2 * ackWait, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
				faulty, wire := wired(t, s)
				arrived := newCollector()
				sink := arrived.sink()
				var held bool
				var left time.Duration
				deliver := sink.Deliver
				sink.Deliver = func(p *Pull, l *Lease) { held, left = l.Held(), l.Remaining(); deliver(p, l) }
				link := NewLink(faulty.conn(), time.Second)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				go link.Run(ctx)
				opened, err := faulty.Tap(t.Context(), lane, link, sink)
				if err != nil {
					t.Fatal(err)
				}
				for range 5 { // pulls are given up before the thaw in the longer cases, and their deliveries dropped
					time.Sleep(1500 * time.Millisecond)
				}
				p, err := opened.Pull(1, true)
				if err != nil {
					t.Fatal(err)
				}
				p.timer.Stop()
				synctest.Wait()
				wire.Freeze()
				putNew(t, q)
				sent := time.Now()
				time.Sleep(test.frozen)
				wire.Thaw()
				synctest.Wait()
				if len(arrived.leases) != 1 {
					t.Fatal("not delivered")
				}
				if held != test.held || left > ackWait-leaseMargin-time.Since(sent) && held {
					t.Errorf("held %v, for %v, want %v", held, left, test.held)
				}
				time.Sleep(2 * time.Second)
				if l := <-arrived.leases; !test.held && l.Held() {
					t.Error("held later")
				}
			})
		})
	}
}

func TestElapsed(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, _ *Queue) {
		begin := time.Now()
		time.Sleep(time.Minute)
		for name, test := range map[string]struct {
			since time.Time
			want  time.Duration
		}{
			"both clocks":    {begin, time.Minute},
			"the wall clock": {begin.Round(0), time.Minute},
			"never":          {time.Time{}, time.Duration(1<<63 - 1)},
			"the future":     {time.Now().Add(time.Second), -time.Second},
		} {
			if got := elapsed(test.since); got != test.want {
				t.Errorf("%s: %v, want %v", name, got, test.want)
			}
		}
	})
}
