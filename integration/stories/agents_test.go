package stories

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// census counts who performs what, and how many at once.
type census struct {
	mu      sync.Mutex
	running map[string]int // by agent
	most    map[string]int // by agent
	done    map[string]int // by agent and task
	starts  map[job.ID]int // by job
}

func newCensus() *census {
	return &census{
		running: map[string]int{}, most: map[string]int{}, done: map[string]int{},
		starts: map[job.ID]int{},
	}
}

// handler performs a task that takes d.
func (c *census) handler(task string, d time.Duration) job.Handler {
	return asyncnats.Define[asyncnats.None, asyncnats.None](task).Handle(func(ctx context.Context, _ asyncnats.None) (asyncnats.None, error) {
		info, _ := job.FromContext(ctx)
		agent := info.Dispatcher + "/" + info.Agent
		c.mu.Lock()
		c.running[agent]++
		c.most[agent] = max(c.most[agent], c.running[agent])
		c.starts[info.ID]++
		c.mu.Unlock()
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running[agent]--
		c.done[info.Agent+" "+task]++
		return asyncnats.None{}, nil
	})
}

func (c *census) check(s *story, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, n := range c.starts {
		if n != 1 {
			s.Errorf("job %s was started %d times", id, n)
		}
	}
	for agent, n := range c.most {
		if n > size {
			s.Errorf("agent %s ran %d jobs at once, its size is %d", agent, n, size)
		}
	}
}

func call(task string) asyncnats.Call[asyncnats.None] {
	return asyncnats.Define[asyncnats.None, asyncnats.None](task).Call(asyncnats.None{})
}

// 'main' takes anything, 'mul' takes only mul (FEATURES b1).
func TestAgentTakesWhatItsFilterSays(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		s.dispatch(dispatcher.Config{
			Handlers: []job.Handler{c.handler("math.mul", time.Second), c.handler("math.add", time.Second)},
			Agents:   []agents.Agent{{Name: "main", Size: 2}, {Name: "mul", Size: 2, Filter: []string{"*.mul"}}},
		})
		var jobs []*asyncnats.Job[asyncnats.None]
		for range 20 {
			jobs = append(jobs, put(s, call("math.mul")), put(s, call("math.add")))
		}
		for _, j := range jobs {
			wait(s, j)
		}
		c.check(s, 2)
		if c.done["mul math.add"] != 0 {
			s.Errorf("agent mul took %d jobs of math.add", c.done["mul math.add"])
		}
		if c.done["mul math.mul"] == 0 || c.done["main math.mul"] == 0 || c.done["main math.add"] != 20 {
			s.Errorf("done: %v", c.done)
		}
	})
}

// Overlapping agents of several dispatchers share lanes, and every job is
// claimed once.
func TestOverlappingAgentsClaimEveryJobOnce(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		var handlers []job.Handler
		for i := range 10 {
			handlers = append(handlers, c.handler(fmt.Sprintf("task.t%d", i), 10*time.Millisecond))
		}
		for range 3 {
			s.dispatch(dispatcher.Config{Handlers: handlers, Agents: []agents.Agent{
				{Name: "all", Size: 3},
				{Name: "low", Size: 3, Filter: []string{"task.t0", "task.t1", "task.t2"}},
				{Name: "any", Size: 3, Filter: []string{"task.*"}},
			}})
		}
		var jobs []*asyncnats.Job[asyncnats.None]
		for i := range 1000 {
			jobs = append(jobs, put(s, call(fmt.Sprintf("task.t%d", i%10))))
		}
		for _, j := range jobs {
			wait(s, j)
		}
		c.check(s, 3)
	})
}

// One busy task does not starve the others.
func TestLanesTakeTurns(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		noisy := make([]asyncnats.Call[asyncnats.None], 500)
		for i := range noisy {
			noisy[i] = call("task.noisy")
		}
		if _, err := asyncnats.PutMany(s.Context(), s.queue, noisy...); err != nil {
			s.Fatal(err)
		}
		s.dispatch(dispatcher.Config{
			Handlers: []job.Handler{c.handler("task.noisy", time.Second), c.handler("task.quiet", time.Second)},
			Agents:   []agents.Agent{{Name: "main", Size: 1}},
		})
		time.Sleep(10500 * time.Millisecond)
		began := time.Now()
		for i := range 3 {
			wait(s, put(s, call("task.quiet")))
			if took := time.Since(began); took > time.Duration(i+1)*3*time.Second {
				s.Errorf("job %d of the quiet task took %v behind a backlog of jobs that take a second", i, took)
			}
		}
		c.check(s, 1)
	})
}

// A dispatcher is never handed a task that it has no handler for; jobs of a
// task that nobody has a handler for stay pending, and are shown as such.
func TestUnknownTaskStaysPending(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{c.handler("task.known", 0)}})
		unknown := put(s, call("task.unknown"))
		wait(s, put(s, call("task.known")))
		time.Sleep(time.Minute)
		if status, err := unknown.Status(s.Context()); err != nil || status.State != job.Pending {
			s.Errorf("status %+v, %v: want pending", status, err)
		}
		info, err := s.queue.Info(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		if len(info.Lanes) != 2 {
			s.Errorf("%d lanes, want one of each task", len(info.Lanes))
		}
		for _, lane := range info.Lanes {
			want := 1
			if lane.Task == "task.unknown" {
				want = 0
				if lane.Pending != 1 {
					s.Errorf("lane %+v: want one pending", lane)
				}
			}
			if lane.Served != want {
				s.Errorf("lane %+v: want %d served", lane, want)
			}
		}
		// A newer program comes: its lane is picked up.
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{c.handler("task.unknown", 0)}})
		wait(s, unknown)
		if d.log.Contains("task.unknown") {
			s.Error("the old dispatcher saw the new task")
		}
	})
}

func TestNoAgentNoWork(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{c.handler("task.a", 0)}, Agents: []agents.Agent{}})
		j := put(s, call("task.a"))
		time.Sleep(time.Minute)
		if status, err := j.Status(s.Context()); err != nil || status.State != job.Pending {
			s.Errorf("status %+v, %v: want pending", status, err)
		}
	})
}

// The default agent is 'main', of size 3 (FEATURES 118, 122).
func TestDefaultAgent(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{c.handler("task.a", time.Second)}})
		var jobs []*asyncnats.Job[asyncnats.None]
		for range 9 {
			jobs = append(jobs, put(s, call("task.a")))
		}
		for _, j := range jobs {
			wait(s, j)
		}
		if got := c.most[d.UUID()+"/main"]; got != 3 {
			s.Errorf("%d at once, want 3: %v", got, c.most)
		}
	})
}

// A full agent leaves new jobs to others at once: its idle pulls are gone.
func TestFullAgentDoesNotClaim(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		handlers := []job.Handler{c.handler("task.long", time.Hour), c.handler("task.other", 0)}
		s.dispatch(dispatcher.Config{Handlers: handlers, Agents: []agents.Agent{{Name: "main", Size: 2}}})
		wait(s, put(s, call("task.other"))) // it waits on that lane now
		for range 2 {
			put(s, call("task.long"))
		}
		time.Sleep(time.Second)
		s.dispatch(dispatcher.Config{Handlers: handlers, Agents: []agents.Agent{{Name: "main", Size: 2}}})
		time.Sleep(time.Second)
		for range 50 {
			began := time.Now()
			wait(s, put(s, call("task.other")))
			if took := time.Since(began); took > 50*time.Millisecond {
				s.Fatalf("a job waited %v for a full agent", took)
			}
		}
		c.check(s, 2)
	})
}

// What a stopping dispatcher has not started it hands back at once, and that
// is no interruption.
func TestUnstartedJobsAreHandedBack(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		handlers := []job.Handler{c.handler("task.a", time.Second), c.handler("task.b", time.Second)}
		first := s.dispatch(dispatcher.Config{Handlers: handlers, Agents: []agents.Agent{{Name: "main", Size: 1}}})
		var jobs []*asyncnats.Job[asyncnats.None]
		time.Sleep(time.Second)
		for range 5 {
			jobs = append(jobs, put(s, call("task.a")), put(s, call("task.b")))
		}
		time.Sleep(10 * time.Millisecond)
		first.stop()
		s.dispatch(dispatcher.Config{Handlers: handlers, Agents: []agents.Agent{{Name: "main", Size: 10}}})
		began := time.Now()
		for _, j := range jobs {
			wait(s, j)
			if r := record(s, j); r.Interrupts != 0 || r.Attempt.Number != 1 {
				s.Errorf("record %+v: want the first attempt and no interrupt", r)
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			s.Errorf("it took %v: some job was not handed back", took)
		}
		c.check(s, 10)
	})
}

// A consumer that an administrator deleted is made again.
func TestDeletedConsumerIsMadeAgain(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{c.handler("task.a", 0)}})
		wait(s, put(s, call("task.a")))
		js, err := jetstream.New(s.server.Connect(s.T))
		if err != nil {
			s.Fatal(err)
		}
		if err := js.DeleteConsumer(s.Context(), "ASYNC_default", "task=a"); err != nil {
			s.Fatal(err)
		}
		wait(s, put(s, call("task.a")))
		if !d.log.Contains("level=ERROR", "lane failed", "task=a") {
			s.Error("it was not logged")
		}
	})
}

// A task that a dispatcher has a handler for, and no agent, is not served.
func TestTaskWithoutAnAgentIsNotServed(t *testing.T) {
	tell(t, func(s *story) {
		c := newCensus()
		s.dispatch(dispatcher.Config{
			Handlers: []job.Handler{c.handler("task.a", 0), c.handler("task.b", 0)},
			Agents:   []agents.Agent{{Name: "main", Filter: []string{"task.a"}}},
		})
		wait(s, put(s, call("task.a")))
		put(s, call("task.b"))
		info, err := s.queue.Info(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		if a, b := info.Served("task.a"), info.Served("task.b"); a != 1 || b != 0 {
			s.Errorf("served %d and %d, want 1 and 0", a, b)
		}
	})
}

// Jobs that take no time are taken some in advance. When long ones follow, an agent
// that is full of them soon leaves the others alone.
func TestLongJobsAfterShortOnes(t *testing.T) {
	tell(t, func(s *story) {
		const size = 8
		s.dispatch(dispatcher.Config{
			Handlers: []job.Handler{nap.Handle(func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
				select {
				case <-time.After(d):
				case <-ctx.Done():
				}
				return asyncnats.None{}, context.Cause(ctx)
			})},
			Agents: []agents.Agent{{Name: "main", Size: size}},
		})
		for range 10 * size {
			put(s, nap.Call(time.Millisecond))
		}
		time.Sleep(time.Second)
		for range 5 * size {
			put(s, nap.Call(time.Hour))
		}
		given := func() uint64 {
			lanes := s.server.JetStream(s.T)
			stored, err := lanes.Stream(s.Context(), "ASYNC_default")
			if err != nil {
				s.Fatal(err)
			}
			n := uint64(0)
			for info := range stored.ListConsumers(s.Context()).Info() {
				n += info.Delivered.Consumer
			}
			return n
		}
		time.Sleep(time.Second)
		before := given()
		time.Sleep(10 * time.Second)
		if n := given() - before; n > size {
			s.Errorf("a full agent was given %d jobs in ten seconds", n)
		}
	})
}
