package agents

import (
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/stream"
)

// lingerFor is how long waiting pulls of a full agent are left standing, for a place
// may be free again at once.
const lingerFor = 2 * time.Millisecond

// pull makes the pulls that the plan asks for.
func (r *Runner) pull(now time.Time) {
	if r.stopped || len(r.early) >= r.mostEarly() {
		return
	}
	open := make([]*laneState, 0, len(r.lanes))
	v := view{size: r.size, prefetch: prefetch(r.size, r.spent), taken: r.running + len(r.held) + r.entering, next: r.next}
	owed := 0 // asked for already
	for _, s := range r.lanes {
		if s.tap == nil || s.shut || s.full(r) && s.leaving > 0 || s.rest(r, now) > 0 {
			continue
		}
		open = append(open, s)
		v.taken += s.left
		if s.keeps = s.keeps && s.waiting != nil && now.Sub(s.looked) < keepFor; s.keeps {
			v.kept++
		}
		if s.turn && s.asked != nil {
			owed += s.left
		}
		v.lanes = append(v.lanes, laneView{
			hot: s.hot, asked: s.asked != nil, waiting: s.waiting != nil, since: now.Sub(s.looked), rank: s.rank,
			limited: s.limited(), most: max(1, r.size-len(s.queued)),
		})
	}
	if len(open) == 0 {
		return
	}
	v.next %= len(open)
	v.idle = r.free()
	v.turns = r.debt.turns(owed)
	orders, next := plan(v)
	r.next = next
	for _, o := range orders {
		r.ask(open[o.lane], o, now)
	}
}

func (r *Runner) ask(s *laneState, o order, now time.Time) {
	pull, err := s.tap.Pull(o.jobs, o.waiting)
	if err != nil {
		r.reopen(s, err)
		return
	}
	s.looked = now
	s.turn, s.keeps = o.turn, o.keep
	if s.relief = s.full(r); !s.relief {
		s.tried = nil
	}
	if o.waiting {
		s.waiting = pull
	} else {
		s.asked, s.left = pull, o.jobs
	}
}

// count notes that a pull brought a job, in its lane's turn or before lanes that
// come later.
func (r *Runner) count(s *laneState, p *stream.Pull) {
	switch {
	case s.turn:
		r.debt = r.debt.paid()
	case s.asked == p && slices.ContainsFunc(r.lanes, func(other *laneState) bool { return !other.shut && other.rank > s.rank }):
		r.debt = r.debt.passed(r.size + prefetch(r.size, r.spent))
	}
}

func (r *Runner) cancelPulls() {
	for _, s := range r.lanes {
		s.cancelPulls()
	}
}

// free is how many places have no job, nor one that may take them.
func (r *Runner) free() int { return r.size - r.running - len(r.held) - r.entering }

// linger cancels the waiting pulls of an agent that has been full for a
// moment, and returns how much of that moment is left; 0 where nothing is to
// be cancelled.
func (r *Runner) linger(now time.Time) time.Duration {
	if r.running+len(r.held) < r.size {
		r.fullAt = time.Time{}
		return 0
	}
	if r.fullAt.IsZero() {
		r.fullAt = now
	}
	if left := lingerFor - now.Sub(r.fullAt); left > 0 {
		return left
	}
	for _, s := range r.lanes {
		if s.waiting != nil {
			s.waiting.Cancel()
		}
	}
	return 0
}
