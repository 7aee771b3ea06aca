package dispatcher

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/stream"
)

// hear says of which tasks this dispatcher performs broadcasts, and says it anew when
// that changes, until ctx ends.
func (s *station) hear(ctx context.Context) {
	var said []string
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		again := (<-chan time.Time)(nil)
		s.mu.Lock()
		tasks := s.taken()
		s.mu.Unlock()
		if !slices.Equal(tasks, said) || said == nil {
			if err := s.say(ctx, tasks); err != nil {
				again = time.After(watchAgain)
				s.log.Warn("it is not known of which tasks this dispatcher performs broadcasts, will be tried again", "err", err)
			} else {
				s.catchUp(ctx, said, tasks)
				said = append([]string{}, tasks...)
			}
		}
		select {
		case <-s.changed:
		case <-again:
		case <-sweep.C:
			if err := s.sweepLanes(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("lanes of dispatchers that are gone are left", "err", err)
			}
		case <-ctx.Done():
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchange)
			defer cancel()
			if err := s.queue.Leave(leaving, s.d.UUID()); err != nil {
				s.log.Warn("broadcasts wait for this dispatcher, though it stops", "err", err)
			}
			return
		}
	}
}

const (
	// sweepEvery is how often it is looked for lanes of dispatchers that are gone,
	// and laneKeep how long such lanes are kept.
	sweepEvery = 15 * time.Minute
	laneKeep   = time.Hour
)

// sweepLanes removes the lanes of dispatchers that are gone for long: in a cluster
// whose dispatchers get other UUIDs they would become ever more.
func (s *station) sweepLanes(ctx context.Context) error {
	everybody, err := roster.Open(ctx, s.queue.Namespace())
	if err != nil {
		return err
	}
	lanes, err := s.queue.Lanes(ctx)
	if err != nil {
		return err
	}
	for _, lane := range lanes {
		if lane.To == "" || lane.To == s.d.UUID() {
			continue
		}
		since, err := away(ctx, everybody, lane.To)
		if err != nil {
			return err
		}
		if since.IsZero() || s.link.Clock.Now().Sub(since) < laneKeep {
			continue
		}
		if err := s.queue.RemoveLane(ctx, lane); err != nil {
			return err
		}
	}
	return nil
}

// catchUp performs broadcasts that were put before this dispatcher performed any of
// their task.
func (s *station) catchUp(ctx context.Context, before, now []string) {
	if s.d.config.CatchUp <= 0 {
		return
	}
	fresh := slices.DeleteFunc(slices.Clone(now), func(task string) bool { return slices.Contains(before, task) })
	n, err := s.queue.CatchUp(ctx, s.d.UUID(), fresh, time.Now().Add(-s.d.config.CatchUp))
	switch {
	case err != nil && ctx.Err() == nil:
		s.log.Error("broadcasts of the past are not all performed", "err", err)
	case n > 0:
		s.log.Info("broadcasts of the past will be performed", "broadcasts", n)
	}
}

func (s *station) say(ctx context.Context, tasks []string) error {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	if len(tasks) == 0 {
		return s.queue.Leave(ctx, s.d.UUID())
	}
	return s.queue.Hear(ctx, s.d.UUID(), tasks)
}

// heard says that what is taken may have changed. It is called with mu held.
func (s *station) heard() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// taken lists the tasks that the dispatcher can perform and an agent takes, sorted. It
// is called with mu held.
func (s *station) taken() []string {
	agents := slices.Collect(maps.Values(s.stored))
	var tasks []string
	for _, task := range s.d.tasks() {
		if slices.ContainsFunc(agents, func(a roster.Stored) bool { return a.Takes(task) }) {
			tasks = append(tasks, task)
		}
	}
	return tasks
}

// lookFor looks whether the dispatchers are there that have not performed their parts
// of a broadcast. What is to be performed by one that is gone for longer than the
// queue's grace is given up.
func (s *station) lookFor(ctx context.Context, due stream.Due) error {
	missing, over, err := s.queue.Missing(ctx, due)
	if err != nil || over {
		return err
	}
	everybody, err := roster.Open(ctx, s.queue.Namespace())
	if err != nil {
		return err
	}
	var gone []string
	for _, dispatcher := range missing {
		since, err := away(ctx, everybody, dispatcher)
		if err != nil {
			return err
		}
		if since.IsZero() || s.link.Clock.Now().Sub(since) < s.queue.Grace() {
			continue
		}
		gone = append(gone, dispatcher)
		if err := s.queue.Leave(ctx, dispatcher); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		s.log.Warn("broadcast goes on without dispatchers that are gone", "job", due.Of, "dispatchers", gone)
		if err := s.queue.GiveUp(ctx, due, gone); err != nil {
			return err
		}
	}
	return s.queue.LookAgain(ctx, due)
}

// away says since when a dispatcher is gone; the zero time for one that is there, or
// whose siblings have not noticed yet.
func away(ctx context.Context, everybody *roster.Roster, dispatcher string) (time.Time, error) {
	entry, err := everybody.Get(ctx, dispatcher)
	switch {
	case errors.Is(err, roster.ErrNoDispatcher): // an administrator removed it
		return time.Unix(1, 0), nil
	case err != nil:
		return time.Time{}, err
	case entry.State == roster.Active, entry.Deactivated.Before(entry.Activated):
		return time.Time{}, nil
	}
	return entry.Deactivated, nil
}
