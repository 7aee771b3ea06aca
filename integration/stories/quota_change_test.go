package stories

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
)

// resize changes the size of the quota gpu.
func (s *story) resize(size int) {
	s.Helper()
	if err := s.queue.ResizeQuota(s.Context(), "gpu", size); err != nil {
		s.Fatal(err)
	}
	moment()
}

// remove removes the quota gpu.
func (s *story) remove() {
	s.Helper()
	if err := s.queue.RemoveQuota(s.Context(), "gpu"); err != nil {
		s.Fatal(err)
	}
	moment()
}

// When a quota is removed the jobs that wait for it start, running ones go on,
// and new ones are refused, by every client, with nothing stored (FEATURES 31,
// 34).
func TestRemovedQuotaLimitsNothing(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(5))
		jobs := stints(s, paint, gpu, "runs", "waits", "is-pending", "is-pending-too")
		w.wantBegun(s, "runs")
		other, err := asyncnats.Connect(s.Context(), s.server.Connect(s.T), asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		if _, err := asyncnats.Put(s.Context(), other.Queue("default"), paint.Call(stint{Name: "5"}).Quota("gpu")); err != nil {
			s.Fatal(err)
		}
		s.remove()
		if begun := w.begun(); len(begun) != 5 {
			s.Errorf("begun after the removal: %q", begun)
		}
		if _, err := s.queue.Quota(s.Context(), "gpu"); !errors.Is(err, asyncnats.ErrUnknownQuota) {
			s.Errorf("look at a removed quota: %v", err)
		}
		for name, err := range map[string]error{
			"resize": s.queue.ResizeQuota(s.Context(), "gpu", 2), "remove": s.queue.RemoveQuota(s.Context(), "gpu"),
		} {
			if !errors.Is(err, asyncnats.ErrUnknownQuota) {
				s.Errorf("%s a removed quota: %v", name, err)
			}
		}

		before, err := s.queue.Info(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		time.Sleep(time.Second) // for as long a client may rely on having seen it
		free, limited := paint.Call(stint{Name: "free"}), paint.Call(stint{Name: "limited"}).Quota("gpu")
		for name, queue := range map[string]*asyncnats.Queue{"who removed it": s.queue, "another client": other.Queue("default")} {
			if _, err := asyncnats.Put(s.Context(), queue, limited); !errors.Is(err, asyncnats.ErrUnknownQuota) {
				s.Errorf("put by %s: %v", name, err)
			}
			if put, err := asyncnats.PutMany(s.Context(), queue, free, limited, free); !errors.Is(err, asyncnats.ErrUnknownQuota) || len(put) > 0 {
				s.Errorf("put many by %s: %d, %v", name, len(put), err)
			}
		}
		if after, err := s.queue.Info(s.Context()); err != nil || after.Messages != before.Messages {
			s.Errorf("%d messages in the queue, %v; before %d", after.Messages, err, before.Messages)
		}
		w.finish("runs", "waits", "is-pending", "is-pending-too", "5")
		for _, j := range jobs {
			wait(s, j)
		}
	})
}

// A client that removes a quota relies no more on having seen it.
func TestPutAtOnceAfterRemoval(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		put(s, paint.Call(stint{}).Quota("gpu"))
		s.remove()
		if _, err := asyncnats.Put(s.Context(), s.queue, paint.Call(stint{}).Quota("gpu")); !errors.Is(err, asyncnats.ErrUnknownQuota) {
			s.Errorf("got %v", err)
		}
	})
}

// A job is put again by nobody but its client, so that one whose quota was
// removed meanwhile is never refused: not when it is handed back unstarted, nor
// after an interruption (FEATURES b17).
func TestRemovalDoesNotKeepJobsFromComingBack(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 2)
		w := s.site()
		c := w.staff(5)
		c.Grace = -1
		first := s.dispatch(c)
		jobs := stints(s, paint, gpu, "runs", "runs-too", "waits", "is-pending")
		w.wantBegun(s, "runs", "runs-too")
		s.resize(0)
		w.finish("runs-too")
		first.stop()
		s.remove()
		s.dispatch(w.staff(5))
		w.finish("runs", "waits", "is-pending")
		for _, j := range jobs {
			wait(s, j)
		}
		if r := record(s, jobs[0]); r.Interrupts != 1 || r.Attempt.Number != 2 {
			s.Errorf("record of the interrupted job: %+v", r)
		}
	})
}

// A quota that is created again counts the jobs that name it and run (FEATURES
// b6): those that began before the removal, and those that began after it.
func TestRecreatedQuotaCountsRunningJobs(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(5))
		stints(s, paint, gpu, "before", "freed")
		late := stints(s, paint, nil, "without")[0]
		s.remove()
		w.wantBegun(s, "before", "without", "freed")
		s.create("gpu", 2)
		quota := s.wantQuota("gpu", ids("before", "freed"), nil)
		if quota.Size != 2 || !quota.Filled() {
			s.Errorf("size %d, filled %v", quota.Size, quota.Filled())
		}
		stints(s, paint, gpu, "after")
		w.wantBegun(s, "before", "without", "freed")
		w.finish("freed")
		w.wantBegun(s, "before", "without", "freed", "after")
		w.finish("before", "after", "without")
		wait(s, late)
		s.wantQuota("gpu", nil, nil)
	})
}

// Creating a quota of a name that is taken is refused and changes nothing
// (FEATURES b7). Limit does either.
func TestCreateExistingQuota(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 2)
		if err := s.queue.CreateQuota(s.Context(), "gpu", 3); !errors.Is(err, asyncnats.ErrQuotaExists) {
			s.Errorf("got %v", err)
		}
		if quota := s.wantQuota("gpu", nil, nil); quota.Size != 2 {
			s.Errorf("size %d", quota.Size)
		}
		for name, size := range map[string]int{"gpu": 4, "new": 5} {
			if err := s.queue.Limit(s.Context(), name, size); err != nil {
				s.Fatal(err)
			}
			if quota := s.wantQuota(name, nil, nil); quota.Size != size {
				s.Errorf("size of %s is %d, want %d", name, quota.Size, size)
			}
		}
		for verb, change := range map[string]func(size int) error{
			"create": func(size int) error { return s.queue.CreateQuota(s.Context(), "other", size) },
			"resize": func(size int) error { return s.queue.ResizeQuota(s.Context(), "gpu", size) },
			"limit":  func(size int) error { return s.queue.Limit(s.Context(), "gpu", size) },
		} {
			if err := change(-1); err == nil {
				s.Errorf("%s to -1 was taken", verb)
			}
		}
		if quota := s.wantQuota("gpu", nil, nil); quota.Size != 4 {
			s.Errorf("size %d", quota.Size)
		}
	})
}

// A larger size lets waiters in at once, over all dispatchers, also those who
// were not given out before; a size of 0 starts nothing, and any other starts
// again.
func TestResizedQuota(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 0)
		w := s.site()
		for range 2 {
			s.dispatch(w.staff(5))
		}
		var names []string
		for i := range 8 {
			names = append(names, fmt.Sprint(i))
		}
		jobs := stints(s, paint, gpu, names...)
		time.Sleep(time.Minute)
		w.wantBegun(s)
		for _, size := range []int{1, 4} {
			at := time.Now()
			s.resize(size)
			if begun := len(w.begun()); begun != size {
				s.Errorf("%d begun after size %d", begun, size)
			}
			for _, turn := range w.seen() {
				if took := turn.began.Sub(at); took > 5*time.Millisecond {
					s.Errorf("%s began %v after size %d", turn.name, took, size)
				}
			}
		}
		s.resize(0)
		w.finish(w.begun()...)
		time.Sleep(time.Minute)
		if begun := len(w.begun()); begun != 4 {
			s.Errorf("%d begun at size 0, want the 4 from before", begun)
		}
		s.resize(2)
		if begun := len(w.begun()); begun != 6 {
			s.Errorf("%d begun at size 2 after 4 have ended, want 6", begun)
		}
		w.finish(w.begun()[4:]...)
		w.finish(w.begun()[6:]...)
		for _, j := range jobs {
			wait(s, j)
		}
		w.wantMost(s, map[string]int{"gpu": 4})
	})
}

// Row 37 of FEATURES as the seed has it, over several dispatchers and lanes.
func TestShrunkQuota(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 2)
		w := s.site()
		for range 3 {
			s.dispatch(w.staff(2))
		}
		stints(s, paint, gpu, "1", "2")
		stints(s, carve, gpu, "3")
		s.resize(1)
		if quota := s.wantQuota("gpu", ids("1", "2"), ids("3")); !quota.Filled() {
			s.Error("not filled")
		}
		w.finish("1")
		if quota := s.wantQuota("gpu", ids("2"), ids("3")); !quota.Filled() {
			s.Error("not filled")
		}
		w.wantBegun(s, "1", "2")
		w.finish("2")
		w.wantBegun(s, "1", "2", "3")
		s.wantQuota("gpu", ids("3"), nil)
		w.finish("3")
		if quota := s.wantQuota("gpu", nil, nil); quota.Filled() {
			s.Error("filled")
		}
	})
}
