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
// them. Where that is the job that came, it came in vain, and the next may be one that
// does not: jobs that are to be given out again come in turn. When the turn is over,
// which shows by a job that was never given out, or that came before, the lane is left
// alone for an ack wait.

// full reports whether nothing more is to be taken from the lane but what waits to
// be delivered again.
func (s *laneState) full(r *Runner) bool { return len(s.queued) >= r.size }

// rest is how long the lane is left alone, since it is full and brought jobs in vain.
func (s *laneState) rest(r *Runner, now time.Time) time.Duration {
	if !s.full(r) {
		return 0
	}
	return max(0, r.config.Queue.AckWait()-now.Sub(s.vain))
}

// swap hands back the last in line of a full lane that brought a job which waits
// as well.
func (s *laneState) swap(r *Runner, came *admission, now time.Time) {
	if len(s.queued) <= r.size {
		return
	}
	last := slices.MaxFunc(s.queued, func(a, b *admission) int { return a.ticket.Compare(b.ticket) })
	last.move(outside)
	close(last.swapped)
	s.leaving++
	if last != came {
		return
	}
	if came.lease.Delivered == 1 || s.tried[came.lease.Sequence] {
		s.vain, s.tried = now, nil
		return
	}
	if s.tried == nil {
		s.tried = make(map[uint64]bool)
	}
	s.tried[came.lease.Sequence] = true
}
