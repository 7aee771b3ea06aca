package dispatcher

import (
	"iter"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/job"
)

// How much a dispatcher remembers: zc.async's numbers (FEATURES 156).
const (
	keptPolls = 400
	// keptJobs is how many attempts that are over are remembered. Those that run
	// are all remembered.
	keptJobs = 200
	// listedJobs is how many jobs a poll names of each kind. It counts them all.
	listedJobs = 100
)

// history is what a dispatcher remembers of its jobs and polls: what it did since
// Run was last called. It is kept when Run returns.
type history struct {
	mu       sync.Mutex
	began    time.Time // zero before the first Run
	ended    time.Time // zero while it runs
	active   map[job.Token]*remembered
	over     ring[*remembered]
	polls    ring[Poll]
	last     int // key of the last poll, 0 before the first
	fresh    map[place]*fresh
	suspends bool
	paused   []Pause
}

// remembered is an attempt at a job.
type remembered struct {
	agents.Report
	poll int // key of the poll that shows it as new, which may be the next
}

// place is an agent in a queue.
type place struct{ queue, agent string }

// fresh is the jobs that an agent started since the last poll.
type fresh struct {
	count int
	ids   []job.ID // the first of them
}

func newHistory() *history {
	h := &history{}
	h.clear()
	return h
}

func (h *history) clear() {
	h.active = make(map[job.Token]*remembered)
	h.over = ring[*remembered]{most: keptJobs}
	h.polls = ring[Poll]{most: keptPolls}
	h.last, h.fresh = 0, make(map[place]*fresh)
	h.suspends, h.paused = false, []Pause{}
}

// remember begins the history anew, and ends it when stop is called.
func (d *Dispatcher) remember() (stop func()) {
	d.history.begin(time.Now())
	return func() { d.history.end(time.Now()) }
}

// begin forgets everything: the dispatcher is started.
func (h *history) begin(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clear()
	h.began, h.ended = now, time.Time{}
}

// end notes that the dispatcher has stopped.
func (h *history) end(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = now
}

// observe takes word of a job, on the way that every job takes: what is shown of
// it is made when somebody asks.
func (h *history) observe(r agents.Report) {
	if r.Ended.IsZero() {
		h.starts(r)
	} else {
		h.ends(withoutBulk(r))
	}
}

func (h *history) starts(r agents.Report) {
	at := place{r.Queue, r.Agent}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active[r.Attempt.Token] = &remembered{r, h.last + 1}
	started := h.fresh[at]
	if started == nil {
		started = &fresh{}
		h.fresh[at] = started
	}
	started.count++
	if len(started.ids) < listedJobs {
		started.ids = append(started.ids, r.ID)
	}
}

// ends notes that an attempt is over. One that began before the history did is
// none of it.
func (h *history) ends(r agents.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if begun, known := h.active[r.Attempt.Token]; known {
		delete(h.active, r.Attempt.Token)
		begun.Report = r
		h.over.push(begun)
	}
}

// attempts yields every remembered attempt that passes the filter; those that are
// over come last, the newest end first. The mutex is held.
func (h *history) attempts(q Query) iter.Seq[remembered] {
	return func(yield func(remembered) bool) {
		for _, r := range h.active {
			if q.takes(r.Queue, r.Agent) && !yield(*r) {
				return
			}
		}
		for r := range h.over.newest() {
			if q.takes(r.Queue, r.Agent) && !yield(*r) {
				return
			}
		}
	}
}

// ring keeps the last of what is pushed on it.
type ring[T any] struct {
	most  int
	next  int // where the next goes, once there are most
	items []T
}

func (r *ring[T]) push(item T) {
	if len(r.items) < r.most {
		r.items = append(r.items, item)
		return
	}
	r.items[r.next] = item
	r.next = (r.next + 1) % r.most
}

// newest yields the items, the last one first.
func (r *ring[T]) newest() iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := range r.items {
			if !yield(r.items[(r.next+len(r.items)-1-i)%len(r.items)]) {
				return
			}
		}
	}
}
