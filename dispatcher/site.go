package dispatcher

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/stream"
)

// site is where a dispatcher works: its stations, one in each of its queues, and
// its membership among the dispatchers.
type site struct {
	d         *Dispatcher
	namespace *stream.Namespace
	store     *roster.Agents
	member    *roster.Member

	// owned by open, then by watchQueues
	leave   map[string]context.CancelFunc // ends the intake of a queue's station
	refused map[string]bool               // queues of which was said that they cannot be served

	mu        sync.Mutex
	stations  map[string]*station
	suspended bool
}

// open opens the queues that the dispatcher serves. Where it serves all that there
// are and there is none yet it waits for the first.
func (d *Dispatcher) open(ctx context.Context) (*site, error) {
	js, err := jetStream(d.nc, d.config.Domain)
	if err != nil {
		return nil, err
	}
	s := &site{
		d: d, leave: make(map[string]context.CancelFunc), refused: make(map[string]bool), stations: make(map[string]*station),
	}
	if s.namespace, err = stream.Open(ctx, js, d.config.Namespace); err != nil {
		return nil, err
	}
	names, err := s.awaitQueues(ctx)
	if err != nil {
		return nil, err
	}
	if s.store, err = roster.OpenAgents(ctx, s.namespace); err != nil {
		return nil, err
	}
	everybody, err := roster.Open(ctx, s.namespace)
	if err != nil {
		return nil, err
	}
	s.member = everybody.Join(roster.Config{
		Dispatcher: d.UUID(), Ping: d.config.PingInterval, Death: d.config.PingDeathInterval,
		Event: s.event, Suspend: s.suspend, Log: d.log,
	})
	return s, s.openStations(ctx, names)
}

// openStations opens the first stations. Where the dispatcher serves all queues it does
// without those that cannot be served, unless none can.
func (s *site) openStations(ctx context.Context, names []string) error {
	errs := make([]error, len(names))
	for i, name := range names {
		st, err := s.station(ctx, name)
		switch {
		case err == nil:
			s.stations[name] = st
		case len(s.d.config.Queues) > 0, ctx.Err() != nil:
			return err
		default:
			errs[i] = err
		}
	}
	if len(s.stations) == 0 {
		return errors.Join(errs...)
	}
	for i, name := range names {
		if errs[i] != nil {
			s.refuse(name, errs[i])
		}
	}
	return nil
}

// event takes an event of this dispatcher, or of one that it found dead.
func (s *site) event(e roster.Event) {
	if e.Kind == roster.Deactivated && e.Reason == roster.Died {
		s.mu.Lock()
		if st, served := s.stations[e.Queue]; served {
			st.gate.Succeed(e.Dispatcher)
		}
		s.mu.Unlock()
	}
	s.d.config.OnEvent(e)
}

// awaitQueues returns the queues to serve.
func (s *site) awaitQueues(ctx context.Context) ([]string, error) {
	if len(s.d.config.Queues) > 0 {
		return s.d.config.Queues, nil
	}
	for warned := false; ; warned = true {
		names, err := s.namespace.Queues(ctx)
		if err != nil || len(names) > 0 {
			return names, err
		}
		if !warned {
			s.d.log.Warn("there is no queue yet, waits for the first (asyncnats queue add)")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(watchAgain):
		}
	}
}

func (s *site) station(ctx context.Context, name string) (*station, error) {
	queue, err := s.namespace.Queue(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.d.newStation(ctx, queue, s.store)
}

// names lists the queues that are served, sorted.
func (s *site) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.AppendSeq(make([]string, 0, len(s.stations)), maps.Keys(s.stations)) // not null in JSON
	slices.Sort(names)
	return names
}

// activate makes the dispatcher one of the living.
func (s *site) activate(ctx context.Context, closed <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	waits := make(chan struct{})
	defer close(waits)
	go func() {
		select {
		case <-closed:
			cancel(nats.ErrConnectionClosed)
		case <-waits:
		}
	}()
	if err := s.member.Activate(ctx, s.names()); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// suspend has all stations take no jobs, or take them again.
func (s *site) suspend(suspended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspended = suspended
	for _, st := range s.stations {
		st.suspend(suspended)
	}
}

// reset has everything asked for again, after a reconnect.
func (s *site) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.stations {
		st.reset()
	}
}
