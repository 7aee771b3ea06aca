package quotas

import (
	"slices"

	"github.com/asyncnats/asyncnats/job"
)

// line is what a gate knows of one quota, and who of this process is concerned
// with it. It is owned by the gate's loop.
type line struct {
	name string

	known    Slots
	revision uint64 // of known; 0 where the quota has no value
	newest   uint64 // the highest revision seen
	loaded   bool   // known is what was written at some time
	stale    bool   // known has to be read again
	unsure   bool   // a write was not answered, and may come yet
	busy     bool   // a write or a reading is under way
	refused  bool   // its value cannot be decoded, which was logged

	asked, answered int // readings begun, and the last that ended

	tickets   []*Ticket
	exits     []exit
	condemned map[condemned]bool // claims of jobs that are gone
	reserving map[job.Nonce]bool // jobs for which a slot is to be kept free
}

func newLine(name string) *line {
	return &line{name: name, condemned: make(map[condemned]bool), reserving: make(map[job.Nonce]bool)}
}

// condemned is a claim to be removed.
type condemned struct {
	nonce job.Nonce
	token job.Token
}

// idle reports whether the line can be written.
func (l *line) idle() bool { return l.loaded && !l.stale && !l.busy }

// learn takes what was read or written.
func (l *line) learn(now Slots, revision uint64) {
	l.known, l.revision, l.newest = now, revision, max(l.newest, revision)
	l.loaded, l.stale, l.refused = true, false, false
}

// claimOf returns the claim of a ticket's job, whichever attempt's it is.
func (l *line) claimOf(t *Ticket) (c Claim, holds, found bool) {
	if c, found = l.known.holder(t.claim.Nonce); found {
		return c, true, true
	}
	c, found = l.known.waiter(t.claim.Nonce)
	return c, false, found
}

// plan works out what to write: the line as it should be, and whether that is
// another than it is. It is a function of the line and its tickets.
func (l *line) plan() (next Slots, changed bool) {
	next, changed = l.known.clone(), l.unsure
	for _, e := range l.exits {
		changed = next.expel(e.nonce) || changed
	}
	for c := range l.condemned {
		changed = next.leave(c.nonce, c.token) || changed
	}
	for _, t := range l.tickets {
		if t.phase == leaving {
			changed = next.leave(t.claim.Nonce, t.claim.Token) || changed
		}
	}
	ahead := 0
	for _, t := range l.entering() {
		if !t.claim.Several && ahead >= l.depth() {
			continue
		}
		ahead++
		if t.marks[l.name].seen && next.has(func(c Claim) bool { return c.Nonce == t.claim.Nonce }) {
			continue // where it stood another attempt of the job may stand now, which must not be replaced
		}
		changed = next.enter(t.claim, l.revision) || changed
	}
	for nonce := range l.reserving {
		changed = next.reserve(nonce) || changed
	}
	return next, next.serve(l.revision) || changed
}

// entering lists the tickets that want a slot, in the order in which they are
// to get it.
func (l *line) entering() []*Ticket {
	var in []*Ticket
	for _, t := range l.tickets {
		switch {
		case t.phase == waiting && t.held() && !t.marks[l.name].holds:
			in = append(in, t)
		case t.phase == holding && l.revision == 0:
			// The quota's value was removed. It is written again as that of a
			// removed quota, so that those who hold it count.
			in = append(in, t)
		}
	}
	slices.SortFunc(in, func(a, b *Ticket) int {
		if before(a.claim, b.claim) {
			return -1
		}
		return 1
	})
	return in
}

// depth is how many waiters of one process are written down. Others wait in the
// process: the first of each process are enough to find the first of all, and a
// quota's value stays small.
func (l *line) depth() int {
	if l.known.Removed {
		return 1 << 30
	}
	return max(2, l.known.Size+1)
}
