package quotas

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// registry tells a gate which jobs are gone.
type registry struct {
	mu    sync.Mutex
	gone  map[job.ID]error // nil for one that is gone
	asked map[job.ID]int
}

func newRegistry() *registry {
	return &registry{gone: make(map[job.ID]error), asked: make(map[job.ID]int)}
}

func (r *registry) set(id job.ID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone[id] = err
}

func (r *registry) back(id job.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.gone, id)
}

func (r *registry) asks(id job.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[id]
}

func (r *registry) use(c *GateConfig) {
	c.Gone = func(_ context.Context, id job.ID, _ job.Nonce) (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked[id]++
		err, gone := r.gone[id]
		return gone && err == nil, err
	}
}

// Claims whose jobs are gone are removed when that was seen twice, an ack wait
// apart; those of jobs that are there, or of which nobody knows, stay.
func TestSweep(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(3, "gpu")
		dead := w.start()
		seats := dead.crowd(1, 5, "gpu")
		wantIn(t, seats, 1, 2, 3)
		dead.die()
		jobs := newRegistry()
		jobs.set("job-1", nil)
		jobs.set("job-2", errors.New("nobody knows"))
		jobs.set("job-5", nil)
		p := w.start(jobs.use)
		late := p.enter(6, "gpu")
		time.Sleep(2*ackWait - 10*time.Millisecond)
		w.wantLine("gpu", "1 2 3 | 4 5 6")
		time.Sleep(time.Second)
		w.wantLine("gpu", "2 3 4 | 6")
		if log := p.logged(); strings.Count(log, "slot freed: its job is gone") != 2 || !strings.Contains(log, "quota=gpu nonce="+nonceOf(1).String()) {
			t.Errorf("logged %q", log)
		}
		jobs.set("job-2", nil)
		time.Sleep(10 * ackWait)
		wantIn(t, []*seat{late}, 6)
		w.wantLine("gpu", "3 4 6 |")
		if jobs.asks("job-6") > 0 || jobs.asks("job-3") == 0 {
			t.Errorf("asked for a job of its own %d times, for another's %d times", jobs.asks("job-6"), jobs.asks("job-3"))
		}
		w.check()
	})
}

// The claims of jobs that are gone are swept after their keeper's death too, though
// nobody wants the quota: by one who was told of the death, before it knew of the
// quota or after. A quota that another keeps, or that has no claims, is left alone.
func TestSweepSucceeds(t *testing.T) {
	for name, early := range map[string]bool{"before": true, "after": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "gpu", "other", "empty")
				dead, other := w.start(), w.start()
				wantIn(t, []*seat{dead.enter(1, "gpu")}, 1)
				wantIn(t, []*seat{other.enter(2, "other")}, 2)
				brief := dead.enter(3, "empty")
				wantIn(t, []*seat{brief}, 3)
				leave(t, brief)
				dead.die()
				jobs := newRegistry()
				jobs.set("job-1", nil)
				p := w.start(jobs.use)
				if !early {
					settle()
				}
				p.Succeed(dead.name)
				time.Sleep(3 * ackWait)
				w.wantLine("gpu", "|")
				w.wantLine("other", "2 |")
				if keepers := []string{w.now("gpu").Keeper, w.now("other").Keeper, w.now("empty").Keeper}; !slices.Equal(keepers, []string{p.name, other.name, dead.name}) {
					t.Errorf("kept by %q", keepers)
				}
				w.check()
			})
		})
	}
}

// A job that is there again when it is looked at the second time, or of which
// nobody knows then, is looked at twice anew.
func TestSweepStartsAnew(t *testing.T) {
	for name, between := range map[string]func(*registry){
		"it is back": func(r *registry) { r.back("job-1") },
		"an error":   func(r *registry) { r.set("job-1", errors.New("nobody knows")) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "gpu")
				dead := w.start()
				wantIn(t, dead.crowd(1, 1, "gpu"), 1)
				dead.die()
				jobs := newRegistry()
				jobs.set("job-1", nil)
				w.start(jobs.use).enter(2, "gpu")
				time.Sleep(ackWait + time.Second)
				between(jobs)
				time.Sleep(ackWait)
				jobs.set("job-1", nil)
				time.Sleep(ackWait) // the third look
				w.wantLine("gpu", "1 | 2")
				time.Sleep(ackWait)
				w.wantLine("gpu", "2 |")
			})
		})
	}
}

// A second look that follows the first too soon is none: the first took long.
func TestSweepCountsFromTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		dead := w.start()
		wantIn(t, dead.crowd(1, 1, "gpu"), 1)
		dead.die()
		first := true // of the goroutine that looks
		p := w.start(func(c *GateConfig) {
			c.Gone = func(context.Context, job.ID, job.Nonce) (bool, error) {
				if first {
					time.Sleep(tryPatience / 2)
				}
				first = false
				return true, nil
			}
		})
		p.enter(2, "gpu")
		time.Sleep(2*ackWait + tryPatience)
		w.wantLine("gpu", "1 | 2")
		time.Sleep(ackWait)
		w.wantLine("gpu", "2 |")
	})
}

// A claim that another attempt has renewed between the looks is not removed.
func TestSweepIsByAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		dead := w.start()
		one := dead.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		dead.die()
		jobs := newRegistry()
		jobs.set("job-1", nil)
		w.start(jobs.use).enter(2, "gpu")
		time.Sleep(ackWait + time.Second)
		q := w.start()
		again := q.again(one)
		time.Sleep(ackWait)
		w.wantLine("gpu", "1i | 2")
		if closed(again.Lost()) {
			t.Error("lost")
		}
	})
}

// Whoever keeps a quota sweeps what others left in it, wherever it stands.
func TestSweepTogether(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		dead := w.start()
		dead.crowd(1, 3, "a", "b")
		dead.enter(4, "b")
		settle()
		dead.die()
		jobs := newRegistry()
		for _, id := range []job.ID{"job-1", "job-2", "job-4"} {
			jobs.set(id, nil)
		}
		w.start(jobs.use).enter(5, "a")
		w.start(jobs.use).enter(6, "b")
		time.Sleep(3 * ackWait)
		for name, holder := range map[string]uint64{"a": 5, "b": 6} {
			now := w.now(name)
			if len(now.Holders) != 1 || now.Holders[0].Sequence != holder || len(now.Waiters) != 1 || now.Waiters[0].Sequence != 3 {
				t.Errorf("quota %s: %s, want that %d holds and 3 waits", name, show(now), holder)
			}
		}
		w.check()
	})
}

// Looks that take long are not begun again meanwhile, and count from when they
// ended.
func TestSlowSweep(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		dead := w.start()
		wantIn(t, dead.crowd(1, 1, "gpu"), 1)
		dead.die()
		var mu sync.Mutex
		at, most, looks := 0, 0, 0
		p := w.start(func(c *GateConfig) {
			c.Gone = func(ctx context.Context, _ job.ID, _ job.Nonce) (bool, error) {
				mu.Lock()
				at, looks = at+1, looks+1
				most = max(most, at)
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second):
				}
				mu.Lock()
				at--
				mu.Unlock()
				return true, ctx.Err()
			}
		})
		p.enter(2, "gpu")
		time.Sleep(2*ackWait + time.Second)
		w.wantLine("gpu", "1 | 2")
		time.Sleep(2 * time.Second)
		w.wantLine("gpu", "2 |")
		mu.Lock()
		defer mu.Unlock()
		if most != 1 || looks != 2 {
			t.Errorf("%d looks, %d at once", looks, most)
		}
	})
}
