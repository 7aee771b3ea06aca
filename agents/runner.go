package agents

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/asyncnats/asyncnats/internal/mailbox"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

const (
	// holdFor is how long a job that was delivered to a full agent waits for a
	// place before it is handed back.
	holdFor = 100 * time.Millisecond
	// lingerFor is how long waiting pulls of a full agent are left standing,
	// for a place may be free again at once.
	lingerFor = 2 * time.Millisecond
	// reopenAfter is how long a lane whose pull or consumer failed is left
	// alone.
	reopenAfter = 250 * time.Millisecond
	// abandonAfter is how long handlers have to return after their context
	// ended because the dispatcher stops.
	abandonAfter = time.Second
)

// Config is what a Runner works with. Every field but Observe and Log is
// required.
type Config struct {
	// Agent is what the runner is called and does at first; see [Runner.Set].
	Agent      Agent
	Queue      *stream.Queue
	Link       *stream.Link
	Gate       *quotas.Gate // into the queue's quotas
	Handlers   map[string]job.Handler
	Dispatcher string // UUID
	// Observe is told what becomes of jobs, from several goroutines. It must not
	// block.
	Observe func(Report)
	Log     *slog.Logger // of errors and what is out of the ordinary
	Trace   *slog.Logger // of each job
}

// Runner carries out one agent in one queue.
//
// Its state is owned by the goroutine in [Runner.Run]; everything else reaches
// it through the mailbox.
type Runner struct {
	config     Config
	log, trace *slog.Logger
	box        *mailbox.Mailbox
	order      atomic.Pointer[Order]  // written by Run
	trouble    atomic.Pointer[string] // written by Run; nil for none

	// owned by Run
	size    int
	running int
	held    []hold // in the order in which they will start
	// Jobs that name quotas and have no place yet: all of them, and those of
	// whom it is not known yet whether they must wait for a slot.
	admissions, entering int
	refusing             int // jobs that are handed back now
	settling             int // parts that are completed and of which their wholes are told now
	early                []early
	lanes                []*laneState
	next                 int           // the lane whose turn it is
	debt                 debt          // to lanes that are passed over
	spent                time.Duration // on a job, of late
	fullAt               time.Time     // since when the agent is full; zero where it is not
	stopped              bool          // takes no more
	intake               context.Context
	work                 context.Context
	idle                 []worker // those without a job

	over   chan struct{} // closed when Run returns
	jobs   jobSet
	leases leaseSet
}

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
	failing bool      // it could not be opened or pulled from, which was logged

	queued []*admission // jobs of it that wait for a slot
	relief bool         // the waiting pull is of a full lane
	vain   time.Time    // when such a pull last brought a job in vain
}

// NewRunner returns a runner without lanes. It starts nothing.
func NewRunner(c Config) *Runner {
	if c.Observe == nil {
		c.Observe = func(Report) {}
	}
	r := &Runner{config: c, log: logger(c, c.Log), trace: logger(c, c.Trace), box: mailbox.New(), size: c.Agent.Places(), over: make(chan struct{})}
	r.order.Store(&Order{Agent: c.Agent})
	return r
}

func logger(c Config, log *slog.Logger) *slog.Logger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return log.With("queue", c.Queue.Name(), "agent", c.Agent.Name)
}

// Reset has all pulls made again. To be called after a reconnect, when the
// server has forgotten those that waited.
func (r *Runner) Reset() { r.box.Post(r.cancelPulls) }

// Presence describes the agent and the jobs it performs now.
func (r *Runner) Presence() (stream.AgentPresence, []stream.Running) {
	jobs, order := r.jobs.list(), r.order.Load()
	return stream.AgentPresence{
		Name: order.Agent.Name, Size: order.Agent.Places(), Filter: order.Agent.Filter, Prefer: order.Agent.Prefer,
		Paused: order.Paused, Active: len(jobs),
	}, jobs
}

// Trouble says why the runner cannot take jobs from a lane, the last word where
// there are several; empty where it can from all.
func (r *Runner) Trouble() string {
	if trouble := r.trouble.Load(); trouble != nil {
		return *trouble
	}
	return ""
}

// Run performs jobs until intake ends and those that it has begun are done.
// What was delivered and not started is handed back. When work ends, the
// contexts of handlers end with job.ErrDraining, and their jobs are handed
// back; a handler that does not return within a second is left behind.
//
// intake must end no later than work does, or at once after it.
func (r *Runner) Run(intake, work context.Context) {
	r.intake, r.work = intake, work
	defer close(r.over)
	stop, cut := intake.Done(), work.Done()
	var abandon <-chan time.Time
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		select {
		case <-r.box.Ready():
		case <-wake.C:
		case <-stop:
			stop = nil
			r.stop()
		case <-cut:
			cut = nil
			abandon = time.After(abandonAfter)
		case <-abandon:
			r.jobs.abandon(r.log)
			r.closeTaps()
			return
		}
		r.box.Run()
		if r.stopped && r.running == 0 && r.admissions == 0 && r.refusing == 0 && r.settling == 0 && r.quiet() {
			r.closeTaps()
			return
		}
		wake.Reset(r.step(time.Now()))
	}
}

// step starts what can be started, hands back what cannot, and makes the
// pulls that are due. It returns when it wants to be called again at the
// latest.
func (r *Runner) step(now time.Time) time.Duration {
	wait := r.takeDue(now)
	r.held = slices.DeleteFunc(r.held, func(h hold) bool {
		over := r.stopped || h.lane.shut || now.Sub(h.since) >= holdFor
		if over {
			h.refuse()
		}
		return over
	})
	for len(r.held) > 0 && r.running < r.size {
		first := r.held[0]
		r.held = r.held[1:]
		first.start()
	}
	r.pull(now)
	wait = min(wait, r.relieve(now))
	for _, h := range r.held {
		wait = min(wait, holdFor-now.Sub(h.since))
	}
	for _, s := range r.lanes {
		if left := keepFor - now.Sub(s.looked); s.keeps && left > 0 {
			wait = min(wait, left)
		}
	}
	if linger := r.linger(now); linger > 0 {
		wait = min(wait, linger)
	}
	return wait
}

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

// free is how many places have no job, nor one that may take them.
func (r *Runner) free() int { return r.size - r.running - len(r.held) - r.entering }

// pull makes the pulls that the plan asks for.
func (r *Runner) pull(now time.Time) {
	if r.stopped || len(r.early) >= r.mostEarly() {
		return
	}
	open := make([]*laneState, 0, len(r.lanes))
	v := view{size: r.size, prefetch: prefetch(r.size, r.spent), taken: r.running + len(r.held) + r.entering, next: r.next}
	owed := 0 // asked for already
	for _, s := range r.lanes {
		if s.tap == nil || s.shut || s.full(r.size) {
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
			hot: s.hot, asked: s.asked != nil, waiting: s.waiting != nil, since: now.Sub(s.looked), limited: s.limited(), rank: s.rank,
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
	s.turn, s.keeps, s.relief = o.turn, o.keep, o.relief
	if o.waiting {
		s.waiting = pull
	} else {
		s.asked, s.left = pull, o.jobs
	}
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
			if s.failing {
				r.log.Info("lane is open again", "lane", s.lane.Token())
				s.failing = false
				if !slices.ContainsFunc(r.lanes, func(other *laneState) bool { return other.failing }) {
					r.trouble.Store(nil)
				}
			}
		})
	}()
}

// reopen opens a lane again after a while: its consumer may be gone.
func (r *Runner) reopen(s *laneState, err error) {
	if r.stopped {
		return
	}
	level := slog.LevelError
	if s.failing {
		level = slog.LevelDebug
	}
	s.failing = true
	trouble := fmt.Sprintf("lane %s: %v", s.lane.Token(), err)
	r.trouble.Store(&trouble)
	r.log.Log(r.work, level, "lane failed, will be opened again", "lane", s.lane.Token(), "err", err)
	if s.tap != nil {
		s.tap.Close()
		s.tap = nil
	}
	s.opening = true
	time.AfterFunc(reopenAfter, func() {
		r.box.Post(func() {
			if s.opening = !r.stopped && !s.shut; s.opening {
				r.open(s)
			}
		})
	})
}

func (r *Runner) delivered(s *laneState, p *stream.Pull, lease *stream.Lease) {
	if s.asked == p {
		s.left--
	}
	r.count(s, p)
	s.hot = lease.Pending > 0 && !s.limited()
	relief := s.waiting == p && s.relief
	if !r.stopped && !s.shut && r.tooEarly(s, lease, relief) {
		return
	}
	r.take(s, lease, relief)
}

// take takes a delivered job that may begin; relief says that its lane was full.
func (r *Runner) take(s *laneState, lease *stream.Lease, relief bool) {
	switch {
	case r.stopped, s.shut:
		r.refuse(lease)
	case s.limited():
		r.admit(s, lease, relief)
	default:
		r.hold(hold{
			since: time.Now(), lane: s,
			start: func() { r.start(lease) }, refuse: func() { r.refuse(lease) },
		})
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

// ran takes a place back from a job that had it for so long.
func (r *Runner) ran(took time.Duration) {
	r.running--
	if r.spent == 0 {
		r.spent = took
	}
	// A moving average over some sixteen jobs.
	r.spent += (took - r.spent) / 16
}

// refuse hands a job back that was not started, in the background.
func (r *Runner) refuse(lease *stream.Lease) {
	r.refusing++
	go func() {
		r.handBack(lease)
		r.box.Post(func() { r.refusing-- })
	}()
}

// settle does what is left to do for a job that needs no place any more, in the
// background.
func (r *Runner) settle(do func()) {
	r.box.Post(func() { r.settling++ })
	go func() {
		do()
		r.box.Post(func() { r.settling-- })
	}()
}

// handBack gives up a lease, and waits for the server.
func (r *Runner) handBack(lease *stream.Lease) {
	if !lease.Held() {
		return
	}
	if err := lease.HandBack(); err != nil {
		r.log.Warn("job not handed back, comes back by itself", "job", lease.ID, "err", err)
	}
}

// stop ends the intake.
func (r *Runner) stop() {
	r.stopped = true
	r.cancelPulls()
}

func (r *Runner) cancelPulls() {
	for _, s := range r.lanes {
		s.cancelPulls()
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

// quiet reports whether nothing more can be delivered.
func (r *Runner) quiet() bool {
	for _, s := range r.lanes {
		if s.waiting != nil || s.asked != nil {
			return false
		}
	}
	return len(r.held) == 0 && len(r.early) == 0
}

func (r *Runner) closeTaps() {
	for _, s := range r.lanes {
		if s.tap != nil {
			s.tap.Close()
		}
	}
}
