package stories

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// Those who wait get their slot in the order in which they were put, whatever
// their task and whichever dispatcher they are with.
func TestWaitersAreServedInOrder(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(2, "site.paint"))
		s.dispatch(w.staff(2, "site.carve"))
		var names []string
		for i := range 12 {
			task := paint
			if i%2 == 1 {
				task = carve
			}
			names = append(names, fmt.Sprint(i))
			stints(s, task, gpu, names[i])
		}
		for i, name := range names {
			w.wantBegun(s, names[:i+1]...)
			w.finish(name)
		}
		for i, turn := range w.seen()[1:] {
			if empty := turn.began.Sub(w.seen()[i].over); empty > 5*time.Millisecond {
				s.Errorf("the slot was empty for %v before %s", empty, turn.name)
			}
		}
		w.wantMost(s, map[string]int{"gpu": 1})
		s.wantQuota("gpu", nil, nil)
	})
}

// A dispatcher that stops hands back at once the jobs that wait for a slot,
// which counts as no interruption. Running ones keep their slot beyond their
// interruption: nobody gets in between, and their next attempt is the first that
// begins (FEATURES 46).
func TestDrainedDispatcher(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		c := w.staff(5)
		c.Grace = 5 * time.Second
		leaving := s.dispatch(c)
		jobs := stints(s, paint, gpu, "runs", "waits", "is-pending")
		heir := s.dispatch(w.staff(5))
		jobs = append(jobs, stints(s, carve, gpu, "last")...)
		s.wantQuota("gpu", ids("runs"), ids("waits", "last"))

		stopped := make(chan time.Time, 1)
		began := time.Now()
		go func() {
			leaving.stop()
			stopped <- time.Now()
		}()
		moment()
		quota := s.wantQuota("gpu", ids("runs"), ids("waits", "last"))
		for _, c := range quota.Waiters {
			if c.Dispatcher != heir.UUID() {
				s.Errorf("%s waits with %s still", c.ID, c.Dispatcher)
			}
		}
		time.Sleep(c.Grace - time.Second)
		w.wantBegun(s, "runs")
		if took := (<-stopped).Sub(began); took < c.Grace || took > c.Grace+50*time.Millisecond {
			s.Errorf("the dispatcher stopped after %v", took)
		}
		moment()
		w.wantBegun(s, "runs", "runs")
		turns := w.seen()
		// Where the one that left was the quota's keeper, its heir may have asked it in vain.
		const keeperPatience = 250 * time.Millisecond
		gap := turns[1].began.Sub(turns[0].over)
		if !errors.Is(turns[0].cause, job.ErrDraining) || turns[1].Dispatcher != heir.UUID() || gap > keeperPatience+10*time.Millisecond {
			s.Errorf("attempts %+v", turns)
		}
		s.wantQuota("gpu", ids("runs"), ids("waits", "last"))
		for _, name := range []string{"runs", "waits", "is-pending", "last"} {
			w.finish(name)
		}
		w.wantBegun(s, "runs", "runs", "waits", "is-pending", "last")
		for i, j := range jobs {
			interrupts := 0
			if i == 0 {
				interrupts = 1
			}
			if r := record(s, j); r.Interrupts != interrupts || r.Attempt.Number != interrupts+1 {
				s.Errorf("record of job %d: %+v", i, r)
			}
		}
		w.wantMost(s, map[string]int{"gpu": 1})
		s.wantQuota("gpu", nil, nil)
	})
}

// Nobody gets the slot of an interrupted job while no dispatcher is there to
// perform it, and afterwards it comes first.
func TestInterruptedJobComesFirst(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 2)
		w := s.site()
		c := w.staff(5, "site.paint")
		c.Grace = -1
		first := s.dispatch(c)
		s.dispatch(w.staff(5, "site.carve"))
		stints(s, paint, gpu, "interrupted")
		stints(s, carve, gpu, "runs")
		stints(s, paint, gpu, "waits")
		stints(s, carve, gpu, "waits-too")
		first.stop()
		time.Sleep(10 * ackWait)
		w.wantBegun(s, "interrupted", "runs")
		s.wantQuota("gpu", ids("interrupted", "runs"), ids("waits-too"))
		w.finish("runs")
		// The slot that is free is its who waits; the other one is the
		// interrupted job's.
		w.wantBegun(s, "interrupted", "runs", "waits-too")
		s.dispatch(w.staff(5, "site.paint"))
		moment()
		w.wantBegun(s, "interrupted", "runs", "waits-too", "interrupted")
		w.finish("waits-too")
		w.wantBegun(s, "interrupted", "runs", "waits-too", "interrupted", "waits")
		w.finish("interrupted", "waits")
		s.wantQuota("gpu", nil, nil)
		w.wantMost(s, map[string]int{"gpu": 2})
	})
}

// Fencing tokens rise with every job that gets a slot, with every attempt of
// it, and beyond the removal of the quota. A job has one for each of its quotas,
// and 0 for others.
func TestFencingTokensRise(t *testing.T) {
	tell(t, func(s *story) {
		s.create("cpu", 5)
		s.create("gpu", 1)
		w := s.site()
		for i := range 3 {
			c := w.staff(2)
			c.Grace = -1
			d := s.dispatch(c)
			moment() // for the second attempt of the job before
			stints(s, paint, gpu, fmt.Sprint(i))
			d.stop()
			if i == 1 {
				s.remove()
				s.create("gpu", 2)
			}
			w.finish(fmt.Sprint(i)) // its second attempt, with the next dispatcher
		}
		s.dispatch(w.staff(2))
		moment()
		stints(s, carve, []string{"gpu", "cpu"}, "both")
		w.finish("both")
		last := uint64(0)
		for _, turn := range w.seen() {
			fence := turn.Fence("gpu")
			if fence <= last {
				s.Errorf("attempt %d of %s has token %d after %d", turn.Attempt, turn.name, fence, last)
			}
			last = fence
			if cpu := turn.Fence("cpu"); (cpu > 0) != (turn.name == "both") {
				s.Errorf("%s has token %d for cpu", turn.name, cpu)
			}
		}
		if begun := len(w.seen()); begun != 7 {
			s.Errorf("%d attempts, want 7", begun)
		}
	})
}

// With a quota of 1 the turns of jobs do not overlap, over lanes and
// dispatchers, and their tokens rise in the order of the turns.
func TestQuotaIsAMutex(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		for range 3 {
			s.dispatch(w.staff(3))
		}
		var jobs []*asyncnats.Job[string]
		for i := range 60 {
			task := []asyncnats.Task[stint, string]{paint, carve}[i%2]
			jobs = append(jobs, put(s, task.Call(stint{For: time.Millisecond}).Quota("gpu")))
		}
		for _, j := range jobs {
			wait(s, j)
		}
		turns := w.seen()
		for i := 1; i < len(turns); i++ {
			if turns[i].began.Before(turns[i-1].over) || turns[i].Fence("gpu") <= turns[i-1].Fence("gpu") {
				s.Fatalf("turn %+v overlaps %+v", turns[i], turns[i-1])
			}
		}
	})
}
