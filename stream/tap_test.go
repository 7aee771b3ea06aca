package stream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func TestPullNoWait(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := tap(t, q)
		begin := time.Now()
		if err := c.end(t, c.pull(t, 5, false)); err != nil {
			t.Errorf("of an empty lane: %v", err)
		}
		entries := []Entry{putNew(t, q), putNew(t, q), putNew(t, q)}
		put(t, q, chosen("", "another.task"))
		synctest.Wait() // the consumer has heard of them: a put is answered before
		for i, n := range []int{2, 5, 1} {
			if err := c.end(t, c.pull(t, n, false)); err != nil {
				t.Errorf("pull %d: %v", i, err)
			}
		}
		if len(c.leases) != 3 {
			t.Fatalf("%d jobs, want 3", len(c.leases))
		}
		for i, e := range entries {
			l := <-c.leases
			if l.ID != e.ID || l.Lane != lane || l.Illegal != nil || l.Delivered != 1 || l.Pending != uint64(2-i) || !sameNonce(l.Stored, e) {
				t.Errorf("job %d: %+v", i, l)
			}
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("all took %v", took)
		}
	})
}

func TestPullWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := tap(t, q)
		p := c.pull(t, 3, true)
		for range 3 {
			time.Sleep(9 * time.Second)
			if len(c.ends) > 0 {
				t.Fatalf("ended early: %v", (<-c.ends).err)
			}
			e := putNew(t, q)
			synctest.Wait()
			l := <-c.leases
			if err := l.Ack(); err != nil || l.ID != e.ID {
				t.Errorf("brought %s, want %s; ack: %v", l.ID, e.ID, err)
			}
		}
		if err := c.end(t, p); err != nil {
			t.Error(err)
		}
		c.wantEndedOnce(t, p)
	})
}

// However a pull ends, the sink hears of it exactly once, in bounded time.
func TestPullEndsOnce(t *testing.T) {
	fine := func(err error) bool { return err == nil }
	unanswered := func(err error) bool { return errors.Is(err, ErrUnanswered) }
	refused := func(err error) bool { return err != nil && !errors.Is(err, ErrUnanswered) }
	either := func(error) bool { return true }
	type scene struct {
		*testing.T
		s    *natstest.Server
		wire *natstest.Wire
		q    *Queue // on another wire
		c    *tapped
		p    *Pull
	}
	tests := map[string]struct {
		patient bool // the pull waits
		act     func(scene)
		within  time.Duration
		want    func(error) bool
	}{
		"fulfilled":    {true, func(s scene) { putNew(s.T, s.q) }, 0, fine},
		"empty":        {false, func(scene) {}, 0, fine},
		"in vain":      {true, func(scene) {}, pullWait + time.Second, fine},
		"cancelled":    {true, func(s scene) { s.p.Cancel() }, 0, fine},
		"twice":        {true, func(s scene) { s.p.Cancel(); s.p.Cancel() }, 0, fine},
		"after all":    {false, func(s scene) { synctest.Wait(); s.p.Cancel() }, 0, fine},
		"no consumer":  {true, func(s scene) { deleteConsumer(s.T, s.q) }, 0, refused},
		"no stream":    {true, func(s scene) { deleteStream(s.T, s.q) }, 0, refused},
		"restart":      {true, func(s scene) { s.s.Restart(s.T) }, 12 * time.Second, either},
		"server gone":  {true, func(s scene) { s.s.Stop() }, 12 * time.Second, either},
		"cut":          {true, func(s scene) { s.wire.Cut() }, 12 * time.Second, unanswered},
		"cut shortly":  {true, func(s scene) { s.wire.Cut(); s.wire.Restore() }, pullWait + time.Second, either},
		"frozen":       {true, func(s scene) { s.wire.Freeze() }, 12 * time.Second, unanswered},
		"cut, cancel":  {true, func(s scene) { s.wire.Cut(); s.p.Cancel() }, 12 * time.Second, either},
		"cancel, cut":  {true, func(s scene) { s.p.Cancel(); s.wire.Cut() }, 12 * time.Second, either},
		"freeze, end":  {true, func(s scene) { s.wire.Freeze(); s.p.Cancel() }, 12 * time.Second, either},
		"closed":       {true, func(s scene) { s.c.queue.conn().Close() }, 12 * time.Second, either},
		"close, end":   {true, func(s scene) { s.c.queue.conn().Close(); s.p.Cancel() }, 12 * time.Second, either},
		"no-wait, cut": {false, func(s scene) { s.wire.Cut() }, 6 * time.Second, either},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
				faulty, wire := wired(t, s)
				c := tap(t, faulty)
				if !test.patient && strings.HasSuffix(name, "cut") {
					wire.Freeze() // else it would be over before
				}
				p := c.pull(t, 1, test.patient)
				if test.patient {
					time.Sleep(2 * time.Second)
				}
				begin := time.Now()
				test.act(scene{t, s, wire, q, c, p})
				if err := c.end(t, p); !test.want(err) {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(begin); took > test.within {
					t.Errorf("took %v, want at most %v", took, test.within)
				}
				c.wantEndedOnce(t, p)
			})
		})
	}
}

// A job that lies in the frozen wire while its pull is given up is not brought after the end, and not lost: it comes
// back after its ack wait at the latest.
func TestDeliveryAfterEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		faulty, wire := wired(t, s)
		c := tap(t, faulty)
		p := c.pull(t, 1, true)
		time.Sleep(time.Second)
		wire.Freeze()
		e := putNew(t, q)
		if err := c.end(t, p); !errors.Is(err, ErrUnanswered) {
			t.Errorf("ended with %v", err)
		}
		wire.Thaw()
		c.wantEndedOnce(t, p)
		again := c.pull(t, 1, false)
		if l := c.next(t); l.ID != e.ID || !l.Held() {
			t.Errorf("brought %s, held %v", l.ID, l.Held())
		}
		c.end(t, again)
	})
}

// A pull on a lane whose consumer is gone fails; a tap that is opened again makes it again.
func TestTapAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := tap(t, q)
		e := putNew(t, q)
		deleteConsumer(t, q)
		for _, waiting := range []bool{false, true} {
			within(t, 0, "the pull", func() {
				if err := c.end(t, c.pull(t, 1, waiting)); err == nil {
					t.Error("ended without error")
				}
			})
		}
		if l := tap(t, q).take(t); l.ID != e.ID {
			t.Errorf("brought %s, want %s", l.ID, e.ID)
		}
	})
}

func TestTapRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := consumerConfig(q.names, lane, ackWait)
		c.MaxDeliver = 3
		if _, err := q.ns.js.CreateConsumer(t.Context(), "ASYNC_media", c); err != nil {
			t.Fatal(err)
		}
		_, err := q.Tap(t.Context(), lane, NewLink(q.conn(), time.Second), Sink{})
		found, ok := errors.AsType[*ConfigError](err)
		if !ok || found.What != "consumer image=thumb of stream ASYNC_media" || len(found.Problems) != 1 {
			t.Errorf("%v, want a ConfigError", err)
		}
		deleteStream(t, q)
		if _, err := q.Tap(t.Context(), Lane{Task: "other"}, NewLink(q.conn(), time.Second), Sink{}); !errors.Is(err, ErrNoQueue) {
			t.Errorf("%v, want ErrNoQueue", err)
		}
	})
}

// A consumer that somebody made, or changed, with another ack wait is used with that.
func TestTapForeignAckWait(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := consumerConfig(q.names, lane, 4*ackWait)
		c.Description, c.MaxAckPending = "mine", 17
		if _, err := q.ns.js.CreateConsumer(t.Context(), "ASYNC_media", c); err != nil {
			t.Fatal(err)
		}
		putNew(t, q)
		l := tap(t, q).take(t)
		if left := l.Remaining(); left < 3*ackWait {
			t.Errorf("held for %v, want nearly %v", left, 4*ackWait)
		}
	})
}

// Pulls one after another use one subscription, and nothing is left of a closed tap, even if it was closed too early.
func TestPipesAreReused(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, _ *Queue) {
		nc := s.Connect(t)
		q := createQueue(t, nc, Config{})
		c := tap(t, q)
		if _, err := nc.Request("nobody", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
			t.Fatal(err) // the subscription for answers exists now
		}
		base := nc.NumSubscriptions()
		for i := range 100 {
			if i%2 == 0 {
				putNew(t, q)
				c.take(t) // a pull that does not wait may miss what was put just now
			}
			c.end(t, c.pull(t, 1, false))
		}
		if got := nc.NumSubscriptions(); got != base+1 {
			t.Errorf("%d subscriptions after many pulls, want 1", got-base)
		}
		pulls := []*Pull{c.pull(t, 1, true), c.pull(t, 1, true), c.pull(t, 1, true)}
		if got := nc.NumSubscriptions(); got != base+3 {
			t.Errorf("%d subscriptions for three pulls", got-base)
		}
		for _, p := range pulls {
			p.Cancel()
			c.end(t, p)
		}
		closed, last := c.pull(t, 1, true), c.pull(t, 1, true)
		putNew(t, q)
		c.end(t, closed)
		c.Close()
		putNew(t, q)
		c.end(t, last)
		if got := nc.NumSubscriptions(); got != base {
			t.Errorf("%d subscriptions left by a closed tap", got-base)
		}
	})
}

// What a job may not be called is delivered all the same, under a name of our own, so that it can be told.
func TestIllegalJob(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		c := tap(t, q)
		for _, id := range []string{"a~b", strings.Repeat("x", 129), "straße"} {
			ack, err := q.ns.js.Publish(t.Context(), "async.media.job.image=thumb."+id, []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			l := c.take(t)
			if _, named := errors.AsType[*job.NameError](l.Illegal); !named || l.ID != job.ID(fmt.Sprintf("illegal-%d", ack.Sequence)) {
				t.Errorf("%s: ID %s, %v", id, l.ID, l.Illegal)
			}
			if _, err := job.ParseID(string(l.ID)); err != nil {
				t.Error(err)
			}
			if err := l.Ack(); err != nil {
				t.Error(err)
			}
		}
	})
}

func deleteConsumer(t *testing.T, q *Queue) {
	t.Helper()
	if err := q.ns.js.DeleteConsumer(t.Context(), q.names.stream(), lane.Token()); err != nil {
		t.Fatal(err)
	}
}

func deleteStream(t *testing.T, q *Queue) {
	t.Helper()
	if err := q.ns.js.DeleteStream(t.Context(), q.names.stream()); err != nil {
		t.Fatal(err)
	}
}
