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
// [Link.Proven] is the moment of the last ping but one that was answered, at
// least an interval before the last: that covers a message that arrived before
// the last pong and is looked at after it.
type Link struct {
	// Clock is the server's, as far as this connection knows it.
	Clock Clock

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

// Run pings until ctx ends. A ping that fails leaves Proven behind, which is
// all there is to say.
func (l *Link) Run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		l.ping(ctx)
		pause.Reset(l.every) // not a ticker, whose ticks may follow each other closely
	}
}

func (l *Link) ping(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.every)
	defer cancel()
	sent := time.Now()
	if l.nc.FlushWithContext(ctx) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prev, l.last = l.last, sent
}

// later returns the later of two moments.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// elapsed is how long ago t was, by whichever of the monotonic and the wall
// clock says more: the monotonic clock stands still while the machine is
// suspended, and the wall clock may be set back.
func elapsed(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}
