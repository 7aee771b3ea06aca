package dispatcher

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/stream"
)

// hear says of which tasks this dispatcher performs broadcasts, and says it anew when
// that changes, when the dispatcher takes jobs again, and from time to time, until ctx
// ends.
func (s *station) hear(ctx context.Context) {
	var caught []string // tasks of which it has caught up with the past
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		pause := sayEvery
		var err error
		if caught, err = s.say(ctx, caught); err != nil && ctx.Err() == nil {
			pause = watchAgain
			s.log.Warn("broadcasts pass this dispatcher by, will be tried again", "err", err)
		}
		select {
		case <-s.changed:
		case <-time.After(pause):
		case <-sweep.C:
			if err := s.sweepLanes(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("lanes of dispatchers that are gone are left", "err", err)
			}
		case <-ctx.Done():
			s.leave(ctx)
			return
		}
	}
}

// sayEvery is how often it is looked whether what this dispatcher has said still
// stands: a sibling that took it for dead may remove that when it is back.
const sayEvery = time.Minute

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
		since, err := everybody.Away(ctx, lane.To)
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

// say says of which tasks this dispatcher performs broadcasts now, and catches up with
// the past of those of which it has not, or of which that did not stand since. It
// returns those of which it has.
//
// Who is suspended says nothing: the others take it for dead, or another has its UUID.
func (s *station) say(ctx context.Context, caught []string) ([]string, error) {
	s.mu.Lock()
	tasks, suspended := s.taken(), s.suspended
	s.mu.Unlock()
	if suspended {
		return caught, nil
	}
	before, err := s.tell(ctx, tasks)
	if err != nil {
		return nil, err
	}
	caught = slices.DeleteFunc(caught, func(task string) bool { return !slices.Contains(before, task) })
	fresh := slices.DeleteFunc(slices.Clone(tasks), func(task string) bool { return slices.Contains(caught, task) })
	if err := s.catchUp(ctx, fresh); err != nil {
		return caught, err
	}
	return tasks, nil
}

// tell has it known of which tasks this dispatcher performs broadcasts, and returns
// those of which it was.
func (s *station) tell(ctx context.Context, tasks []string) (before []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	if len(tasks) == 0 {
		return nil, s.queue.Leave(ctx, s.d.UUID())
	}
	return s.queue.Hear(ctx, s.d.UUID(), tasks)
}

// catchUp performs broadcasts of tasks that were put before it was known that this
// dispatcher performs such ones.
func (s *station) catchUp(ctx context.Context, tasks []string) error {
	if s.d.config.CatchUp <= 0 || len(tasks) == 0 {
		return nil
	}
	n, err := s.queue.CatchUp(ctx, s.d.UUID(), tasks, time.Now().Add(-s.d.config.CatchUp))
	if n > 0 {
		s.log.Info("broadcasts of the past will be performed", "broadcasts", n)
	}
	return err
}

// leave says that this dispatcher performs no broadcasts any more.
func (s *station) leave(ctx context.Context) {
	s.mu.Lock()
	suspended := s.suspended
	s.mu.Unlock()
	if suspended {
		return // as in say; whoever finds it gone says so
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchange)
	defer cancel()
	if err := s.queue.Leave(ctx, s.d.UUID()); err != nil {
		s.log.Warn("broadcasts wait for this dispatcher, though it stops", "err", err)
	}
}

// heard says that what is taken is to be said anew. It is called with mu held.
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
		since, err := everybody.Away(ctx, dispatcher)
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
