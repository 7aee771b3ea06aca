package stories

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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
		back := s.quotasAway()
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
		back := s.quotasAway()
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

// quotasAway has the bucket of quotas take no writes until back is called.
func (s *story) quotasAway() (back func()) {
	s.Helper()
	js, err := jetstream.New(s.server.Connect(s.T))
	if err != nil {
		s.Fatal(err)
	}
	bucket, err := js.Stream(s.Context(), "KV_ASYNC_QUOTAS")
	if err != nil {
		s.Fatal(err)
	}
	config := bucket.CachedInfo().Config
	update := func(subjects []string) {
		config.Subjects = subjects
		if _, err := js.UpdateStream(s.Context(), config); err != nil {
			s.Fatal(err)
		}
	}
	subjects := slices.Clone(config.Subjects)
	update([]string{"nowhere"})
	return func() { update(subjects) }
}
