package stream

import (
	"context"
	"sync"
	"time"
)

// Clock tells the server's time without asking it each time: what is due is due
// by one clock, however wrong that of this machine is.
//
// Whatever the server stamps was stamped before it arrived here; so the stamp,
// and the time since then by the monotonic clock, lie behind the server's time
// by no more than the way took. The best of them all is as good as the fastest
// message. Those of more than two periods ago are forgotten, for clocks do not
// go at the same speed.
type Clock struct {
	mu        sync.Mutex
	begun     time.Time // the period
	now, last lead      // the best of this period, and of the one before
}

// lead is how far a stamp was before our clock when it arrived: mostly less
// than nothing.
type lead struct {
	by    time.Duration
	known bool
}

// clockPeriod is how often a clock is set.
const clockPeriod = 20 * time.Second

// epoch is what leads are measured from: the monotonic clock has no zero.
var epoch = time.Now()

// saw takes a stamp of the server that arrived at the given moment.
func (c *Clock) saw(stamp, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.Sub(c.begun) >= clockPeriod {
		c.begun, c.last, c.now = at, c.now, lead{}
	}
	by := stamp.Sub(epoch.Round(0)) - at.Sub(epoch)
	if !c.now.known || by > c.now.by {
		c.now = lead{by, true}
	}
}

// Now returns a time that the server's clock has reached, a little less than
// what it shows; the zero time where nothing was heard of the server yet.
func (c *Clock) Now() time.Time { return c.at(time.Now()) }

func (c *Clock) at(at time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	best := c.now
	if c.last.known && (!best.known || c.last.by > best.by) {
		best = c.last
	}
	if !best.known {
		return time.Time{}
	}
	return epoch.Round(0).Add(at.Sub(epoch) + best.by)
}

// Skew returns how far this machine's clock is ahead of the server's.
func (c *Clock) Skew() time.Duration {
	now := time.Now()
	server := c.at(now)
	if server.IsZero() {
		return 0
	}
	return now.Round(0).Sub(server)
}

// maxSkew is how much this machine's clock and the server's may differ before
// somebody is told.
const maxSkew = time.Second

// SetClock sets the link's clock by asking the server, and again every while
// until ctx ends; what arrives sets it too. set is called when the server has told
// the time for the first time: before, the clock may be behind by as long as jobs have
// waited. skewed is told how far this machine's clock is ahead of the server's, where
// that is a second or more, when it is noticed and when it has changed by as much since.
func (q *Queue) SetClock(ctx context.Context, link *Link, set func(), skewed func(ahead time.Duration)) {
	set = sync.OnceFunc(set)
	pause := time.NewTimer(0)
	defer pause.Stop()
	var told time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		stamp, err := q.serverTime(ctx)
		if err != nil {
			pause.Reset(time.Second)
			continue
		}
		link.Clock.saw(stamp, time.Now())
		set()
		if skew := link.Clock.Skew(); (skew - told).Abs() >= maxSkew {
			told = skew
			skewed(skew)
		}
		pause.Reset(clockPeriod * 3 / 4)
	}
}

func (q *Queue) serverTime(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	found, err := q.ns.js.Stream(ctx, q.names.stream())
	if err != nil {
		return time.Time{}, err
	}
	return found.CachedInfo().TimeStamp, nil
}
