package agents

import (
	"slices"
	"time"
)

// hold is a job that could start and has no place yet.
type hold struct {
	since  time.Time
	lane   *laneState
	slot   bool   // it has its slots, which nobody else can use meanwhile
	start  func() // called with a place
	refuse func() // called instead where there is none
}

// hold gives a job a place, or has it wait for one behind those that come
// before it.
func (r *Runner) hold(h hold) {
	if r.running < r.size && len(r.held) == 0 && !r.stopped {
		h.start()
		return
	}
	i, _ := slices.BinarySearchFunc(r.held, h, func(held, h hold) int {
		if h.before(held) {
			return 1
		}
		return -1
	})
	r.held = slices.Insert(r.held, i, h)
}

// before reports whether h starts before a job that is held already: by
// priority, then one that has its slots, then by the agent's preference.
func (h hold) before(held hold) bool {
	switch {
	case h.lane.lane.Priority != held.lane.lane.Priority:
		return h.lane.lane.Priority > held.lane.lane.Priority
	case h.slot != held.slot:
		return h.slot
	}
	return h.lane.rank < held.lane.rank
}
