package quotas

import (
	"context"
	"slices"
	"time"
)

// Nobody writes to a rate limit when a grant expires, so somebody has to look.
// Whoever would write, the keeper or the gate of a job that needs several quotas,
// sets one timer for that moment. The others that wait set it for later, and ask
// the keeper then: if it has died, somebody else writes.

// passed is a time that the server's clock has passed.
func (g *Gate) passed() time.Time { return g.clock.passed(time.Now()) }

// passedFor is the time that a line's grants expire by. A keeper may know a little
// less of the server's time than others do, and must not be replaced for what it is
// about to do; so those are behind it.
func (g *Gate) passedFor(l *line) time.Time {
	if g.keeps(l) {
		return g.passed()
	}
	return g.passed().Add(-keeperPatience)
}

// watch has a line looked at again when its next grant expires, if anybody waits
// for that. next is what was planned for it now.
func (g *Gate) watch(l *line, next Slots) {
	if l.alarm != nil {
		l.alarm.Stop()
		l.alarm = nil
	}
	if !next.limitsRate() || next.Removed || len(next.Waiters) == 0 {
		return
	}
	entering := l.entering()
	writes := g.keeps(l) || slices.ContainsFunc(entering, func(t *Ticket) bool { return t.claim.Several })
	if !writes && len(entering) == 0 {
		return
	}
	if next.undated() && writes {
		g.read(l)
		return
	}
	now := time.Now()
	due := g.due(l, next, writes, now)
	slack, wait := g.clock.slack(now), due.Sub(g.clock.passed(now))
	switch {
	case due.IsZero() && next.undated():
		l.alarm = g.wake(l, keeperPatience, func() { l.stale = true })
	case due.IsZero():
	case g.clock.unset(), wait <= slack && slack > slackMost:
		g.askTime()
	case wait > slack:
		l.alarm = g.wake(l, wait-slack, func() {})
	default:
		l.alarm = g.wake(l, wait, func() {})
	}
}

// due is when a line is to be looked at, by the server's clock; zero where no
// grant has a date. writes says that this gate would write then.
func (g *Gate) due(l *line, next Slots, writes bool, now time.Time) (at time.Time) {
	at = next.next()
	if !g.keeps(l) && !at.IsZero() {
		at = at.Add(keeperPatience)
	}
	if !writes {
		return at
	}
	next.expire(g.clock.passed(now))
	if own := next.next(); at.IsZero() || !own.IsZero() && own.Before(at) {
		return own
	}
	return at
}

// wake has a line looked at after a while.
func (g *Gate) wake(l *line, after time.Duration, f func()) *time.Timer {
	return time.AfterFunc(after, func() {
		g.work.Do(func() {
			f()
			l.dirty = true
		})
	})
}

// askTime asks the server for the time, again and again until it answers, and has
// all rate limits looked at then.
func (g *Gate) askTime() {
	if g.asking {
		return
	}
	g.asking = true
	go func() {
		ctx, cancel := context.WithTimeout(g.ctx, tryPatience)
		defer cancel()
		server, err := g.set.bucket.Now(ctx)
		local := time.Now()
		if err != nil {
			select {
			case <-g.ctx.Done():
			case <-time.After(tryPause):
			}
		}
		g.work.Do(func() {
			g.asking = false
			if err == nil {
				g.clock.set(server, local)
			}
			for _, l := range g.lines {
				l.dirty = l.dirty || l.known.limitsRate()
			}
		})
	}()
}
