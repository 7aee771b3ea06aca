package agents

import (
	"log/slog"
	"slices"
	"sync"

	"github.com/asyncnats/asyncnats/stream"
)

// jobSet is the jobs that are performed now.
type jobSet struct {
	mu   sync.Mutex
	jobs map[*attempt]struct{}
}

func (s *jobSet) add(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs == nil {
		s.jobs = make(map[*attempt]struct{})
	}
	s.jobs[a] = struct{}{}
}

func (s *jobSet) remove(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.jobs, a)
}

func (s *jobSet) list() []stream.Running {
	s.mu.Lock()
	defer s.mu.Unlock()
	running := make([]stream.Running, 0, len(s.jobs))
	for a := range s.jobs {
		running = append(running, a.running())
	}
	slices.SortFunc(running, func(a, b stream.Running) int { return a.Since.Compare(b.Since) })
	return running
}

// abandon hands back the jobs whose handlers did not return.
func (s *jobSet) abandon(log *slog.Logger) {
	s.mu.Lock()
	left := make([]*attempt, 0, len(s.jobs))
	for a := range s.jobs {
		left = append(left, a)
	}
	s.mu.Unlock()
	for _, a := range left {
		log.Error("handler does not return and is left behind", "job", a.lease.ID, "task", a.lease.Lane.Task)
		a.drain()
	}
}
