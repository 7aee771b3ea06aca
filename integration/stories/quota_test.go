package stories

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// paint and carve are two tasks, hence two lanes, whose jobs share quotas.
var (
	paint = asyncnats.Define[stint, string]("site.paint")
	carve = asyncnats.Define[stint, string]("site.carve")
)

// stint is the work of one job: it lasts for a while or, where that is 0, until
// the story ends it.
type stint struct {
	Name     string
	For      time.Duration
	Stubborn bool   // it goes on when its context ends
	Fails    string // "error", "panic": how it ends, if not well
}

// site is where the jobs of a story work. It sees every attempt.
type site struct {
	mu    sync.Mutex
	turns []*turn
	live  map[string]int           // by quota: attempts whose context has not ended
	most  map[string]int           // by quota: the most at once
	ends  map[string]chan struct{} // by name
	over  chan struct{}            // closed when the story is
}

// turn is one attempt at a stint.
type turn struct {
	job.Info
	name        string
	began, over time.Time // over: it returned, or its context ended
	cause       error     // why its context ended
}

// site opens a site, which is closed after the story's dispatchers have stopped.
func (s *story) site() *site {
	w := &site{
		live: make(map[string]int), most: make(map[string]int), ends: make(map[string]chan struct{}), over: make(chan struct{}),
	}
	s.Cleanup(func() { close(w.over) })
	return w
}

// staff is the config of a dispatcher that works on the site with an agent of
// that size, which takes tasks as the filter says.
func (w *site) staff(size int, filter ...string) dispatcher.Config {
	return dispatcher.Config{
		Handlers: []job.Handler{paint.Handle(w.work), carve.Handle(w.work)},
		Agents:   []agents.Agent{{Name: "main", Size: size, Filter: filter}},
	}
}

func (w *site) work(ctx context.Context, todo stint) (string, error) {
	over := w.begin(ctx, todo.Name)
	defer over()
	defer context.AfterFunc(ctx, over)()
	var passed <-chan time.Time
	if todo.For > 0 {
		passed = time.After(todo.For)
	}
	stopped := ctx.Done()
	if todo.Stubborn {
		stopped = nil
	}
	select {
	case <-passed:
	case <-w.end(todo.Name):
	case <-stopped:
		return "", context.Cause(ctx)
	case <-w.over:
	}
	switch todo.Fails {
	case "error":
		return "", fmt.Errorf("%s broke", todo.Name)
	case "panic":
		panic(todo.Name + " fell down")
	}
	return todo.Name, nil
}

// begin notes the start of an attempt; over is to be called when it is over,
// and may be called more than once.
func (w *site) begin(ctx context.Context, name string) (over func()) {
	info, _ := job.FromContext(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &turn{Info: info, name: name, began: time.Now()}
	w.turns = append(w.turns, t)
	for quota := range info.Fences {
		w.live[quota]++
		w.most[quota] = max(w.most[quota], w.live[quota])
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !t.over.IsZero() {
			return
		}
		t.over, t.cause = time.Now(), context.Cause(ctx)
		for quota := range info.Fences {
			w.live[quota]--
		}
	}
}

func (w *site) end(name string) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ends[name] == nil {
		w.ends[name] = make(chan struct{})
	}
	return w.ends[name]
}

// finish ends stints, also those that have not begun, and gives what follows a
// moment.
func (w *site) finish(names ...string) {
	for _, name := range names {
		close(w.end(name))
	}
	moment()
}

// moment is long enough for everything that follows at once from what was
// done. A new lane that two want to open at the same time takes one of them a
// quarter of a second.
func moment() { time.Sleep(300 * time.Millisecond) }

// seen lists the attempts so far, in the order in which they began.
func (w *site) seen() []turn {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]turn, len(w.turns))
	for i, t := range w.turns {
		list[i] = *t
	}
	return list
}

// begun lists the names of the attempts so far.
func (w *site) begun() []string {
	names := []string{}
	for _, t := range w.seen() {
		names = append(names, t.name)
	}
	return names
}

// wantBegun checks which attempts have begun, in which order.
func (w *site) wantBegun(s *story, names ...string) {
	s.Helper()
	if got := w.begun(); !slices.Equal(got, names) {
		s.Fatalf("begun %q, want %q", got, names)
	}
}

// wantMost checks how many attempts were live at once in each quota.
func (w *site) wantMost(s *story, most map[string]int) {
	s.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !maps.Equal(w.most, most) {
		s.Errorf("at most %v were live at once, want %v", w.most, most)
	}
}

// create creates a quota.
func (s *story) create(name string, size int) {
	s.Helper()
	if err := s.queue.CreateQuota(s.Context(), name, size); err != nil {
		s.Fatal(err)
	}
}

// wantQuota checks who holds a quota and who waits for it, and returns it.
func (s *story) wantQuota(name string, holders, waiters []job.ID) asyncnats.Quota {
	s.Helper()
	quota, err := s.queue.Quota(s.Context(), name)
	if err != nil {
		s.Fatal(err)
	}
	var holds, waits []job.ID
	for _, c := range quota.Holders {
		holds = append(holds, c.ID)
	}
	for _, c := range quota.Waiters {
		waits = append(waits, c.ID)
	}
	if !slices.Equal(holds, holders) || !slices.Equal(waits, waiters) {
		s.Fatalf("quota %s: held by %q, waited for by %q; want %q and %q", name, holds, waits, holders, waiters)
	}
	return quota
}

// stints puts stints of a task that name quotas, with their names as IDs, and
// gives them a moment.
func stints(s *story, task asyncnats.Task[stint, string], quota []string, names ...string) []*asyncnats.Job[string] {
	s.Helper()
	var jobs []*asyncnats.Job[string]
	for _, name := range names {
		jobs = append(jobs, put(s, task.Call(stint{Name: name}).Quota(quota...).ID(name)))
		moment()
	}
	return jobs
}

var gpu = []string{"gpu"}

// Of jobs that name a quota no more run at once than its size, over all dispatchers, and as many as that; those that
// wait begin in the order in which they were put.
func TestQuotaLimits(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			tell(t, func(s *story) {
				s.create("gpu", size)
				w := s.site()
				for range 3 {
					s.dispatch(w.staff(4))
				}
				time.Sleep(time.Second)
				began := time.Now()
				const n = 12
				var jobs []*asyncnats.Job[string]
				var names []string
				for i := range n {
					names = append(names, fmt.Sprint(i))
					jobs = append(jobs, put(s, paint.Call(stint{Name: names[i], For: time.Second}).Quota("gpu")))
					if i == size-1 {
						time.Sleep(100 * time.Millisecond) // the quota is full, whoever has its slots
					}
				}
				for i, j := range jobs {
					if got := wait(s, j); got != names[i] {
						s.Errorf("job %d returned %q", i, got)
					}
				}
				if took, ideal := time.Since(began), time.Duration(n/size)*time.Second; took > ideal+500*time.Millisecond {
					s.Errorf("took %v, want about %v", took, ideal)
				}
				w.wantMost(s, map[string]int{"gpu": size})
				if size == 1 {
					w.wantBegun(s, names...)
				}
				s.wantQuota("gpu", nil, nil)
			})
		})
	}
}
