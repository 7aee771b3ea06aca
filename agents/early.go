package agents

import (
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/stream"
)

// early is a job that was given out shortly before it is due. It has no place
// yet, and needs none.
type early struct {
	lane   *laneState
	lease  *stream.Lease
	due    time.Time // by our own monotonic clock
	relief bool      // see [Runner.take]
}

// mostEarly is how many jobs a runner holds until they are due. With so many it
// asks for no more: whoever has room takes the others.
func (r *Runner) mostEarly() int { return max(64, 8*r.size) }

// tooEarly holds a job until it is due, where that is soon; it reports false
// for all others.
func (r *Runner) tooEarly(s *laneState, lease *stream.Lease, relief bool) bool {
	if lease.Due.IsZero() {
		return false
	}
	now := time.Now()
	wait := lease.Due.Sub(r.config.Link.Clock.Now())
	if wait <= 0 || wait > stream.MaxHold {
		return false
	}
	r.early = append(r.early, early{s, lease, now.Add(wait), relief})
	return true
}

// takeDue takes the jobs that are due now, and returns when the next one is.
func (r *Runner) takeDue(now time.Time) (next time.Duration) {
	next = time.Hour
	var due []early
	r.early = slices.DeleteFunc(r.early, func(e early) bool {
		if left := e.due.Sub(now); left > 0 && !r.stopped && !e.lane.shut {
			next = min(next, left)
			return false
		}
		due = append(due, e)
		return true
	})
	slices.SortStableFunc(due, func(a, b early) int { return a.lease.Due.Compare(b.lease.Due) })
	for _, e := range due {
		r.take(e.lane, e.lease, e.relief)
	}
	return next
}
