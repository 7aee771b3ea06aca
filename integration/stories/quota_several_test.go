package stories

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
)

// A job that names several quotas gets a slot in all of them or in none. While
// it waits, the slots that are free are others' (FEATURES 43, 44).
func TestSeveralQuotas(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		s.create("db", 1)
		w := s.site()
		for range 2 {
			s.dispatch(w.staff(4))
		}
		stints(s, paint, gpu, "gpu-1")
		stints(s, paint, []string{"gpu", "db"}, "both")
		s.wantQuota("gpu", ids("gpu-1"), ids("both"))
		s.wantQuota("db", nil, ids("both"))

		stints(s, paint, []string{"db"}, "db-1") // it passes the one that waits
		w.wantBegun(s, "gpu-1", "db-1")
		stints(s, carve, gpu, "gpu-2")
		w.finish("gpu-1")
		w.wantBegun(s, "gpu-1", "db-1", "gpu-2")
		w.finish("db-1")
		w.wantBegun(s, "gpu-1", "db-1", "gpu-2")
		s.wantQuota("db", nil, ids("both"))
		w.finish("gpu-2")
		w.wantBegun(s, "gpu-1", "db-1", "gpu-2", "both")
		s.wantQuota("gpu", ids("both"), nil)
		s.wantQuota("db", ids("both"), nil)

		stints(s, carve, gpu, "gpu-3")
		stints(s, carve, []string{"db"}, "db-3")
		w.wantBegun(s, "gpu-1", "db-1", "gpu-2", "both")
		w.finish("both")
		w.finish("gpu-3", "db-3")
		if begun := len(w.begun()); begun != 6 {
			s.Errorf("begun %q", w.begun())
		}
		s.wantQuota("gpu", nil, nil)
		s.wantQuota("db", nil, nil)
		w.wantMost(s, map[string]int{"gpu": 1, "db": 1})
	})
}

// A job that needs two quotas has its turn though each of them is always
// wanted by jobs that need but the one.
func TestSeveralQuotasAreNotStarved(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		s.create("db", 1)
		w := s.site()
		for range 2 {
			s.dispatch(w.staff(6))
		}
		// Their ends do not coincide.
		var calls []asyncnats.Call[string]
		for range 60 {
			calls = append(calls,
				paint.Call(stint{Name: "gpu", For: 1000 * time.Millisecond}).Quota("gpu"),
				paint.Call(stint{Name: "db", For: 700 * time.Millisecond}).Quota("db"))
		}
		if _, err := asyncnats.PutMany(s.Context(), s.queue, calls[:20]...); err != nil {
			s.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		both := stints(s, carve, []string{"gpu", "db"}, "both")[0]
		if _, err := asyncnats.PutMany(s.Context(), s.queue, calls[20:]...); err != nil {
			s.Fatal(err)
		}
		awaitFake(s, func() bool { return w.has("both") })
		// The ten of each that came before it, the eight that may pass it, and one
		// that ran already.
		count := make(map[string]int)
		for _, name := range w.begun() {
			count[name]++
		}
		if count["gpu"] > 10+8+1 || count["db"] > 10+8+1 || count["both"] != 1 {
			s.Errorf("begun before it: %v", count)
		}
		w.finish("both")
		wait(s, both)
		w.wantMost(s, map[string]int{"gpu": 1, "db": 1})
	})
}

// has reports whether an attempt of that name has begun.
func (w *site) has(name string) bool {
	for _, begun := range w.begun() {
		if begun == name {
			return true
		}
	}
	return false
}

// Jobs that need different pairs of quotas, from many dispatchers, do not wait
// for each other in a circle.
func TestSeveralQuotasInACircle(t *testing.T) {
	tell(t, func(s *story) {
		names := []string{"a", "b", "c"}
		for _, name := range names {
			s.create(name, 1)
		}
		w := s.site()
		for range 3 {
			s.dispatch(w.staff(5))
		}
		random := rand.New(rand.NewPCG(1, 2))
		var jobs []*asyncnats.Job[string]
		for i := range 30 {
			task := []asyncnats.Task[stint, string]{paint, carve}[i%2]
			one, other := names[i%3], names[(i+random.IntN(3))%3] // sometimes the same
			jobs = append(jobs, put(s, task.Call(stint{For: time.Duration(random.IntN(50)+1) * time.Millisecond}).Quota(one, other)))
			time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
		}
		began := time.Now()
		for _, j := range jobs {
			wait(s, j)
		}
		if took := time.Since(began); took > 30*50*time.Millisecond {
			s.Errorf("took %v, longer than one after another", took)
		}
		w.wantMost(s, map[string]int{"a": 1, "b": 1, "c": 1})
		for _, name := range names {
			s.wantQuota(name, nil, nil)
		}
	})
}

// The slots of an interrupted job stay with it in all its quotas, and a removed
// one among them limits nothing.
func TestSeveralQuotasAfterAnInterruption(t *testing.T) {
	tell(t, func(s *story) {
		quotas := []string{"db", "gpu"}
		s.create("gpu", 1)
		s.create("db", 1)
		w := s.site()
		s.dispatch(w.staff(5, "site.carve"))
		c := w.staff(5, "site.paint")
		c.Grace = -1
		d := s.dispatch(c)
		stints(s, paint, quotas, "both")
		stints(s, carve, gpu, "gpu-1")
		stints(s, carve, []string{"db"}, "db-1")
		d.stop()
		time.Sleep(3 * ackWait)
		s.wantQuota("gpu", ids("both"), ids("gpu-1"))
		s.wantQuota("db", ids("both"), ids("db-1"))
		s.dispatch(w.staff(5, "site.paint"))
		moment()
		w.wantBegun(s, "both", "both")
		turns := w.seen()
		for _, name := range quotas {
			if turns[1].Fence(name) <= turns[0].Fence(name) {
				s.Errorf("%s: token %d after %d", name, turns[1].Fence(name), turns[0].Fence(name))
			}
		}
		// Another job of both begins when one is removed and the other free.
		stints(s, paint, quotas, "next")
		s.remove()
		w.wantBegun(s, "both", "both", "gpu-1")
		w.finish("db-1") // it will return as soon as it begins
		w.finish("both")
		if begun := fmt.Sprint(w.begun()[3:]); begun != "[db-1 next]" {
			s.Errorf("then begun %s", begun)
		}
		s.wantQuota("db", ids("next"), nil)
		w.finish("next", "gpu-1")
		s.wantQuota("db", nil, nil)
		w.wantMost(s, map[string]int{"gpu": 2, "db": 1})
	})
}
