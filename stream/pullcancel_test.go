package stream

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// A cancel that races with a put: the job is either brought by the cancelled pull or still there
// for the next one at once. None is on its way to nobody, to come back after the ack wait.
func TestCancelLosesNothing(t *testing.T) {
	const rounds = 2000
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		random := rand.New(rand.NewPCG(seed, 0))
		c, next := tap(t, createQueue(t, s.Connect(t), Config{})), tap(t, createQueue(t, s.Connect(t), Config{}))
		begin := time.Now()
		brought, left := 0, 0
		for round := range rounds {
			e := newEntry()
			p := c.pull(t, 1, true)
			if random.IntN(8) > 0 {
				synctest.Wait() // the pull has arrived
			}
			var putting sync.WaitGroup
			putting.Go(func() { put(t, q, e) })
			for range random.IntN(1 + random.IntN(60)) { // few suffice on one processor
				runtime.Gosched()
			}
			p.Cancel()
			putting.Wait()
			if err := c.end(t, p); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			var l *Lease
			select {
			case l = <-c.leases:
				brought++
			default:
				left++
				l = next.take(t)
			}
			if l.ID != e.ID {
				t.Fatalf("round %d: job %s, want %s", round, l.ID, e.ID)
			}
			if err := l.Ack(); err != nil {
				t.Fatal(err)
			}
		}
		if brought < rounds/100 || left < rounds/100 {
			t.Errorf("brought %d times, left %d times: the race misses", brought, left)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("took %v, want no time at all", took)
		}
		synctest.Wait()
		wantMessages(t, q, 0)
	})
}

// The same with many pulls of several jobs from several connections, all cancelled in the middle of a flood.
func TestCancelInAFlood(t *testing.T) {
	const jobs, pullers, batch = 3000, 6, 20
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		begin := time.Now()
		var putting, pulling sync.WaitGroup
		putting.Go(func() {
			for range jobs {
				put(t, q, newEntry())
			}
		})
		var mu sync.Mutex
		seen := make(map[job.ID]int, jobs)
		for range pullers {
			c := tap(t, createQueue(t, s.Connect(t), Config{}))
			pulling.Go(func() {
				for {
					p := c.pull(t, batch, true)
					for range rand.IntN(200) {
						runtime.Gosched()
					}
					p.Cancel()
					if err := c.end(t, p); err != nil {
						t.Error(err)
					}
					mu.Lock()
					for len(c.leases) > 0 {
						l := <-c.leases
						seen[l.ID]++
						if err := l.Ack(); err != nil {
							t.Error(err)
						}
					}
					done := len(seen) == jobs
					mu.Unlock()
					time.Sleep(time.Millisecond)
					if done || time.Since(begin) >= ackWait/2 {
						return
					}
				}
			})
		}
		putting.Wait()
		pulling.Wait()
		if len(seen) != jobs {
			t.Errorf("%d of %d jobs were brought in time", len(seen), jobs)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("job %s was brought %d times", id, n)
			}
		}
		synctest.Wait()
		wantMessages(t, q, 0)
	})
}
