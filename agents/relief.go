package agents

import (
	"slices"
	"time"
)

// A lane is full when as many of its jobs wait here for a slot as the agent has
// places: more are left to others. But a job whose attempt died or was stopped may
// have a slot, or have one kept free for it, and wait to be delivered again. If the
// lane was full with all agents, those who wait for a slot and that job would wait for
// each other for ever. So a full lane is asked for one job still: the server gives out
// again what it must before anything new. Where that job has to wait as well, the last
// in line is handed back: by and by the first of all are with those who can perform
// them. Where that is the job that came, the lane is left alone for an ack wait.

// full reports whether nothing more is to be taken from the lane but what waits to
// be delivered again.
func (s *laneState) full(size int) bool { return len(s.queued) >= size }

// relieve waits on full lanes, where a place is free, and returns how long the next
// of them is left alone.
func (r *Runner) relieve(now time.Time) (rest time.Duration) {
	rest = time.Hour
	if r.stopped || r.free() <= 0 || len(r.early) >= r.mostEarly() {
		return rest
	}
	every := r.config.Queue.AckWait()
	for _, s := range r.lanes {
		if s.tap == nil || s.shut || !s.full(r.size) || s.waiting != nil || s.asked != nil {
			continue
		}
		if left := every - now.Sub(s.vain); left > 0 {
			rest = min(rest, left)
			continue
		}
		r.ask(s, order{jobs: 1, waiting: true, relief: true}, now)
	}
	return rest
}

// swap hands back the last in line of a full lane that brought a job which waits
// as well.
func (s *laneState) swap(came *admission, size int, now time.Time) {
	if len(s.queued) <= size {
		return
	}
	last := slices.MaxFunc(s.queued, func(a, b *admission) int { return a.ticket.Compare(b.ticket) })
	last.move(outside)
	close(last.swapped)
	if last == came {
		s.vain = now
	}
}
