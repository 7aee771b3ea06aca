package stories

import (
	"testing"
	"time"
)

// While the bucket of quotas takes no writes for longer than an ack wait, as while
// a leader is elected, a job that ends keeps its lease until its slot is given back,
// and is not performed again.
func TestSlotIsGivenBackLate(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(3))
		jobs := stints(s, paint, gpu, "ends", "next")
		back := s.refuse("KV_ASYNC_QUOTAS", "$KV.ASYNC_QUOTAS.>")
		w.finish("ends")
		time.Sleep(2 * ackWait)
		back()
		wait(s, jobs[0])
		time.Sleep(time.Second)
		w.finish("next")
		wait(s, jobs[1])
		w.wantBegun(s, "ends", "next")
		s.wantQuota("gpu", nil, nil)
	})
}

// Jobs of which nobody knows whether they must wait for a slot take no places from
// others.
func TestQuotasSayNothing(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 3)
		w := s.site()
		s.dispatch(w.staff(3))
		stints(s, paint, gpu, "before")
		w.finish("before")
		back := s.refuse("KV_ASYNC_QUOTAS", "$KV.ASYNC_QUOTAS.>")
		jobs := stints(s, paint, gpu, "a", "b", "c")
		put(s, carve.Call(stint{Name: "plain", For: time.Second}))
		time.Sleep(2 * time.Second)
		w.wantBegun(s, "before", "plain")
		back()
		time.Sleep(time.Second)
		w.finish("a", "b", "c")
		for _, j := range jobs {
			wait(s, j)
		}
		s.wantQuota("gpu", nil, nil)
	})
}
