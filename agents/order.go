package agents

import (
	"context"
	"slices"
	"strings"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Order is what a Runner is to do now. It can be given another at any time.
type Order struct {
	Agent Agent
	// Paused has it take no more jobs.
	Paused bool
	// Tasks has it take no more jobs of these.
	Tasks []string
}

// takes reports whether jobs of a task are to be taken.
func (o Order) takes(task string) bool {
	return !o.Paused && o.Agent.Takes(task) && !slices.Contains(o.Tasks, task)
}

// rank is the place of a lane in the order in which the agent takes jobs, 0 the
// first: by priority, and among lanes of one by the agent's preference.
func (o Order) rank(lane stream.Lane) int {
	return int(job.High-lane.Priority)*(len(o.Agent.Prefer)+1) + o.Agent.Rank(lane.Task)
}

// Set gives the runner another order. Jobs that are performed go on, also where
// they are more than the new size; nothing starts until they are fewer. What was
// claimed and not started, and is not to be taken any more, is handed back.
func (r *Runner) Set(o Order) {
	r.box.Post(func() {
		r.order.Store(&o)
		r.size = o.Agent.Places()
		for _, s := range r.lanes {
			s.rank = o.rank(s.lane)
			r.turn(s, o.takes(s.lane.Task))
		}
	})
}

// Able reports whether the runner has a handler for a lane's jobs.
func (r *Runner) Able(lane stream.Lane) bool {
	_, able := r.config.Handlers[lane.Task]
	return able
}

// AddLane tells the runner of a lane, from which it takes jobs whenever its
// order says so. It may be called more than once for a lane, and before Run.
func (r *Runner) AddLane(lane stream.Lane) {
	if !r.Able(lane) {
		return
	}
	r.box.Post(func() {
		known := slices.ContainsFunc(r.lanes, func(s *laneState) bool { return s.lane == lane })
		if known || r.stopped {
			return
		}
		o := r.order.Load()
		s := &laneState{lane: lane, rank: o.rank(lane), shut: true, shutNow: func() {}}
		r.lanes = append(r.lanes, s)
		slices.SortFunc(r.lanes, func(a, b *laneState) int { return strings.Compare(a.lane.Token(), b.lane.Token()) })
		r.turn(s, o.takes(lane.Task))
	})
}

// turn opens or shuts a lane.
func (r *Runner) turn(s *laneState, open bool) {
	switch {
	case open && s.shut:
		s.shut = false
		s.claims, s.shutNow = context.WithCancel(r.intake)
		if s.tap == nil && !s.opening {
			r.open(s)
		}
	case !open && !s.shut:
		s.shut = true
		s.shutNow()
		s.cancelPulls()
		r.mended(s)
	}
}
