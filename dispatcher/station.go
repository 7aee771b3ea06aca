package dispatcher

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// station is a dispatcher's work in one queue: its agents, as they are stored,
// each carried out by a runner.
type station struct {
	d     *Dispatcher
	queue *stream.Queue
	store *roster.Agents
	link  *stream.Link
	gate  *quotas.Gate
	flow  *flow
	log   *slog.Logger

	intake, work context.Context // intake ends first
	runs         sync.WaitGroup

	mu        sync.Mutex
	stored    map[string]roster.Stored // by name, as last heard
	runners   map[string]*runner       // those that run
	lanes     []stream.Lane
	paused    map[string]bool // tasks; the empty one is the queue
	suspended bool

	changed chan struct{} // that what is taken is to be said anew; for a broadcast queue
}

// runner is an agent that is carried out.
type runner struct {
	*agents.Runner
	stop     context.CancelFunc // ends its intake
	stopping bool
}

// newStation prepares the work in a queue: it installs the agents, and answers
// who asks.
func (d *Dispatcher) newStation(ctx context.Context, queue *stream.Queue, store *roster.Agents) (*station, error) {
	bucket, subject := queue.Quotas()
	set, err := quotas.Open(ctx, queue.Namespace().JetStream(), bucket, queue.Name(), subject)
	if err != nil {
		return nil, err
	}
	s := &station{
		d: d, queue: queue, store: store, link: stream.NewLink(d.nc, queue.AckWait()/15), flow: newFlow(queue, d.log),
		log: d.log.With("queue", queue.Name()), stored: make(map[string]roster.Stored),
		runners: make(map[string]*runner), paused: make(map[string]bool), changed: make(chan struct{}, 1),
	}
	s.gate = quotas.NewGate(set, quotas.GateConfig{
		Dispatcher: d.UUID(), AckWait: queue.AckWait(), Gone: queue.Gone, Resized: s.flow.resized, Log: d.log,
	})
	return s, s.install(ctx)
}

// install stores the agents of the config that were never stored before.
func (s *station) install(ctx context.Context) error {
	var ours []agents.Agent
	for _, agent := range s.d.config.Agents {
		if agent.Serves(s.queue.Name()) {
			ours = append(ours, agent)
		}
	}
	added, err := s.store.Install(ctx, s.queue.Name(), s.d.UUID(), ours)
	for _, agent := range added {
		s.log.Info("agent added", "agent", agent.Name, "size", agent.Size, "filter", agent.Filter)
	}
	return err
}

// run works until intake ends and what was begun is done. The link and the gate
// outlast the runners, who leave by the gate.
func (s *station) run(intake, work context.Context) {
	s.intake, s.work = intake, work
	stop, err := s.queue.Answer(s.presence)
	if err != nil {
		s.log.Error("nobody is told what this dispatcher does", "err", err)
	} else {
		defer stop()
	}
	deaf, err := s.queue.OnCancel(s.cancelled)
	if err != nil {
		s.log.Error("cancelled jobs are noticed when their leases are extended only", "err", err)
	} else {
		defer deaf()
	}
	open, closeAll := context.WithCancel(context.WithoutCancel(work))
	defer closeAll()
	var loops sync.WaitGroup
	loops.Go(func() { s.link.Run(open) })
	clocked := make(chan struct{})
	loops.Go(func() { s.queue.SetClock(open, s.link, func() { close(clocked) }, s.skewed) })
	loops.Go(func() {
		if err := s.gate.Run(open); err != nil {
			s.log.Error("jobs that name quotas are not performed", "err", err)
		}
	})
	loops.Go(func() { s.flow.run(open) })
	var watches sync.WaitGroup
	// What is paused, and what time it is, is known before any agent runs.
	known := make(chan struct{})
	watches.Go(func() { s.watchPauses(intake, sync.OnceFunc(func() { close(known) })) })
	watches.Go(func() {
		for _, first := range []<-chan struct{}{known, clocked} {
			select {
			case <-first:
			case <-intake.Done():
				return
			}
		}
		s.watchAgents(intake)
	})
	watches.Go(func() { s.watchLanes(intake) })
	watches.Go(func() { s.attend(intake) })
	watches.Go(func() { s.keepRecurring(intake) })
	if s.queue.Broadcast() {
		watches.Go(func() { s.hear(intake) })
	}
	<-intake.Done()
	watches.Wait()
	s.runs.Wait()
	closeAll()
	loops.Wait()
}

// watch repeats a watch until ctx ends.
func (s *station) watch(ctx context.Context, what string, once func() error) {
	for ctx.Err() == nil {
		if err := once(); err != nil && ctx.Err() == nil {
			s.log.Error(what+" cannot be watched, will be tried again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// watchLanes gives the queue's lanes to its runners, those that exist and those
// that come.
func (s *station) watchLanes(ctx context.Context) {
	s.watch(ctx, "lanes", func() (failed error) {
		for lane, err := range s.queue.WatchLanes(ctx) {
			if err != nil {
				failed = err
				continue
			}
			s.addLane(lane)
		}
		return failed
	})
}

func (s *station) addLane(lane stream.Lane) {
	if _, able := s.d.handlers[lane.Task]; !able || lane.To != "" && lane.To != s.d.UUID() {
		return
	}
	s.flow.add(lane)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.lanes, lane) {
		return
	}
	s.lanes = append(s.lanes, lane)
	for _, r := range s.runners {
		r.AddLane(lane)
	}
}

// watchPauses has the runners follow what is paused. known is called when what
// was paused before is known.
func (s *station) watchPauses(ctx context.Context, known func()) {
	s.watch(ctx, "pauses", func() (failed error) {
		found := make(map[string]bool)
		current := false
		for change, err := range s.queue.WatchPauses(ctx) {
			switch {
			case err != nil:
				failed = err
				continue
			case change.Current:
				current = true
			default:
				found[change.Task] = change.Paused
			}
			if current {
				s.pause(found)
				known()
			}
		}
		return failed
	})
}

// pause takes what is paused.
func (s *station) pause(found map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make(map[string]bool)
	for task, paused := range found {
		if paused {
			now[task] = true
		}
	}
	if maps.Equal(now, s.paused) {
		return
	}
	s.paused = now
	switch tasks := slices.Sorted(maps.Keys(now)); {
	case now[""]:
		s.log.Info("queue is paused", "tasks paused besides", tasks[1:])
	case len(tasks) > 0:
		s.log.Info("tasks are paused", "tasks", tasks)
	default:
		s.log.Info("nothing is paused any more")
	}
	s.orderAll()
}

// suspend has the runners take no jobs, or take them again.
func (s *station) suspend(suspended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspended = suspended
	s.heard()
	s.orderAll()
}

// watchAgents has the runners follow the stored agents.
func (s *station) watchAgents(ctx context.Context) {
	s.watch(ctx, "agents", func() (failed error) {
		seen := make(map[string]bool)
		for change, err := range s.store.Watch(ctx, s.queue.Name(), s.d.UUID()) {
			name := change.Agent.Name
			switch {
			case err != nil:
				failed = err
			case change.Current:
				s.forgetOthers(seen)
				seen = make(map[string]bool)
			case change.Removed:
				s.forget(name)
			default:
				seen[name] = true
				s.learn(change.Agent)
			}
		}
		return failed
	})
}

// forgetOthers takes that there are no agents but these.
func (s *station) forgetOthers(these map[string]bool) {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.stored))
	s.mu.Unlock()
	for _, name := range names {
		if !these[name] {
			s.forget(name)
		}
	}
}

func (s *station) learn(a roster.Stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, known := s.stored[a.Name]; !known {
		s.log.Info("agent runs", "agent", a.Name, "size", a.Size, "filter", a.Filter, "paused", a.Paused)
	} else {
		s.log.Info("agent changed", "agent", a.Name, "size", a.Size, "filter", a.Filter, "prefer", a.Prefer,
			"paused", a.Paused, "leaving", a.Leaving, "size before", old.Size)
	}
	s.stored[a.Name] = a
	s.heard()
	s.reconcile(a.Name)
}

func (s *station) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.stored[name]; !known {
		return
	}
	s.log.Info("agent removed", "agent", name)
	delete(s.stored, name)
	s.heard()
	s.reconcile(name)
}

// reconcile has an agent carried out as it is stored. An agent never has two
// runners: where one is stopping, the next begins when it has ended.
func (s *station) reconcile(name string) {
	want, stored := s.stored[name]
	now := s.runners[name]
	switch {
	case stored && !want.Leaving && now == nil:
		s.begin(want)
	case stored && !want.Leaving && !now.stopping:
		now.Set(s.order(want))
	case now != nil && !now.stopping && (!stored || want.Leaving):
		now.stopping = true
		now.stop()
	case now == nil && stored && want.Leaving:
		s.runs.Go(func() { s.remove(want) })
	}
}

func (s *station) begin(a roster.Stored) {
	if s.intake.Err() != nil {
		return
	}
	intake, stop := context.WithCancel(s.intake)
	r := &runner{stop: stop, Runner: agents.NewRunner(agents.Config{
		Agent: a.Agent, Queue: s.queue, Link: s.link, Gate: s.gate, Handlers: s.d.handlers,
		Dispatcher: s.d.UUID(), Observe: s.d.history.observe, Log: s.d.log, Trace: s.d.trace,
	})}
	s.runners[a.Name] = r
	r.Set(s.order(a))
	for _, lane := range s.lanes {
		r.AddLane(lane)
	}
	s.runs.Go(func() {
		r.Run(intake, s.work)
		stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.runners, a.Name)
		s.reconcile(a.Name)
	})
}

// remove removes an agent that has left, unless it was changed since.
func (s *station) remove(a roster.Stored) {
	if s.intake.Err() != nil {
		return // it is to be removed when the dispatcher is back
	}
	ctx, cancel := context.WithTimeout(s.work, exchange)
	defer cancel()
	if _, err := s.store.Remove(ctx, a); err != nil {
		s.log.Warn("agent cannot be removed, will be tried again", "agent", a.Name, "err", err)
		time.AfterFunc(watchAgain, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reconcile(a.Name)
		})
	}
}

// order is what an agent's runner is to do now.
func (s *station) order(a roster.Stored) agents.Order {
	return agents.Order{Agent: a.Agent, Paused: a.Paused || s.suspended || s.paused[""], Tasks: slices.Collect(maps.Keys(s.paused))}
}

func (s *station) orderAll() {
	for name, r := range s.runners {
		if a, stored := s.stored[name]; stored && !r.stopping {
			r.Set(s.order(a))
		}
	}
}

// reset has everything asked for again. To be called after a reconnect.
func (s *station) reset() {
	s.gate.Reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		r.Reset()
	}
}

// cancelled tells the runners that a job was cancelled, and reports whether one
// of them has it.
func (s *station) cancelled(nonce job.Nonce) (here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		here = r.Cancelled(nonce) || here
	}
	return here
}

// skewed says that this machine's clock is not the server's.
func (s *station) skewed(by time.Duration) {
	s.log.Warn("this machine's clock and the server's differ: what is due is due by the server's, what is logged bears this one's time",
		"ahead", by.Round(time.Millisecond))
}

// presence describes the dispatcher as the queue sees it.
func (s *station) presence() stream.Presence {
	host, _ := os.Hostname()
	presence := stream.Presence{
		Dispatcher: s.d.UUID(), Host: host, PID: os.Getpid(),
		Tasks: []string{}, Agents: []stream.AgentPresence{}, Jobs: []stream.Running{}, // not null in JSON
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	presence.Tasks = append(presence.Tasks, s.taken()...)
	for _, name := range slices.Sorted(maps.Keys(s.runners)) {
		agent, jobs := s.runners[name].Presence()
		presence.Agents = append(presence.Agents, agent)
		presence.Jobs = append(presence.Jobs, jobs...)
	}
	return presence
}
