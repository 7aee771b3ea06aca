package quotas

import (
	"maps"
	"slices"
)

// observe tells a line's tickets and releases what its slots say of them.
func (g *Gate) observe(l *line) {
	if !l.loaded {
		return
	}
	for _, t := range slices.Clone(l.tickets) {
		g.observeTicket(l, t)
	}
	l.exits = slices.DeleteFunc(l.exits, func(e exit) bool {
		if l.answered < e.after || !l.settled(e.nonce) || l.known.has(func(c Claim) bool { return c.Nonce == e.nonce }) {
			return false
		}
		if e.left--; e.left == 0 {
			close(e.done)
		}
		return true
	})
	maps.DeleteFunc(l.condemned, func(gone condemned, _ bool) bool {
		return !l.known.has(func(c Claim) bool { return c.Nonce == gone.nonce && c.Token == gone.token })
	})
}

func (g *Gate) observeTicket(l *line, t *Ticket) {
	c, holds, found := l.claimOf(t)
	ours, m := found && t.is(c), t.marks[l.name]
	switch t.phase {
	case waiting:
		switch {
		case ours:
			m.seen, m.holds = true, holds
			if holds {
				t.fences[l.name] = c.Fence
			}
		case found && m.seen:
			g.lose(t)
			return
		default:
			m.holds = false
		}
		t.marks[l.name] = m
		if g.holdsAll(t) {
			t.phase = holding
			close(t.granted)
			t.tell()
		}
	case holding:
		if (!ours || !holds) && (l.revision != 0 || found) {
			g.lose(t)
		}
	case leaving:
		if !ours && l.settled(t.claim.Nonce) {
			m.out = true
			t.marks[l.name] = m
			g.out(t)
		}
	}
}

func (g *Gate) holdsAll(t *Ticket) bool {
	return !slices.ContainsFunc(t.names, func(name string) bool { return !t.marks[name].holds })
}

// tell closes known, once.
func (t *Ticket) tell() {
	if !t.told {
		t.told = true
		close(t.known)
	}
}

// lose ends a ticket that others have ended.
func (g *Gate) lose(t *Ticket) {
	close(t.lost)
	g.drop(t)
}

// drop forgets a ticket; what it has stays written.
func (g *Gate) drop(t *Ticket) {
	t.phase = gone
	for _, name := range t.names {
		l := g.line(name)
		l.tickets = slices.DeleteFunc(l.tickets, func(other *Ticket) bool { return other == t })
		l.dirty = true
		delete(l.reserving, t.claim.Nonce)
	}
	t.tell()
}

// leave has a ticket give back what it has.
func (g *Gate) leave(t *Ticket) {
	if t.phase == gone { // others have ended it
		close(t.left)
		return
	}
	t.phase = leaving
	for _, name := range t.names {
		g.line(name).dirty = true
	}
}

// out ends a ticket that has left all its quotas.
func (g *Gate) out(t *Ticket) {
	for _, name := range t.names {
		if !t.marks[name].out {
			return
		}
	}
	g.drop(t)
	close(t.left)
}
