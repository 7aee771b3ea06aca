package quotas

import (
	"cmp"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// patience is how many others may get a slot before a waiter that needs slots
// in several quotas at once, until slots are kept free for it.
const patience = 8

// Slots is a quota as it is written on the server: who has its slots, and who
// waits for one. This file is its arithmetic, without I/O; rate.go is what a quota
// with a period has beside it.
//
// In every revision that is ever written a holder is added only where there
// are fewer holders than Size, or where the quota is removed. There may be more
// holders than Size where Size was made smaller; then none is added. With a period
// it is grants that there are fewer of than Size.
type Slots struct {
	// Size is how many jobs may run at once or, with a period, how many may start
	// in each window of that length; 0 starts none.
	Size int `msgpack:"size" json:"size"`
	// Period makes the quota a rate limit. A removed one keeps it.
	Period Period `msgpack:"period,omitempty" json:"period,omitempty"`
	// Grants are the starts that count in a rate limit, in the order in which they
	// were granted. A job is among the holders as well while it runs, which limits
	// nothing.
	Grants []Grant `msgpack:"grants,omitempty" json:"grants,omitempty"`
	// Removed says that the quota limits nothing. Holders are written all the
	// same, so that they count when it is created again (FEATURES b6).
	Removed bool `msgpack:"removed,omitempty" json:"removed,omitempty"`
	// Fence is the last fencing token that was given.
	Fence uint64 `msgpack:"fence" json:"fence"`
	// Keeper names the gate that writes for all others, and Term counts the
	// gates that did.
	Keeper string `msgpack:"keeper,omitempty" json:"keeper,omitempty"`
	Term   uint64 `msgpack:"term,omitempty" json:"term,omitempty"`
	// Holders have a slot, in the order in which they got it.
	Holders []Claim `msgpack:"holders" json:"holders"`
	// Waiters wait for one, in the order in which they will get it.
	Waiters []Claim `msgpack:"waiters" json:"waiters"`
}

// Claim is one job's claim on a slot, made by one attempt.
type Claim struct {
	ID    job.ID    `msgpack:"id" json:"id"`
	Nonce job.Nonce `msgpack:"nonce" json:"nonce"`
	// Token is that of the attempt; it tells whose the claim is.
	Token      job.Token `msgpack:"token" json:"token"`
	Dispatcher string    `msgpack:"dispatcher" json:"dispatcher"`
	// Sequence is the job's place in its queue.
	Sequence uint64 `msgpack:"seq" json:"sequence"`
	// Interrupted jobs come before all others.
	Interrupted bool `msgpack:"interrupted,omitempty" json:"interrupted,omitempty"`
	// Since is when the job began to wait or, for a holder, when it got the
	// slot; by the clock of a dispatcher. Attempts that take over keep it.
	Since time.Time `msgpack:"since" json:"since"`

	// Fence is a holder's fencing token.
	Fence uint64 `msgpack:"fence,omitempty" json:"fence,omitempty"`

	// Several says that the job needs slots in several quotas, and gets all of
	// them at once or none.
	Several bool `msgpack:"several,omitempty" json:"several,omitempty"`
	// Passed counts the jobs that got a slot while such a one waited before
	// them.
	Passed int `msgpack:"passed,omitempty" json:"passed,omitempty"`
	// Reserves keeps a slot free for such a one.
	Reserves bool `msgpack:"reserves,omitempty" json:"reserves,omitempty"`
}

// op is one change that an attempt, or an administrator, wants of a quota. It can
// be repeated: where it is done already it changes nothing.
type op struct {
	Kind  opKind `msgpack:"op"`
	Claim Claim  `msgpack:"claim"`
	// Over is the token of the claim of the same job that may be replaced.
	Over job.Token `msgpack:"over,omitempty"`
	// Was and Be are the setting that may be changed, and the one to be.
	Was *setting `msgpack:"was,omitempty"`
	Be  *setting `msgpack:"be,omitempty"`
}

// setting is what an administrator says of a quota.
type setting struct {
	Size    int    `msgpack:"size"`
	Period  Period `msgpack:"period,omitempty"`
	Removed bool   `msgpack:"removed,omitempty"`
}

type opKind string

const (
	opEnter opKind = "enter"
	opLeave opKind = "leave"
	// opWithdraw is leave for a job that was not started.
	opWithdraw opKind = "withdraw"
	opExpel    opKind = "expel"
	opReserve  opKind = "reserve"
	opSet      opKind = "set"
)

// do makes one change. base is the revision that s was read at.
func (s *Slots) do(o op, base uint64) (changed bool) {
	switch o.Kind {
	case opEnter:
		if c, found := s.claim(o.Claim.Nonce); found && c.Token != o.Over {
			return false
		}
		return s.enter(o.Claim, base)
	case opLeave:
		return s.leave(o.Claim.Nonce, o.Claim.Token)
	case opWithdraw:
		return s.withdraw(o.Claim.Nonce, o.Claim.Token)
	case opExpel:
		return s.expel(o.Claim.Nonce)
	case opReserve:
		return s.reserve(o.Claim.Nonce)
	case opSet:
		if o.Was == nil || o.Be == nil || s.setting() != *o.Was || !o.Be.valid() {
			return false
		}
		s.set(*o.Be)
		return *o.Be != *o.Was
	}
	return false
}

func (s Slots) setting() setting { return setting{s.Size, s.Period, s.Removed} }

func (s *Slots) set(to setting) {
	s.Size, s.Period, s.Removed = to.Size, to.Period, to.Removed
	if to.Period == 0 {
		s.Grants = nil
	}
}

func (to setting) valid() bool { return to.Size >= 0 && to.Period >= 0 }

// Filled reports whether no slot is free, or no start left.
func (s Slots) Filled() bool { return s.free() <= 0 }

// free is how many slots are free, or starts left, reservations not counted.
func (s Slots) free() int {
	switch {
	case s.Removed:
		return 1 << 30
	case s.limitsRate():
		return s.Size - s.live()
	}
	return s.Size - len(s.Holders)
}

// places is how many jobs that name the quota can run at once, -1 for any number.
func (s Slots) places() int {
	if s.Removed || s.limitsRate() && s.Size > 0 {
		return -1
	}
	return s.Size
}

// clone returns a copy that shares nothing.
func (s Slots) clone() Slots {
	s.Holders, s.Waiters, s.Grants = slices.Clone(s.Holders), slices.Clone(s.Waiters), slices.Clone(s.Grants)
	return s
}

func find(claims []Claim, nonce job.Nonce) int {
	return slices.IndexFunc(claims, func(c Claim) bool { return c.Nonce == nonce })
}

// has reports whether there is such a claim.
func (s Slots) has(which func(Claim) bool) bool {
	return slices.ContainsFunc(s.Holders, which) || slices.ContainsFunc(s.Waiters, which)
}

// holder returns the job's claim among the holders.
func (s Slots) holder(nonce job.Nonce) (Claim, bool) { return at(s.Holders, find(s.Holders, nonce)) }

// waiter returns the job's claim among the waiters.
func (s Slots) waiter(nonce job.Nonce) (Claim, bool) { return at(s.Waiters, find(s.Waiters, nonce)) }

// claim returns the job's claim.
func (s Slots) claim(nonce job.Nonce) (Claim, bool) {
	if c, holds := s.holder(nonce); holds {
		return c, true
	}
	return s.waiter(nonce)
}

func at(claims []Claim, i int) (Claim, bool) {
	if i < 0 {
		return Claim{}, false
	}
	return claims[i], true
}

// compare is the order in which waiters are served: interrupted jobs first, else
// in the order of the queue.
func compare(a, b Claim) int {
	switch {
	case a.Interrupted && !b.Interrupted:
		return -1
	case b.Interrupted && !a.Interrupted:
		return 1
	}
	return cmp.Compare(a.Sequence, b.Sequence)
}

// enter adds a claim to the waiters. Where an earlier attempt of the same job
// has a slot or waits, the claim takes over its place; a slot then gets a new
// fencing token. In a rate limit it waits again, before those who never started:
// a start is a start. base is the revision that s was read at. It reports whether
// anything changed.
func (s *Slots) enter(c Claim, base uint64) (changed bool) {
	if i := find(s.Holders, c.Nonce); i >= 0 {
		switch {
		case s.Holders[i].Token == c.Token:
			return false
		case !s.limitsRate():
			c.Fence, c.Since = s.nextFence(base), s.Holders[i].Since
			s.Holders[i] = c
			return true
		}
		s.Holders = slices.Delete(s.Holders, i, i+1)
		c.Interrupted = true
	}
	if i := find(s.Waiters, c.Nonce); i >= 0 {
		old := s.Waiters[i]
		if old.Token == c.Token {
			return false
		}
		c.Passed, c.Reserves, c.Since = old.Passed, old.Reserves, old.Since
		s.Waiters = slices.Delete(s.Waiters, i, i+1)
	}
	i, _ := slices.BinarySearchFunc(s.Waiters, c, compare)
	s.Waiters = slices.Insert(s.Waiters, i, c)
	return true
}

// leave removes a job's claim, if it is that attempt's.
func (s *Slots) leave(nonce job.Nonce, token job.Token) (changed bool) {
	return s.remove(func(c Claim) bool { return c.Nonce == nonce && c.Token == token })
}

// expel removes a job's claim, whichever attempt's it is.
func (s *Slots) expel(nonce job.Nonce) (changed bool) {
	return s.remove(func(c Claim) bool { return c.Nonce == nonce })
}

func (s *Slots) remove(which func(Claim) bool) (changed bool) {
	had := len(s.Holders) + len(s.Waiters)
	s.Holders = slices.DeleteFunc(s.Holders, which)
	s.Waiters = slices.DeleteFunc(s.Waiters, which)
	return len(s.Holders)+len(s.Waiters) < had
}

// serve gives free slots to waiters, in order. One that needs slots in several
// quotas is left waiting, for only [Slots.admit] knows whether it can have them
// all; it is counted as passed by those behind it, and where it reserves a slot
// that one is kept free.
func (s *Slots) serve(base uint64) (changed bool) {
	free := s.free()
	waiting := s.Waiters[:0]
	for _, c := range s.Waiters {
		switch {
		case c.Several:
			if c.Reserves {
				free--
			}
			waiting = append(waiting, c)
		case free > 0:
			free--
			s.hold(c, base)
			for i := range waiting {
				waiting[i].Passed++
			}
			changed = true
		default:
			waiting = append(waiting, c)
		}
	}
	s.Waiters = waiting
	return changed
}

// ready reports whether a waiter that needs slots in several quotas could have
// one of this quota now, without passing anybody who comes first.
func (s Slots) ready(nonce job.Nonce) bool {
	free := s.free()
	for _, c := range s.Waiters {
		switch {
		case c.Nonce == nonce:
			return free > 0
		case !c.Several, c.Reserves:
			free--
		}
	}
	return false
}

// reserve has a slot kept free for a waiter.
func (s *Slots) reserve(nonce job.Nonce) (changed bool) {
	i := find(s.Waiters, nonce)
	if i < 0 || s.Waiters[i].Reserves {
		return false
	}
	s.Waiters[i].Reserves = true
	return true
}

// admit gives a slot to a waiter that is ready in all its quotas.
func (s *Slots) admit(nonce job.Nonce, base uint64) {
	i := find(s.Waiters, nonce)
	c := s.Waiters[i]
	s.Waiters = slices.Delete(s.Waiters, i, i+1)
	for j := range i {
		if s.Waiters[j].Several {
			s.Waiters[j].Passed++
		}
	}
	s.hold(c, base)
}

func (s *Slots) hold(c Claim, base uint64) {
	c.Passed, c.Reserves = 0, false
	c.Fence = s.nextFence(base)
	if s.limitsRate() {
		s.grant(c.Fence)
	}
	s.Holders = append(s.Holders, c)
}

// nextFence draws a fencing token: higher than all before, even where the
// quota's value was removed in between, for revisions do not go back.
func (s *Slots) nextFence(base uint64) uint64 {
	s.Fence = max(s.Fence, base) + 1
	return s.Fence
}
