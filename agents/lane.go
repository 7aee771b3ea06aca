package agents

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/stream"
)

// reopenAfter is how long a lane whose pull or consumer failed is left alone.
const reopenAfter = 250 * time.Millisecond

// laneState is what a Runner knows of a lane. Owned by Run.
type laneState struct {
	lane    stream.Lane
	rank    int             // in the agent's order, see [Order.rank]
	opening bool            // its tap is being opened, or will be
	shut    bool            // nothing is taken from it
	claims  context.Context // ends when the lane is shut, or the intake ends
	shutNow context.CancelFunc
	tap     *stream.Tap // nil while it is opened
	hot     bool
	waiting *stream.Pull
	asked   *stream.Pull
	left    int       // jobs that asked may still bring
	turn    bool      // the pull under way is for what is owed to the lane
	looked  time.Time // when it was last asked
	keeps   bool      // a place is kept for what waiting may bring
	trouble string    // why it could not be opened or pulled from, which was logged; empty where it could

	queued []*admission    // jobs of it that wait for a slot
	relief bool            // the waiting pull is of a full lane
	tried  map[uint64]bool // jobs that such pulls brought in vain, by sequence
	vain   time.Time       // when they had all come
	// leaving is how many of its jobs are being handed back for others; before the
	// server has them it would give out new ones in their place.
	leaving int
}

// open opens the lane's tap in the background, again and again until it
// succeeds.
func (r *Runner) open(s *laneState) {
	sink := stream.Sink{
		Deliver: func(p *stream.Pull, lease *stream.Lease) {
			r.box.Post(func() { r.delivered(s, p, lease) })
		},
		End: func(p *stream.Pull, err error) {
			r.box.Post(func() { r.ended(s, p, err) })
		},
	}
	s.opening = true
	go func() {
		tap, err := r.config.Queue.Tap(r.work, s.lane, r.config.Link, sink)
		r.box.Post(func() {
			s.opening = false
			if err != nil {
				r.reopen(s, err)
				return
			}
			s.tap = tap
			if s.trouble != "" {
				r.log.Info("lane is open again", "lane", s.lane.Token())
				r.mended(s)
			}
		})
	}()
}

// reopen opens a lane again after a while: its consumer may be gone. One that is shut
// is opened when something is to be taken from it again.
func (r *Runner) reopen(s *laneState, err error) {
	if r.stopped {
		return
	}
	if s.tap != nil {
		s.tap.Close()
		s.tap = nil
	}
	if s.shut {
		return
	}
	level := slog.LevelError
	if s.trouble != "" {
		level = slog.LevelDebug
	}
	trouble := fmt.Sprintf("lane %s: %v", s.lane.Token(), err)
	s.trouble = trouble
	r.trouble.Store(&trouble)
	r.log.Log(r.work, level, "lane failed, will be opened again", "lane", s.lane.Token(), "err", err)
	s.opening = true
	time.AfterFunc(reopenAfter, func() {
		r.box.Post(func() {
			if s.opening = !r.stopped && !s.shut; s.opening {
				r.open(s)
			}
		})
	})
}

// mended takes that a lane is open, or shut, whatever was before.
func (r *Runner) mended(s *laneState) {
	s.trouble = ""
	i := slices.IndexFunc(r.lanes, func(other *laneState) bool { return other.trouble != "" })
	if i < 0 {
		r.trouble.Store(nil)
		return
	}
	trouble := r.lanes[i].trouble
	r.trouble.Store(&trouble)
}

// limited reports whether the lane's jobs name quotas. How many of them are
// given out is the server's to limit, so it is not asked for more again and
// again.
func (s *laneState) limited() bool { return len(s.lane.Quotas()) > 0 }

func (r *Runner) ended(s *laneState, p *stream.Pull, err error) {
	switch p {
	case s.asked:
		// It brought less than it was to: the lane has no more.
		if s.left > 0 {
			s.hot = false
		}
		s.asked, s.left, s.turn = nil, 0, false
	case s.waiting:
		s.waiting, s.turn = nil, false
	}
	if err != nil && s.tap != nil {
		r.reopen(s, fmt.Errorf("pull: %w", err))
	}
}

func (s *laneState) cancelPulls() {
	if s.waiting != nil {
		s.waiting.Cancel()
	}
	if s.asked != nil {
		s.asked.Cancel()
	}
}
