package quotas

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/kv"
)

// read reads a quota again.
func (g *Gate) read(l *line) {
	l.busy = true
	l.asked++
	reading, began := l.asked, l.newest
	go func() {
		ctx, cancel := context.WithTimeout(g.ctx, tryPatience)
		defer cancel()
		now, revision, stored, err := g.set.read(ctx, l.name)
		g.work.Do(func() {
			l.busy, l.fresh, l.dirty = false, true, true
			if err == nil && revision != 0 && revision < began && l.newest == began {
				err = g.goBack(l)
			}
			if err == nil {
				l.answered = reading
			}
			if err == nil && revision != 0 && revision == l.wrote && now.limitsRate() {
				g.clock.set(stored, l.wroteAt)
			}
			switch {
			case errors.Is(err, kv.ErrUnreadable):
				g.refuse(l, err)
			case err != nil:
				g.failed(l, "quota cannot be read, will be tried again", err)
			case revision >= l.newest, revision == 0 && l.newest == began:
				g.learn(l, now, revision)
			default:
				// More was told meanwhile. Whether a value that is missing was
				// removed before that or since is not known.
				l.stale = revision == 0
			}
		})
	}()
}

// errOlder: a reading shows less than was known before it began.
var errOlder = errors.New("value is older than the one before")

// goBack takes that a reading shows an older revision than was known before it
// began. A leader that was deposed may answer so, until it knows; or the bucket has
// lost what was written since. What lasts for an ack wait is the latter: then the
// error is nil, and nothing counts that was known.
func (g *Gate) goBack(l *line) error {
	if l.older.IsZero() {
		l.older = time.Now()
		g.log.Error("quota is older than it was, its jobs wait: see whether its server was restored, or has lost data; after an ack wait it is used as it is", "quota", l.name)
	}
	if time.Since(l.older) < g.config.AckWait {
		return errOlder
	}
	l.forget()
	return nil
}

// write writes a quota.
func (g *Gate) write(l *line, next Slots) {
	l.begin()
	l.stamp(&next, time.Now())
	base := l.revision
	if next.Keeper != g.config.Dispatcher {
		// Terms rise even where the quota's value was removed in between.
		next.Keeper, next.Term = g.config.Dispatcher, max(next.Term, base)+1
	}
	if base == 0 {
		go func() {
			ctx, cancel := context.WithTimeout(g.ctx, tryPatience)
			defer cancel()
			revision, err := g.set.write(ctx, l.name, next, base)
			g.work.Do(func() { g.written(l, next, base, revision, err) })
		}()
		return
	}
	reply, number := g.expect(tryPatience, func(answer *nats.Msg) {
		if answer == nil {
			g.written(l, next, base, 0, context.DeadlineExceeded)
			return
		}
		revision, err := kv.Answered(answer)
		g.written(l, next, base, revision, err)
	})
	if err := g.set.bucket.Send(g.set.key(l.name), next, base, kv.Forever, reply); err != nil {
		g.forget(number)
		g.written(l, next, base, 0, err)
	}
}

// begin notes that a write is under way, for all guests there are.
func (l *line) begin() {
	l.busy, l.fresh, l.included = true, false, len(l.guests)
	if l.untold == nil {
		was := l.known
		l.untold = &was
	}
}

// written takes how a write ended.
func (g *Gate) written(l *line, next Slots, base, revision uint64, err error) {
	l.busy, l.dirty = false, true
	switch {
	case err == nil:
		l.unsure, l.take = false, false
		l.wrote, l.wroteAt = revision, time.Now()
		if revision >= l.newest {
			g.learn(l, next, revision)
			g.spread(l)
			l.stale = next.undated()
		}
	case errors.Is(err, kv.ErrConflict):
		// Refused for what it was based on; whatever of ours was under way
		// before was based on the same, or older. If that was written, others are
		// to be told of it yet.
		if !l.unsure {
			l.untold = nil
		}
		l.unsure = false
		l.stale = l.stale || l.revision == base
	default:
		l.unsure = true
		if !kv.Unanswered(err) {
			g.warn(l, err)
		}
		g.failed(l, "quota cannot be written, will be tried again", err)
	}
}

// warn says that a write was refused for another reason than what it was based on,
// now and then while that lasts.
func (g *Gate) warn(l *line, err error) {
	if g.ctx.Err() != nil || time.Since(l.warned) < warnEvery {
		return
	}
	l.warned = time.Now()
	g.log.Warn("quota cannot be written, its jobs wait: see whether its bucket or its server is full, or its value larger than max_payload", "quota", l.name, "err", err)
}

// failed has a line read again after a while.
func (g *Gate) failed(l *line, message string, err error) {
	if g.ctx.Err() != nil {
		return
	}
	g.log.Debug(message, "quota", l.name, "err", err)
	l.busy = true
	time.AfterFunc(tryPause, func() {
		g.work.Do(func() { l.busy, l.stale, l.dirty = false, true, true })
	})
}
