package agents

import (
	"context"
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

// Trouble says why the runner cannot take jobs from a lane that it is to take from,
// the last word where there are several; empty where it can from all.
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
		late := now.Sub(h.since) >= holdFor
		if late { // jobs take longer than those did of which it took some in advance
			r.spent = max(r.spent, holdFor)
		}
		over := late || r.stopped || h.lane.shut
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
	for _, h := range r.held {
		wait = min(wait, holdFor-now.Sub(h.since))
	}
	for _, s := range r.lanes {
		if left := keepFor - now.Sub(s.looked); s.keeps && left > 0 {
			wait = min(wait, left)
		}
		if rest := s.rest(r, now); rest > 0 {
			wait = min(wait, rest)
		}
	}
	if linger := r.linger(now); linger > 0 {
		wait = min(wait, linger)
	}
	return wait
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

// take takes a delivered job that may begin; relief says that its lane was full. Where
// jobs are interrupted already, that one may be one of them: it keeps its slots only if
// nobody takes it here.
func (r *Runner) take(s *laneState, lease *stream.Lease, relief bool) {
	switch {
	case r.stopped, s.shut, r.work.Err() != nil:
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
