package stories

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// A job that waits for a slot holds no place in its agent, and what is put
// after it starts at once: jobs of its task without the quota, jobs of other
// tasks, jobs of other quotas (FEATURES 44).
func TestBlockedJobBlocksNobody(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		s.create("cpu", 1)
		w := s.site()
		s.dispatch(w.staff(1))
		stints(s, paint, gpu, "holder")
		// The second agent has one place, and two jobs that wait.
		s.dispatch(w.staff(1))
		stints(s, paint, gpu, "waits")
		stints(s, carve, gpu, "waits-too")
		s.wantQuota("gpu", ids("holder"), ids("waits", "waits-too"))

		stints(s, paint, nil, "same-task")
		w.wantBegun(s, "holder", "same-task")
		w.finish("same-task")
		stints(s, carve, nil, "other-task")
		w.wantBegun(s, "holder", "same-task", "other-task")
		w.finish("other-task")
		stints(s, paint, []string{"cpu"}, "other-quota")
		w.wantBegun(s, "holder", "same-task", "other-task", "other-quota")
		w.finish("other-quota", "holder")
		w.wantBegun(s, "holder", "same-task", "other-task", "other-quota", "waits")
		w.finish("waits", "waits-too")
		s.wantQuota("gpu", nil, nil)
		w.wantMost(s, map[string]int{"gpu": 1, "cpu": 1})
	})
}

// A job that is given a slot while its agent has no free place passes the slot
// on, comes back to whoever has a place, and has lost nothing.
func TestSlotIsPassedOnWhereThereIsNoPlace(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		first := s.dispatch(w.staff(1, "site.paint"))
		stints(s, paint, gpu, "holder")
		busy := s.dispatch(w.staff(1))
		waits := stints(s, paint, gpu, "waits")[0]
		stints(s, paint, nil, "fills-the-place")
		last := s.dispatch(w.staff(1, "site.carve"))
		stints(s, carve, gpu, "behind")
		quota := s.wantQuota("gpu", ids("holder"), ids("waits", "behind"))
		if by := quota.Waiters[0].Dispatcher; by != busy.UUID() {
			s.Fatalf("the first waiter is with %s, not with the busy dispatcher", by)
		}

		w.finish("holder")
		time.Sleep(200 * time.Millisecond)
		w.wantBegun(s, "holder", "fills-the-place", "behind")
		quota = s.wantQuota("gpu", ids("behind"), ids("waits"))
		if by := quota.Waiters[0].Dispatcher; by != first.UUID() {
			s.Errorf("the job waits with %s, not with the one that has a place", by)
		}
		w.finish("behind")
		w.wantBegun(s, "holder", "fills-the-place", "behind", "waits")
		if turns := w.seen(); turns[2].Dispatcher != last.UUID() || turns[3].Dispatcher != first.UUID() {
			s.Errorf("performed by %s and %s", turns[2].Dispatcher, turns[3].Dispatcher)
		}
		w.finish("waits", "fills-the-place")
		wait(s, waits)
		if r := record(s, waits); r.Interrupts != 0 || r.Attempt.Number != 1 {
			s.Errorf("record %+v: want the first attempt and no interrupt", r)
		}
		w.wantMost(s, map[string]int{"gpu": 1})
	})
}

// Ten thousand jobs that wait for a quota keep nobody from starting, and while
// nothing happens they cost nothing: neither messages nor a large quota.
func TestTenThousandBlockedJobs(t *testing.T) {
	const many = 10_000
	quietMinute := func(backlog int) (messages uint64) {
		tell(t, func(s *story) {
			s.create("gpu", 1)
			w := s.site()
			var wires []*nats.Conn
			for range 2 {
				wires = append(wires, s.dispatchQuietly(w.staff(2)))
			}
			stints(s, paint, gpu, "holder")
			calls := make([]asyncnats.Call[string], backlog)
			for i := range calls {
				calls[i] = paint.Call(stint{Name: "blocked"}).Quota("gpu")
			}
			if _, err := asyncnats.PutMany(s.Context(), s.queue, calls...); err != nil {
				s.Fatal(err)
			}
			began := time.Now()
			free := put(s, paint.Call(stint{Name: "free", For: time.Millisecond}))
			wait(s, free)
			if took := time.Since(began); took > 200*time.Millisecond {
				s.Errorf("a job behind %d that are blocked took %v", backlog, took)
			}
			before := traffic(wires)
			time.Sleep(time.Minute)
			messages = traffic(wires) - before
			w.wantBegun(s, "holder", "free")
			quota, err := s.queue.Quota(s.Context(), "gpu")
			if err != nil || len(quota.Holders) != 1 || len(quota.Waiters) > 4 {
				s.Errorf("the quota has %d holders and %d waiters, %v", len(quota.Holders), len(quota.Waiters), err)
			}
			w.finish("holder")
			w.wantBegun(s, "holder", "free", "blocked")
			w.wantMost(s, map[string]int{"gpu": 1})
		})
		return messages
	}
	few, all := quietMinute(10), quietMinute(many)
	t.Logf("in a minute two dispatchers exchange %d messages with 10 jobs blocked, %d with %d", few, all, many)
	if all > few+100 || all > 2*6*60 { // six a second for each dispatcher, with all its watches
		t.Errorf("%d messages in a minute with %d jobs blocked, %d with 10", all, many, few)
	}
}

// traffic counts the messages that connections have sent and received.
func traffic(wires []*nats.Conn) (messages uint64) {
	for _, nc := range wires {
		stats := nc.Stats()
		messages += stats.InMsgs + stats.OutMsgs
	}
	return messages
}

// dispatchQuietly runs a dispatcher until the story ends, without a log, and
// returns its connection.
func (s *story) dispatchQuietly(c dispatcher.Config) *nats.Conn {
	s.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	nc := s.server.Connect(s.T)
	c.UUID = uuid.New()
	d, err := dispatcher.New(nc, c)
	if err != nil {
		s.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(s.Context()) }() // a test's context ends before its cleanups
	s.Cleanup(func() {
		if err := <-ended; err != nil {
			s.Errorf("dispatcher: %v", err)
		}
	})
	return nc
}

// ids makes IDs of names.
func ids(names ...string) (list []job.ID) {
	for _, name := range names {
		list = append(list, job.ID(name))
	}
	return list
}
