package dispatcher

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/stream"
)

// watchQueues runs the stations until intake ends. While the dispatcher serves all
// queues that there are, those of queues that come run too, and those of queues that
// go end.
func (s *site) watchQueues(intake, work context.Context, running *sync.WaitGroup) {
	begin := func(st *station) {
		own, leave := context.WithCancel(intake)
		s.leave[st.queue.Name()] = leave
		running.Go(func() {
			defer leave()
			st.run(own, work)
			if intake.Err() == nil {
				s.forget(st)
			}
		})
	}
	s.mu.Lock()
	for _, st := range s.stations {
		begin(st)
	}
	s.mu.Unlock()
	if len(s.d.config.Queues) > 0 {
		return
	}
	created := make(chan *nats.Msg, 1)
	sub, err := s.d.nc.ChanSubscribe(s.namespace.Event("*", stream.QueueCreated), created)
	if err == nil {
		defer sub.Unsubscribe()
	}
	for {
		select {
		case <-intake.Done():
			return
		case <-created:
		case <-time.After(s.d.config.PingInterval): // who missed the event
		}
		fresh, err := s.follow(intake)
		if err != nil && intake.Err() == nil {
			s.d.log.Debug("queues cannot be looked for, will be tried again", "err", err)
		}
		for _, st := range fresh {
			begin(st)
		}
	}
}

// follow dismisses the stations of queues that are gone, and returns new ones for
// queues that have none.
func (s *site) follow(ctx context.Context) (fresh []*station, err error) {
	served := s.names()
	names, err := s.list(ctx, served)
	if err != nil {
		return nil, err
	}
	for _, name := range served {
		if !slices.Contains(names, name) {
			s.dismiss(ctx, name)
		}
	}
	for _, name := range names {
		if slices.Contains(served, name) {
			continue
		}
		if st, err := s.admit(ctx, name); err == nil {
			fresh = append(fresh, st)
		} else if ctx.Err() == nil {
			s.refuse(name, err)
		}
	}
	maps.DeleteFunc(s.refused, func(name string, _ bool) bool { return !slices.Contains(names, name) })
	return fresh, nil
}

// list lists the queues there are, and says of those that are served that they are: of
// no others any more.
func (s *site) list(ctx context.Context, served []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	if err := s.member.Serve(ctx, served); err != nil {
		return nil, err
	}
	return s.namespace.Queues(ctx)
}

// admit makes a station for a queue that has none.
func (s *site) admit(ctx context.Context, name string) (*station, error) {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	st, err := s.station(ctx, name)
	if err != nil {
		return nil, err
	}
	queues := append(s.names(), name)
	slices.Sort(queues)
	if err := s.member.Serve(ctx, queues); err != nil {
		return nil, err
	}
	s.d.log.Info("queue is served", "queue", name)
	delete(s.refused, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stations[name] = st
	st.suspended = s.suspended
	return st, nil
}

// refuse says of a queue that it cannot be served, once while that is so.
func (s *site) refuse(name string, err error) {
	if s.refused[name] || errors.Is(err, stream.ErrNoQueue) { // it went as it came
		return
	}
	s.refused[name] = true
	s.d.log.Error("queue cannot be served, will be tried again", "queue", name, "err", err)
}

// dismiss ends the intake of a station whose queue was deleted. Until what it has begun
// is done, a queue of that name that is made anew has no other.
func (s *site) dismiss(ctx context.Context, name string) {
	leave, serves := s.leave[name]
	if !serves {
		return // it leaves already
	}
	// It is not enough that the server did not list it.
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	if _, err := s.namespace.Queue(ctx, name); errors.Is(err, stream.ErrNoQueue) {
		s.d.log.Info("queue is gone, and not served any more", "queue", name)
		delete(s.leave, name)
		leave()
	}
}

// forget takes it that a station has ended.
func (s *site) forget(st *station) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stations, st.queue.Name())
}
