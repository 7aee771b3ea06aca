package stories

import (
	"fmt"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
)

var api = []string{"api"}

// rate creates a rate limit, or changes a quota to one.
func (s *story) rate(name string, n int, period time.Duration) {
	s.Helper()
	if err := s.queue.RateLimit(s.Context(), name, n, period); err != nil {
		s.Fatal(err)
	}
}

// A job that is granted a start while its agent has no free place gives it back,
// and another starts; nothing of the rate is lost.
func TestStartIsPassedOnWhereThereIsNoPlace(t *testing.T) {
	tell(t, func(s *story) {
		s.rate("api", 1, time.Minute)
		w := s.site()
		s.dispatch(w.staff(1, "site.paint"))
		stints(s, paint, api, "spends")
		w.finish("spends")
		stints(s, paint, api, "waits")
		stints(s, paint, nil, "fills-the-place")
		s.dispatch(w.staff(1, "site.carve"))
		stints(s, carve, api, "behind")
		s.wantQuota("api", nil, ids("waits", "behind"))
		time.Sleep(time.Minute)
		w.wantBegun(s, "spends", "fills-the-place", "behind")
		turns := w.seen()
		if d := turns[2].began.Sub(turns[0].began); d < time.Minute || d > time.Minute+250*time.Millisecond {
			s.Errorf("it began %v after the first", d)
		}
		w.finish("fills-the-place")
		time.Sleep(time.Minute)
		w.wantBegun(s, "spends", "fills-the-place", "behind", "waits")
		w.finish("waits", "behind")
		s.wantQuota("api", nil, nil)
	})
}

// Jobs that run for long do not slow a rate, however many they become; and of
// those that wait few are delivered.
func TestRateOfLongJobs(t *testing.T) {
	tell(t, func(s *story) {
		const size, places, jobs = 2, 25, 100
		s.rate("api", size, time.Second)
		w := s.site()
		s.dispatch(w.staff(places))
		calls := make([]asyncnats.Call[string], jobs)
		for i := range calls {
			calls[i] = paint.Call(stint{Name: fmt.Sprint(i)}).Quota("api")
		}
		if _, err := asyncnats.PutMany(s.Context(), s.queue, calls...); err != nil {
			s.Fatal(err)
		}
		began := time.Now()
		for n := 1; n <= places/size; n++ {
			time.Sleep(time.Until(began.Add(time.Duration(n)*time.Second - 100*time.Millisecond)))
			if got := len(w.seen()); got != n*size {
				s.Errorf("%d began in %v, want %d", got, time.Since(began), n*size)
			}
		}
		info, err := s.queue.Info(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		if len(info.Lanes) != 1 {
			s.Errorf("%d lanes, want that of the jobs", len(info.Lanes))
		}
		for _, lane := range info.Lanes {
			// Some more may have been handed back, which wait for another agent: one
			// for each time that the agent had more waiting than places.
			if running := len(w.seen()); len(lane.Quotas) > 0 && lane.Assigned >= running+2*places {
				s.Errorf("%d are delivered, of which %d run", lane.Assigned, running)
			}
		}
	})
}

// A worker dies after its job began: the job's next attempt takes another start,
// before those who never began.
func TestRateOfAnInterruptedJob(t *testing.T) {
	tell(t, func(s *story) {
		s.rate("api", 1, time.Minute)
		w := s.site()
		d := s.dispatch(w.staff(1, "site.paint"))
		stints(s, paint, api, "dies")
		s.dispatch(w.staff(2))
		stints(s, carve, api, "waits")
		d.wire.Freeze()
		time.Sleep(50 * time.Second)
		w.wantBegun(s, "dies")
		s.wantQuota("api", nil, ids("dies", "waits"))
		time.Sleep(20 * time.Second)
		w.wantBegun(s, "dies", "dies")
		time.Sleep(time.Minute)
		w.wantBegun(s, "dies", "dies", "waits")
		turns := w.seen()
		for i := range turns[1:] {
			if d := turns[i+1].began.Sub(turns[i].began); d < time.Minute-time.Millisecond || turns[i+1].Fence("api") <= turns[i].Fence("api") {
				s.Errorf("%q began %v after %q, with token %d after %d", turns[i+1].name, d, turns[i].name, turns[i+1].Fence("api"), turns[i].Fence("api"))
			}
		}
		d.wire.Thaw()
	})
}
