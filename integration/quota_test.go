package integration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

var render = asyncnats.Define[int, int]("image.render")

// Of jobs that name a quota no more run at once than its size, over all dispatchers, and as many as that; those that
// wait begin in the order in which they were put.
func TestQuotaLimits(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			tell(t, func(s *story) {
				if err := s.queue.CreateQuota(s.Context(), "gpu", size); err != nil {
					s.Fatal(err)
				}
				var running, most atomic.Int64
				var mu sync.Mutex
				var order []int
				handler := render.Handle(func(ctx context.Context, n int) (int, error) {
					if now := running.Add(1); now > most.Load() {
						most.Store(now)
					}
					defer running.Add(-1)
					mu.Lock()
					order = append(order, n)
					mu.Unlock()
					time.Sleep(time.Second)
					return n, nil
				})
				for range 3 {
					s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}, Agents: []agents.Agent{{Name: "main", Size: 4}}})
				}
				time.Sleep(time.Second)
				began := time.Now()
				const n = 12
				jobs := make([]*asyncnats.Job[int], n)
				for i := range jobs {
					jobs[i] = put(s, render.Call(i).Quota("gpu"))
					if i == size-1 {
						time.Sleep(100 * time.Millisecond) // the quota is full, whoever has its slots
					}
				}
				for i, j := range jobs {
					if got := wait(s, j); got != i {
						s.Errorf("job %d returned %d", i, got)
					}
				}
				took := time.Since(began)
				if most.Load() != int64(size) {
					s.Errorf("at most %d ran at once, want %d", most.Load(), size)
				}
				if ideal := time.Duration(n/size) * time.Second; took > ideal+500*time.Millisecond {
					s.Errorf("took %v, want about %v", took, ideal)
				}
				for i := range order {
					if size == 1 && order[i] != i {
						s.Errorf("began in the order %v", order)
						break
					}
				}
				quota, err := s.queue.Quota(s.Context(), "gpu")
				if err != nil || len(quota.Holders) > 0 || len(quota.Waiters) > 0 {
					s.Errorf("at the end: %+v, %v", quota, err)
				}
			})
		})
	}
}
