package stream

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// What is left of a lease, a second short of the ack wait, from the moment that the link proves.
func TestLeaseEnds(t *testing.T) {
	for _, ackWait := range []time.Duration{MinAckWait, DefaultAckWait, time.Hour} {
		inBubbleWith(t, Config{AckWait: ackWait}, func(t *testing.T, _ *natstest.Server, q *Queue) {
			c := tap(t, q)
			putNew(t, q)
			l := c.take(t)
			lasts := ackWait - leaseMargin
			if got := l.Remaining(); got != lasts || !l.Held() {
				t.Errorf("ack wait %v: %v left, held %v", ackWait, got, l.Held())
			}
			time.Sleep(lasts - time.Nanosecond)
			if got := l.Remaining(); got != 1 || !l.Held() {
				t.Errorf("ack wait %v: at the end %v left, held %v", ackWait, got, l.Held())
			}
			time.Sleep(time.Nanosecond)
			if got := l.Remaining(); got != 0 || l.Held() {
				t.Errorf("ack wait %v: after the end %v left, held %v", ackWait, got, l.Held())
			}
			within(t, 0, "Extend", func() {
				if err := l.Extend(t.Context()); !errors.Is(err, job.ErrLeaseLost) {
					t.Errorf("extended after the end: %v", err)
				}
			})
			if l.Held() {
				t.Error("revived")
			}
		})
	}
}

func TestAck(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := tap(t, q)
		putNew(t, q)
		if err := c.take(t).Ack(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantMessages(t, q, 0)
	})
}

// A job that is handed back is delivered at once, before newer ones, to anybody.
func TestHandBack(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		c, other := tap(t, q), tap(t, createQueue(t, s.Connect(t), Config{}))
		first, second := putNew(t, q), putNew(t, q)
		within(t, 0, "all", func() {
			l := c.take(t)
			putNew(t, q)
			if err := l.HandBack(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if l = other.take(t); l.ID != first.ID || l.Delivered != 2 || !l.Held() {
				t.Errorf("brought %s, delivery %d, held %v", l.ID, l.Delivered, l.Held())
			}
			if l = c.take(t); l.ID != second.ID || l.Delivered != 1 {
				t.Errorf("then %s, delivery %d", l.ID, l.Delivered)
			}
		})
	})
}

// A lease is kept for as long as its holder lives; nobody else is given the job meanwhile.
func TestKeep(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		c, other := tap(t, q), tap(t, createQueue(t, s.Connect(t), Config{}))
		putNew(t, q)
		l := c.take(t)
		var looks atomic.Int32
		stop := l.Keep(t.Context(), func(context.Context) error { looks.Add(1); return nil },
			func(err error) { t.Errorf("lost: %v", err) })
		for begin := time.Now(); time.Since(begin) < 10*ackWait; {
			other.end(t, other.pull(t, 1, true))
			if !l.Held() {
				t.Fatal("not held")
			}
		}
		if got := looks.Load(); got < 29 || got > 36 {
			t.Errorf("looked %d times, want three times per ack wait", got)
		}
		stop()
		if err := l.Ack(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * ackWait)
		wantMessages(t, q, 0)
		if len(other.leases) > 0 {
			t.Error("delivered to somebody else, too")
		}
	})
}

// A lease that ends soon costs neither a request nor a goroutine.
func TestKeepShortly(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, _ *Queue) {
		nc := s.Connect(t)
		q := createQueue(t, nc, Config{})
		link := NewLink(nc, time.Second)
		c := newCollector()
		opened, err := q.Tap(t.Context(), lane, link, c.sink())
		if err != nil {
			t.Fatal(err)
		}
		putNew(t, q)
		l := (&tapped{c, opened, link}).take(t)
		before := nc.Stats().OutMsgs
		stop := l.Keep(t.Context(), nothing, func(err error) { t.Errorf("lost: %v", err) })
		time.Sleep(ackWait/3 - 1)
		stop()
		time.Sleep(10 * ackWait)
		if sent := nc.Stats().OutMsgs - before; sent != 0 {
			t.Errorf("%d messages sent", sent)
		}
	})
}

// What look finds out ends the keeping.
func TestKeepLooks(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := tap(t, q)
		putNew(t, q)
		foreign := errors.New("foreign record")
		lost := make(chan error, 10)
		l := c.take(t)
		defer l.Keep(t.Context(), func(context.Context) error { return foreign }, func(err error) { lost <- err })()
		within(t, ackWait/3, "the look", func() {
			if err := <-lost; !errors.Is(err, foreign) {
				t.Errorf("lost: %v", err)
			}
		})
		time.Sleep(2 * ackWait)
		if len(lost) > 0 {
			t.Errorf("lost again: %v", <-lost)
		}
	})
}

// The end of its context ends the keeping without a word.
func TestKeepContext(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := tap(t, q)
		putNew(t, q)
		l := c.take(t)
		ctx, cancel := context.WithCancel(t.Context())
		l.Keep(ctx, nothing, func(err error) { t.Errorf("lost: %v", err) })
		time.Sleep(ackWait)
		cancel()
		time.Sleep(ackWait)
		if l.Held() {
			t.Error("still held")
		}
	})
}

// A connection that breaks and comes back costs no lease, even if it takes a request with it.
func TestKeepOverOutages(t *testing.T) {
	outages := map[string]func(*testing.T, *natstest.Server, *natstest.Wire){
		"cut": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire) {
			w.Cut()
			time.Sleep(3 * time.Second)
			w.Restore()
		},
		"request lost": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire) {
			w.Freeze() // for more than a third of the ack wait, so that an extension is under way
			time.Sleep(5500 * time.Millisecond)
			w.Cut()
			w.Thaw()
			w.Restore()
		},
		"frozen": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire) {
			w.Freeze()
			time.Sleep(5500 * time.Millisecond)
			w.Thaw()
		},
		"restart": func(t *testing.T, s *natstest.Server, _ *natstest.Wire) { s.Restart(t) },
	}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
				faulty, wire := wired(t, s)
				c := tap(t, faulty)
				putNew(t, q)
				l := c.take(t)
				stop := l.Keep(t.Context(), nothing, func(err error) { t.Errorf("lost: %v", err) })
				for range 5 {
					outage(t, s, wire)
					time.Sleep(7 * time.Second)
				}
				stop()
				if !l.Held() {
					t.Error("not held")
				}
			})
		})
	}
}

// A holder behind a frozen wire knows by its own clock that it lost the lease, before the server gives the job to
// somebody else; and what arrives late does not make it think otherwise.
func TestLostBeforeRedelivery(t *testing.T) {
	for _, frozenAfter := range []time.Duration{0, time.Second, 4 * time.Second, 7 * time.Second, 10 * ackWait} {
		inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
			faulty, wire := wired(t, s)
			c, other := tap(t, faulty), tap(t, q)
			e := putNew(t, q)
			l := c.take(t)
			type loss struct {
				at  time.Time
				err error
			}
			lost := make(chan loss, 10)
			defer l.Keep(t.Context(), nothing, func(err error) { lost <- loss{time.Now(), err} })()
			time.Sleep(frozenAfter)
			wire.Freeze()

			var redelivered time.Time
			for redelivered.IsZero() {
				p := other.pull(t, 1, true)
				other.end(t, p)
				if len(other.leases) > 0 {
					redelivered = time.Now()
				}
			}
			synctest.Wait()
			if len(lost) != 1 {
				t.Fatalf("frozen after %v: lost %d times by the time of the redelivery", frozenAfter, len(lost))
			}
			first := <-lost
			if early := redelivered.Sub(first.at); !errors.Is(first.err, job.ErrLeaseLost) || early <= 0 || early > leaseMargin+ackWait/3 {
				t.Errorf("frozen after %v: lost %v before the redelivery: %v", frozenAfter, early, first.err)
			}
			theirs := <-other.leases
			if theirs.ID != e.ID || theirs.Delivered != 2 || !theirs.Held() {
				t.Errorf("redelivered %s, delivery %d, held %v", theirs.ID, theirs.Delivered, theirs.Held())
			}
			wire.Thaw() // the answers to all extensions arrive now
			time.Sleep(time.Second)
			if l.Held() || l.Remaining() != 0 || !errors.Is(l.Extend(t.Context()), job.ErrLeaseLost) {
				t.Error("revived by a late answer")
			}
			time.Sleep(10 * ackWait)
			if len(lost) > 0 {
				t.Errorf("lost again: %v", (<-lost).err)
			}
		})
	}
}

func nothing(context.Context) error { return nil }
