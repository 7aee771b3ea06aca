package quotas

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/kv"
)

// stepSeveral lets in the tickets that need slots in several quotas: all in one
// atomic write, or none. It returns the lines that must not be written
// otherwise now, since such a ticket waits for them to be idle.
//
// A ticket that others have passed too often has slots kept free: in its first
// quota, and once it could have that one, in its next. So it keeps a slot idle
// only while it waits for quotas that follow; and since waiters stand in one
// order everywhere, the first of all is never kept waiting by another.
func (g *Gate) stepSeveral() (blocked map[*line]bool) {
	blocked = make(map[*line]bool)
	for _, t := range g.several() {
		lines := make([]*line, 0, len(t.names))
		nexts := make([]Slots, 0, len(t.names))
		ready, idle := true, true
		for _, name := range t.names {
			l := g.lines[name]
			if !l.loaded || l.behind() || blocked[l] {
				ready = false
				break
			}
			if t.marks[name].holds {
				continue
			}
			if l.known.undated() {
				if !l.busy {
					g.read(l)
				}
				ready = false
				break
			}
			next, _, _ := l.plan(g.passed())
			lines, nexts = append(lines, l), append(nexts, next)
			ready = ready && next.ready(t.claim.Nonce)
			idle = idle && !l.busy
		}
		switch {
		case ready && idle && !g.keepsAll(lines):
			// Against a keeper's writes the slower write of several keys would
			// be refused again and again.
			g.takeAll(lines)
		case ready && idle:
			for i := range nexts {
				nexts[i].admit(t.claim.Nonce, lines[i].revision)
			}
			g.writeAll(lines, nexts)
		case ready:
			for _, l := range lines {
				blocked[l] = true
			}
		default:
			for _, name := range t.names {
				if g.reserves(t, name) {
					g.lines[name].reserving[t.claim.Nonce], g.lines[name].dirty = true, true
				}
			}
		}
	}
	return blocked
}

// takeAll makes this gate the keeper of lines. Gates that need some in common
// would take them from each other for ever; so each is left some time to its
// keeper, and not the same by all.
func (g *Gate) takeAll(lines []*line) {
	rests := false
	for _, l := range lines {
		rest := termRest + rand.N(termRest) - time.Since(l.since)
		if l.known.Keeper == g.config.Dispatcher || rest <= 0 && !l.resting {
			continue
		}
		rests = true
		if !l.resting {
			l.resting = true
			time.AfterFunc(rest, func() { g.work.Do(func() { l.resting, l.dirty = false, true }) })
		}
	}
	if rests {
		return
	}
	for _, l := range lines {
		l.take, l.dirty = l.known.Keeper != g.config.Dispatcher, true
	}
}

// termRest is how long a quota is left to its keeper at least.
const termRest = 10 * time.Millisecond

func (g *Gate) keepsAll(lines []*line) bool {
	return !slices.ContainsFunc(lines, func(l *line) bool { return l.known.Keeper != g.config.Dispatcher })
}

// several lists the waiting tickets that name more than one quota, in the order
// in which they are to be let in.
func (g *Gate) several() []*Ticket {
	var list []*Ticket
	for _, l := range g.lines {
		for _, t := range l.tickets {
			if t.claim.Several && t.phase == waiting && t.held() && t.names[0] == l.name {
				list = append(list, t)
			}
		}
	}
	slices.SortFunc(list, (*Ticket).Compare)
	return list
}

// reserves reports whether a ticket is to have a slot kept free in a quota.
func (g *Gate) reserves(t *Ticket, name string) bool {
	passed := 0
	for _, each := range t.names {
		c, _ := g.lines[each].known.waiter(t.claim.Nonce)
		passed = max(passed, c.Passed)
	}
	if passed < patience {
		return false
	}
	for _, each := range t.names {
		if each == name {
			return true
		}
		l := g.lines[each]
		if c, _ := l.known.waiter(t.claim.Nonce); !t.marks[each].holds && (!c.Reserves || !l.known.ready(t.claim.Nonce)) {
			return false
		}
	}
	return false
}

// writeAll writes several quotas at once.
func (g *Gate) writeAll(lines []*line, nexts []Slots) {
	writes := make([]kv.Write[Slots], len(lines))
	for i, l := range lines {
		l.begin()
		l.stamp(&nexts[i], time.Now())
		writes[i] = kv.Write[Slots]{Key: g.set.key(l.name), Value: nexts[i], Revision: l.revision}
	}
	go func() {
		ctx, cancel := context.WithTimeout(g.ctx, tryPatience)
		defer cancel()
		revisions, err := g.set.bucket.UpdateAll(ctx, writes)
		g.work.Do(func() {
			for i, l := range lines {
				revision := uint64(0)
				if err == nil {
					revision = revisions[i]
				}
				g.written(l, nexts[i], writes[i].Revision, revision, err)
				// It is not known which of them refused, nor whether by a
				// marker that is its last message.
				l.stale = l.stale || errors.Is(err, kv.ErrConflict)
			}
		})
	}()
}
