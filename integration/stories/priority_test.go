package stories

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// parade is the jobs of a story in the order of their starts, each by its ID,
// which begins with its priority.
type parade struct {
	mu    sync.Mutex
	order []string
}

// handler performs a task that takes d.
func (p *parade) handler(task string, d time.Duration) job.Handler {
	return asyncnats.Define[asyncnats.None, asyncnats.None](task).Handle(func(ctx context.Context, _ asyncnats.None) (asyncnats.None, error) {
		info, _ := job.FromContext(ctx)
		p.mu.Lock()
		p.order = append(p.order, info.ID.String())
		p.mu.Unlock()
		time.Sleep(d)
		return asyncnats.None{}, nil
	})
}

func (p *parade) started() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.order)
}

// crowd puts n jobs of a priority.
func crowd(s *story, n int, priority job.Priority, call asyncnats.Call[asyncnats.None]) []*asyncnats.Job[asyncnats.None] {
	s.Helper()
	calls := make([]asyncnats.Call[asyncnats.None], n)
	for i := range calls {
		calls[i] = call.Priority(priority).ID(fmt.Sprintf("%v/%s/%d", priority, strings.ReplaceAll(call.Task(), ".", "-"), i))
	}
	jobs, err := asyncnats.PutMany(s.Context(), s.queue, calls...)
	if err != nil {
		s.Fatal(err)
	}
	return jobs
}

// those counts the jobs of a priority.
func those(order []string, priority job.Priority) (n int) {
	for _, id := range order {
		if strings.HasPrefix(id, priority.String()) {
			n++
		}
	}
	return n
}

// upTo returns the jobs up to the last one of a priority.
func upTo(order []string, priority job.Priority) []string {
	for i, id := range slices.Backward(order) {
		if strings.HasPrefix(id, priority.String()) {
			return order[:i+1]
		}
	}
	return nil
}

// Jobs of a higher priority start first, behind a backlog of lower ones as well;
// every tenth job is of a priority that is passed over, and none is lost.
func TestPriorities(t *testing.T) {
	for name, took := range map[string]time.Duration{"short jobs": 10 * time.Millisecond, "long jobs": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				p := &parade{}
				jobs := crowd(s, 200, job.Low, call("task.a"))
				s.dispatch(dispatcher.Config{
					Handlers: []job.Handler{p.handler("task.a", took), p.handler("task.b", took)},
					Agents:   []agents.Agent{{Name: "main", Size: 1}},
				})
				time.Sleep(4*took + took/2)
				jobs = append(jobs, crowd(s, 50, job.Normal, call("task.a"))...)
				jobs = append(jobs, crowd(s, 10, job.High, call("task.a"))...)
				jobs = append(jobs, crowd(s, 10, job.High, call("task.b"))...)
				before := len(p.started())
				for _, j := range jobs {
					wait(s, j)
				}
				order := p.started()
				if unique := slices.Compact(slices.Sorted(slices.Values(order))); len(order) != 270 || len(unique) != 270 {
					s.Errorf("%d starts of %d jobs, want 270 of 270", len(order), len(unique))
				}
				if before < 3 || before > 12 {
					s.Fatalf("%d jobs had started when the others were put", before)
				}
				// Short jobs: the agent looks into other lanes ten times a second.
				unseen := int(100*time.Millisecond/took) + 1
				order = order[before:]
				high := upTo(order, job.High)
				if late := len(high) - 20; late > unseen+3 {
					s.Errorf("%d others started before the last of high priority: %q", late, high)
				}
				normal := upTo(order, job.Normal)
				if low := those(normal, job.Low); low > unseen+8 {
					s.Errorf("%d of low priority started before the last of normal: %q", low, normal)
				}
				if passed := those(high, job.Low) + those(high, job.Normal); passed < 2 {
					s.Errorf("%d of a lower priority started during 20 of high: %q", passed, high)
				}
				for i := 0; i+20 <= len(normal); i++ {
					if those(normal[i:i+20], job.Low) == 0 {
						s.Errorf("low priority starves from job %d on: %q", i, normal[i:i+20])
						break
					}
				}
			})
		})
	}
}

// A job that names a quota gets the next place behind a backlog of long jobs,
// though these could have it sooner; where its priority is lower it has its
// turn.
func TestPriorityOfJobsWithQuotas(t *testing.T) {
	for name, row := range map[string]struct {
		priority job.Priority
		size     int
		most     int // jobs that start before it
	}{
		"high, one place":    {job.High, 1, 1},
		"high, three places": {job.High, 3, 3},
		"normal, one place":  {job.Normal, 1, 2},
		"low, one place":     {job.Low, 1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				p := &parade{}
				s.create("gpu", 1)
				crowd(s, 100, job.Normal, call("task.a"))
				s.dispatch(dispatcher.Config{
					Handlers: []job.Handler{p.handler("task.a", time.Second), p.handler("task.b", time.Second)},
					Agents:   []agents.Agent{{Name: "main", Size: row.size}},
				})
				time.Sleep(4500 * time.Millisecond)
				before := len(p.started())
				wait(s, put(s, call("task.b").Quota("gpu").Priority(row.priority).ID("limited")))
				order := p.started()[before:]
				if n := slices.Index(order, "limited"); n > row.most {
					s.Errorf("%d jobs started before it, want %d at most: %q", n, row.most, order)
				}
			})
		})
	}
}

// A job's priority is that of its call, else of its task, and is seen in its
// status all its life.
func TestPriorityIsShown(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		task := asyncnats.Define[asyncnats.None, asyncnats.None]("task.a").Priority(job.Low)
		j := put(s, task.Call(asyncnats.None{}).Priority(job.High).ID("urgent"))
		put(s, task.Call(asyncnats.None{}).ID("can-wait"))
		put(s, call("task.a").ID("usual"))
		want := func(state job.State) {
			s.Helper()
			status, err := j.Status(s.Context())
			if err != nil || status.Priority != job.High || status.State != state {
				s.Errorf("%s of priority %v, %v; want %s", status.State, status.Priority, err, state)
			}
		}
		want(job.Pending)
		listed, err := s.queue.Jobs(s.Context(), 10)
		if err != nil || len(listed) != 3 || listed[0].Priority != job.High || listed[1].Priority != job.Low || listed[2].Priority != job.Normal {
			s.Errorf("listed %+v, %v", listed, err)
		}
		if err := j.SetQuotas(s.Context(), "gpu"); err != nil {
			s.Fatal(err)
		}
		want(job.Pending)
		p := &parade{}
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler("task.a", time.Minute)}})
		time.Sleep(10 * time.Second)
		want(job.Active) // a moved job is begun with a record
		waiter, err := asyncnats.Lookup[asyncnats.None](s.Context(), s.queue, "can-wait")
		if err != nil {
			s.Fatal(err)
		}
		if status, err := waiter.Status(s.Context()); err != nil || status.State != job.Assigned || status.Running == nil || status.Priority != job.Low {
			s.Errorf("%+v, %v", status, err)
		}
		wait(s, j)
		want(job.Completed)
		info, err := s.queue.Info(s.Context())
		if err != nil || len(info.Lanes) != 4 || info.Lanes[2].Priority != job.Low || info.Lanes[3].Priority != job.High {
			s.Errorf("lanes %+v, %v", info.Lanes, err)
		}
	})
}
