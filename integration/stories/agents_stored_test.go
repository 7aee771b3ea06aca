package stories

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/job"
)

// at is a size of an agent.
func at(size int) func(*asyncnats.Agent) {
	return func(a *asyncnats.Agent) { a.Size = size }
}

func (s *story) change(d *staff, name string, change func(*asyncnats.Agent)) {
	s.Helper()
	if err := s.queue.ChangeAgent(s.Context(), d.UUID(), name, change); err != nil {
		s.Fatal(err)
	}
	moment()
}

// wantAgents checks the stored agents of a dispatcher, by name.
func (s *story) wantAgents(d *staff, names ...string) {
	s.Helper()
	list, err := s.queue.Agents(s.Context(), d.UUID())
	got := []string{}
	for _, a := range list {
		got = append(got, a.Name)
	}
	if err != nil || !slices.Equal(got, names) {
		s.Errorf("agents %q, %v; want %q", got, err, names)
	}
}

// The size of an agent can be changed while it works, in both directions. What it
// performs goes on.
func TestAgentIsResized(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		wantBegun := func(n int) { // those that start together do so in any order
			s.Helper()
			if got := w.begun(); len(got) != n {
				s.Errorf("begun %q, want %d", got, n)
			}
		}
		d := s.dispatch(w.staff(1))
		stints(s, paint, nil, "a", "b", "c", "d", "e", "f")
		w.wantBegun(s, "a")
		s.change(d, "main", at(4))
		wantBegun(4)
		s.change(d, "main", at(2))
		four := w.begun()
		w.finish(four[:2]...)
		wantBegun(4)
		w.finish(four[2])
		wantBegun(5)
		for _, turn := range w.seen() {
			if turn.cause != nil {
				s.Errorf("%s was stopped: %v", turn.name, turn.cause)
			}
		}
		err := s.queue.ChangeAgent(s.Context(), d.UUID(), "main", at(-1))
		none := s.queue.ChangeAgent(s.Context(), d.UUID(), "other", at(1))
		if err == nil || !errors.Is(none, asyncnats.ErrNoAgent) {
			s.Errorf("changed to nonsense: %v, %v", err, none)
		}
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			if !slices.Contains(four[:3], name) {
				w.finish(name)
			}
		}
	})
}

// The filter of an agent can be changed while it works.
func TestAgentGetsAnotherFilter(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		d := s.dispatch(w.staff(5, "site.paint"))
		stints(s, carve, nil, "stone")
		stints(s, paint, nil, "wall")
		w.wantBegun(s, "wall")
		s.change(d, "main", func(a *asyncnats.Agent) { a.Filter = []string{"site.carve"} })
		stints(s, paint, nil, "door")
		w.wantBegun(s, "wall", "stone")
		s.change(d, "main", func(a *asyncnats.Agent) { a.Filter = nil })
		w.wantBegun(s, "wall", "stone", "door")
		w.finish("wall", "stone", "door")
	})
}

// An agent takes what it prefers while there is some, and else anything.
func TestAgentPrefers(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		d := s.dispatch(w.staff(1))
		moment()
		s.change(d, "main", func(a *asyncnats.Agent) { a.Prefer = []string{"site.paint"} })
		stints(s, carve, nil, "first")
		stints(s, carve, nil, "c1", "c2", "c3")
		stints(s, paint, nil, "p1", "p2", "p3")
		order := []string{"first", "p1", "p2", "p3", "c1", "c2", "c3"}
		for _, name := range order {
			w.finish(name)
		}
		// One or the other kind may have been taken before it was seen that there is a choice.
		begun := w.begun()
		if i := slices.Index(begun, "p3"); len(begun) != 7 || i > 4 {
			s.Errorf("begun %q, want those preferred first: %q", begun, order)
		}
	})
}

// A second agent can be added: places for one kind of job beside the rest.
func TestAgentIsAdded(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		d := s.dispatch(w.staff(1))
		stints(s, paint, nil, "a", "b")
		stints(s, carve, nil, "x", "y")
		w.wantBegun(s, "a")
		carver := asyncnats.AgentPolicy{Name: "carver", Size: 1, Filter: []string{"site.carve"}}
		if err := s.queue.AddAgent(s.Context(), d.UUID(), carver); err != nil {
			s.Fatal(err)
		}
		moment()
		w.wantBegun(s, "a", "x")
		if err := s.queue.AddAgent(s.Context(), d.UUID(), carver); !errors.Is(err, asyncnats.ErrAgentExists) {
			s.Errorf("added again: %v", err)
		}
		if err := s.queue.AddAgent(s.Context(), "nobody", carver); err == nil {
			s.Error("added to what is no UUID")
		}
		s.wantAgents(d, "carver", "main")
		w.finish("a", "x", "b", "y")
	})
}

// A paused agent takes nothing, also after its dispatcher was away, until it is
// resumed.
func TestAgentIsPaused(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		c := w.staff(1)
		c.UUID = uuid.New()
		d := s.dispatch(c)
		stints(s, paint, nil, "a", "b")
		if err := s.queue.PauseAgent(s.Context(), d.UUID(), "main"); err != nil {
			s.Fatal(err)
		}
		moment()
		w.finish("a")
		w.wantBegun(s, "a")
		d.stop()
		d = s.dispatch(c)
		moment()
		w.wantBegun(s, "a")
		if err := s.queue.ResumeAgent(s.Context(), d.UUID(), "main"); err != nil {
			s.Fatal(err)
		}
		moment()
		w.wantBegun(s, "a", "b")
		w.finish("b")
	})
}

// An agent that performs jobs is not removed, and goes on; one that performs none
// is, and stays removed when its dispatcher comes back. Without an agent nothing is
// performed (FEATURES 3, 127).
func TestAgentIsRemoved(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		c := w.staff(2)
		c.UUID = uuid.New()
		d := s.dispatch(c)
		remove := func() error { return s.queue.RemoveAgent(s.Context(), d.UUID(), "main") }
		stints(s, paint, nil, "a")
		if err := remove(); !errors.Is(err, asyncnats.ErrAgentBusy) {
			s.Errorf("removed while it works: %v", err)
		}
		stints(s, paint, nil, "b")
		w.wantBegun(s, "a", "b")
		d.wire.Freeze() // a busy machine
		time.AfterFunc(time.Second, d.wire.Thaw)
		if err := remove(); !errors.Is(err, asyncnats.ErrAgentBusy) {
			s.Errorf("removed while it works and is slow to answer: %v", err)
		}
		w.finish("a", "b")
		if err := remove(); err != nil {
			s.Error(err)
		}
		moment()
		s.wantAgents(d)
		if err := remove(); !errors.Is(err, asyncnats.ErrNoAgent) {
			s.Errorf("removed again: %v", err)
		}
		stints(s, paint, nil, "c")
		d.stop()
		d = s.dispatch(c)
		time.Sleep(time.Minute)
		w.wantBegun(s, "a", "b")
		s.wantAgents(d)
		if err := s.queue.AddAgent(s.Context(), d.UUID(), agents.Main()); err != nil {
			s.Fatal(err)
		}
		moment()
		w.wantBegun(s, "a", "b", "c")
		w.finish("c")
	})
}

// An agent that is drained takes no more, finishes what it performs, and is gone.
func TestAgentIsDrained(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		d := s.dispatch(w.staff(1))
		stints(s, paint, nil, "a", "b")
		if err := s.queue.DrainAgent(s.Context(), d.UUID(), "main"); err != nil {
			s.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.wantAgents(d, "main")
		w.finish("a")
		s.wantAgents(d)
		w.wantBegun(s, "a")
		if turn := w.seen()[0]; turn.cause != nil {
			s.Errorf("its job was stopped: %v", turn.cause)
		}
		d.stop()
		// That of a dispatcher that is away is gone at once.
		away := s.dispatch(w.staff(1))
		moment()
		away.stop()
		if err := s.queue.DrainAgent(s.Context(), away.UUID(), "main"); err != nil {
			s.Error(err)
		}
		s.wantAgents(away)
	})
}

// The agents of the config are stored once. What is stored then counts.
func TestStoredAgentsCount(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		c := w.staff(2)
		c.UUID = uuid.New()
		d := s.dispatch(c)
		moment()
		s.change(d, "main", at(1))
		d.stop()
		c.Agents = append(c.Agents, agents.Agent{Name: "more", Size: 7})
		d = s.dispatch(c)
		moment()
		list, err := s.queue.Agents(s.Context(), d.UUID())
		if err != nil {
			s.Fatal(err)
		}
		sizes := make(map[string]int)
		for _, a := range list {
			sizes[a.Name] = a.Size
		}
		if diff := cmp.Diff(map[string]int{"main": 1, "more": 7}, sizes); diff != "" {
			s.Error(diff)
		}
	})
}

// A queue, or a task of it, can be paused: nobody takes its jobs until it is
// resumed, dispatchers that come later neither. What runs goes on.
func TestPauseOfQueueAndTask(t *testing.T) {
	for name, row := range map[string]struct {
		task   string
		paused []string // of those put while it is paused
	}{
		"queue": {"", nil},
		"task":  {"site.paint", []string{"stone"}},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				w := s.site()
				first := s.dispatch(w.staff(5))
				stints(s, paint, nil, "before")
				if err := s.queue.Pause(s.Context(), row.task); err != nil {
					s.Fatal(err)
				}
				moment()
				stints(s, paint, nil, "wall")
				stints(s, carve, nil, "stone")
				w.wantBegun(s, append([]string{"before"}, row.paused...)...)
				if err := s.queue.Pause(s.Context(), row.task); err != nil {
					s.Errorf("paused again: %v", err)
				}
				if paused, err := s.queue.Paused(s.Context()); err != nil || !slices.Equal(paused, []string{row.task}) {
					s.Errorf("paused %q, %v", paused, err)
				}
				w.finish("before")
				first.stop()
				s.dispatch(w.staff(5))
				time.Sleep(time.Minute)
				if slices.Contains(w.begun(), "wall") {
					s.Error("who comes later does not know that it is paused")
				}
				if err := s.queue.Resume(s.Context(), row.task); err != nil {
					s.Fatal(err)
				}
				moment()
				if !slices.Contains(w.begun(), "wall") || !slices.Contains(w.begun(), "stone") {
					s.Errorf("begun %q after the pause", w.begun())
				}
				if err := s.queue.Resume(s.Context(), row.task); err != nil {
					s.Errorf("resumed again: %v", err)
				}
				w.finish("wall", "stone")
			})
		})
	}
}

// A job that waits for a slot where nothing is taken any more waits with others.
func TestPauseWithdrawsWaiters(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		one, other := s.dispatch(w.staff(5)), s.dispatch(w.staff(5))
		stints(s, paint, gpu, "runs", "waits", "waits-too")
		runner, idle := one, other
		if w.seen()[0].Dispatcher == other.UUID() {
			runner, idle = other, one
		}
		for _, d := range []*staff{runner, idle} {
			if err := s.queue.PauseAgent(s.Context(), d.UUID(), "main"); err != nil {
				s.Fatal(err)
			}
		}
		moment()
		s.wantQuota("gpu", ids("runs"), nil)
		if err := s.queue.ResumeAgent(s.Context(), idle.UUID(), "main"); err != nil {
			s.Fatal(err)
		}
		w.finish("runs")
		w.finish("waits", "waits-too")
		turns := w.seen()
		for _, turn := range turns[1:] {
			if turn.Dispatcher != idle.UUID() {
				s.Errorf("%s ran with the one that is paused", turn.name)
			}
		}
		if len(turns) != 3 {
			s.Errorf("begun %q, want each once", w.begun())
		}
	})
}

// A dispatcher that names no queues serves all, also one that is created later.
func TestNewQueueIsServed(t *testing.T) {
	tell(t, func(s *story) {
		heard := s.witness()
		w := s.site()
		d := s.dispatch(w.staff(1))
		moment()
		video, err := s.client.CreateQueue(s.Context(), "video", asyncnats.QueueConfig{})
		if err != nil {
			s.Fatal(err)
		}
		moment()
		j, err := asyncnats.Put(s.Context(), video, paint.Call(stint{Name: "film", For: time.Millisecond}))
		if err != nil {
			s.Fatal(err)
		}
		moment()
		wait(s, j)
		heard.want(s, d.UUID(), "registered", "activated", "activated")
		entry, err := s.client.Dispatcher(s.Context(), d.UUID())
		if err != nil || !slices.Equal(entry.Queues, []string{job.DefaultQueue, "video"}) {
			s.Errorf("entry %+v, %v", entry, err)
		}
	})
}
