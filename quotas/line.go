package quotas

import (
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// line is what a gate knows of one quota, and who of this process is concerned
// with it. It is owned by the gate's loop.
type line struct {
	name string

	known    Slots
	revision uint64    // of known; 0 where the quota has no value
	newest   uint64    // the highest revision seen
	told     time.Time // when known was learnt
	loaded   bool      // known is what was written at some time
	stale    bool      // known has to be read again
	unsure   bool      // a write was not answered, and may come yet
	busy     bool      // a write or a reading is under way
	refused  bool      // its value cannot be decoded, which was logged
	dirty    bool      // something happened since it was last looked at
	learnt   bool      // known was learnt since the tickets were told
	warned   time.Time // when it was said last that it cannot be written
	older    time.Time // since when readings show less than newest; zero where they do not

	asked, answered int  // readings begun, and the last that ended
	fresh           bool // a reading ended, and nothing was written or asked for since

	untold  *Slots      // what was known before a write of this gate, until others are told of it
	wrote   uint64      // the last revision that this gate wrote
	wroteAt time.Time   // when that was answered
	alarm   *time.Timer // for when a grant expires that is waited for

	tickets   []*Ticket
	exits     []exit
	condemned map[condemned]bool // claims of jobs that are gone
	reserving map[job.Nonce]bool // jobs for which a slot is to be kept free

	sent     []*request // to the keeper, not answered yet, in order
	since    time.Time  // when the term was learnt
	resting  bool       // the term is left some time yet
	dead     []string   // dispatchers that died, until it is known whether one is the keeper
	take     bool       // this gate must become the keeper, and so end the term
	left     departures // while this gate is the keeper
	guests   []*guest   // whom this gate writes for, as the keeper
	included int        // of them, in the write under way
}

// condemned is a claim to be removed.
type condemned struct {
	nonce job.Nonce
	token job.Token
}

func newLine(name string) *line {
	return &line{name: name, condemned: make(map[condemned]bool), reserving: make(map[job.Nonce]bool)}
}

// behind reports whether the line is to be read before anything else: what is known
// is not enough, or a reading is owed and the last thing was none.
func (l *line) behind() bool { return l.stale || l.owed() && !l.fresh }

// owed reports whether somebody waits for a reading that begins after they came,
// whatever is learnt before.
func (l *line) owed() bool {
	return slices.ContainsFunc(l.exits, func(e exit) bool { return e.after > l.asked })
}

// idle reports whether the line can be written.
func (l *line) idle() bool { return l.loaded && !l.behind() && !l.busy }

// settled reports whether nothing is under way that could yet write something
// about a job.
func (l *line) settled(nonce job.Nonce) bool {
	if !l.idle() || l.unsure || l.take {
		return false
	}
	return !slices.ContainsFunc(l.sent, func(r *request) bool {
		return slices.ContainsFunc(r.Ops, func(o op) bool { return o.Claim.Nonce == nonce })
	})
}

// learn takes what was read or written.
func (l *line) learn(now Slots, revision uint64) {
	if now.Term > l.known.Term {
		l.since = time.Now()
		l.sent, l.take = nil, false // void: they were for a term that is over
	}
	l.known, l.revision, l.newest, l.told = now, revision, max(l.newest, revision), time.Now()
	l.loaded, l.stale, l.refused, l.dirty, l.learnt, l.older = true, false, false, true, true, time.Time{}
}

// forget takes that what was known is not in the bucket any more, and that its
// revisions and terms are given out again.
func (l *line) forget() {
	l.newest, l.wrote, l.left = 0, 0, departures{}
	l.sent, l.take, l.untold = nil, false, nil
}

// claimOf returns the claim of a ticket's job, whichever attempt's it is.
func (l *line) claimOf(t *Ticket) (c Claim, holds, found bool) {
	if c, found = l.known.holder(t.claim.Nonce); found {
		return c, true, true
	}
	c, found = l.known.waiter(t.claim.Nonce)
	return c, false, found
}

// plan works out what to write: the line as it should be, what of that this
// process wants and has not asked for, and whether it is another than the line
// is. It is a function of the line, its tickets and its guests, and of a time that
// the server's clock has passed.
func (l *line) plan(now time.Time) (next Slots, ours []op, changed bool) {
	next = l.known.clone()
	next.expire(now)
	for _, r := range l.sent {
		for _, o := range r.Ops {
			next.do(o, l.revision)
		}
	}
	do := func(kind opKind, c Claim) {
		var over job.Token
		if seen, found := l.known.claim(c.Nonce); found {
			over = seen.Token
		}
		if o := (op{Kind: kind, Claim: c, Over: over}); next.do(o, l.revision) {
			ours = append(ours, o)
		}
	}
	for _, e := range l.exits {
		do(opExpel, Claim{Nonce: e.nonce})
	}
	for c := range l.condemned {
		do(opLeave, Claim{Nonce: c.nonce, Token: c.token})
	}
	for _, t := range l.tickets {
		if t.phase == leaving {
			do(l.wayOut(t), Claim{Nonce: t.claim.Nonce, Token: t.claim.Token})
		}
	}
	ahead := 0
	for _, t := range l.entering() {
		claimed := next.has(func(c Claim) bool { return c.Nonce == t.claim.Nonce })
		if !t.claim.Several && !claimed && ahead >= l.depth() {
			continue
		}
		ahead++
		if t.marks[l.name].seen && claimed {
			continue // where it stood another attempt of the job may stand now, which must not be replaced
		}
		c := t.claim
		if t.phase == holding {
			c.Several = false // it was let in, and is not to wait for others
		}
		do(opEnter, c)
	}
	for nonce := range l.reserving {
		do(opReserve, Claim{Nonce: nonce})
	}
	changed = l.unsure || l.take || len(ours) > 0
	for _, g := range l.guests {
		for _, o := range g.Ops {
			changed = next.do(o, l.revision) || changed
		}
	}
	// What was asked for already may make room, which is not another wish.
	served := next.serve(l.revision)
	return next, ours, changed || served && len(l.sent) == 0
}

// wayOut is how a ticket leaves. Programs that know no rate limits know but one
// way.
func (l *line) wayOut(t *Ticket) opKind {
	if t.unstarted && l.known.limitsRate() {
		return opWithdraw
	}
	return opLeave
}

// stamp notes on the holders that are new in next since when they hold.
func (l *line) stamp(next *Slots, now time.Time) {
	for i, c := range next.Holders {
		if _, before := l.known.holder(c.Nonce); !before {
			next.Holders[i].Since = now.UTC()
		}
	}
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
	slices.SortFunc(in, (*Ticket).Compare)
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
