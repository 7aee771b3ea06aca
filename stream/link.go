package stream

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Link watches a connection for what a lease needs to know: a moment that
// lies surely before the server sent what just arrived.
//
// A delivery may lie in a socket or a buffer for as long as this process is
// stopped or the network stalls, while the server counts its ack wait; when it
// is read at last it looks fresh. So the link pings the server at an interval.
// Messages arrive in order: what arrives after a pong was sent after the ping.
// [Link.Proven] is the moment of the last ping but one that was answered; one
// older than needed, to cover a message that arrived before the last pong and
// is looked at after it.
type Link struct {
	nc    *nats.Conn
	every time.Duration

	mu   sync.Mutex
	last time.Time // of the last ping answered
	prev time.Time // of the one before it
}

// NewLink returns a link that pings at the given interval while it runs.
func NewLink(nc *nats.Conn, every time.Duration) *Link {
	return &Link{nc: nc, every: every}
}

// Proven returns a moment before the server sent anything that arrives from
// now on; the zero time where nothing was proven yet.
func (l *Link) Proven() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.prev
}

// Prove pings twice, so that Proven is now; for the beginning, and after a gap.
func (l *Link) Prove(ctx context.Context) error {
	for range 2 {
		if err := l.ping(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *Link) ping(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx, l.every)
	defer cancel()
	sent := time.Now()
	if err := l.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prev, l.last = l.last, sent
	return nil
}

// Run pings until ctx ends. A ping that fails is not an error: Proven stays
// behind, which is what it says.
func (l *Link) Run(ctx context.Context) {
	ticker := time.NewTicker(l.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		l.mu.Lock()
		gap := elapsed(l.last) > 2*l.every
		l.mu.Unlock()
		if gap {
			l.Prove(ctx)
		} else {
			l.ping(ctx)
		}
	}
}

// elapsed is how long ago t was, by whichever of the monotonic and the wall
// clock says more: the monotonic clock stands still while the machine is
// suspended, and the wall clock may be set back.
func elapsed(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}
