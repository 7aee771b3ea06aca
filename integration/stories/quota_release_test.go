package stories

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// However a job ends it has given its slot back by then, and who waits for it
// begins at once (FEATURES 45).
func TestSlotIsReleasedHoweverTheJobEnds(t *testing.T) {
	ill := stint{Name: "job", For: time.Second}
	for name, row := range map[string]struct {
		call asyncnats.Call[string]
		kind job.Kind // of the Failure; empty for a result
	}{
		"result":          {paint.Call(ill), ""},
		"nothing is kept": {paint.Call(ill).Keep(job.KeepNone), ""},
		"error":           {paint.Call(stint{Name: "job", For: time.Second, Fails: "error"}), job.KindError},
		"panic":           {paint.Call(stint{Name: "job", For: time.Second, Fails: "panic"}), job.KindPanic},
		"timeout":         {paint.Call(stint{Name: "job", For: time.Hour}).Timeout(time.Second), job.KindTimeout},
		"at most once":    {paint.Call(ill).Retry(job.Retry{Never: true}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				s.create("gpu", 1)
				w := s.site()
				s.dispatch(w.staff(2))
				j := put(s, row.call.Quota("gpu").ID("job"))
				moment()
				stints(s, carve, gpu, "next")
				s.wantQuota("gpu", ids("job"), ids("next"))
				_, err := j.Wait(s.Context())
				failure, failed := errors.AsType[*job.Failure](err)
				if failed != (row.kind != "") || failed && failure.Kind != row.kind {
					s.Errorf("got %v, want a failure of kind %q", err, row.kind)
				}
				s.wantQuota("gpu", ids("next"), nil)
				moment()
				w.wantBegun(s, "job", "next")
				if turns := w.seen(); turns[1].began.Sub(turns[0].over) > 10*time.Millisecond {
					s.Errorf("the next one began %v after it", turns[1].began.Sub(turns[0].over))
				}
				w.finish("next")
				s.wantQuota("gpu", nil, nil)
			})
		})
	}
}

// A job that is over for its dispatchers before a handler sees it has, or
// keeps, no slot, and needs none to end: those that cannot be read.
func TestUnreadableJobNeedsNoSlot(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(2))
		stints(s, paint, gpu, "registers-the-lane")
		w.finish("registers-the-lane")
		nc := s.server.Connect(s.T)
		publish := func(id, body string) {
			if _, err := nc.Request("async.default.job.site=paint==gpu."+id, []byte(body), time.Second); err != nil {
				s.Fatal(err)
			}
			moment()
		}
		publish("argument-of-another", `{"arg":[1,2]}`) // which shows only when it runs
		stints(s, carve, gpu, "holder")
		publish("garbage", "\xde\xad\xbe\xef")
		publish("illegal@id", `{"arg":{"name":"illegal"}}`)
		publish("quotas-of-another", `{"quotas":["cpu"]}`)
		for _, id := range []string{"argument-of-another", "garbage", "quotas-of-another"} {
			j, err := asyncnats.Lookup[string](s.Context(), s.queue, id)
			if err != nil {
				s.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(s.Context(), time.Second)
			if _, err := j.Wait(ctx); !errors.Is(err, job.ErrInvalid) {
				s.Errorf("%s: %v", id, err)
			}
			cancel()
		}
		s.wantQuota("gpu", ids("holder"), nil)
		stints(s, paint, gpu, "next")
		w.finish("holder")
		w.wantBegun(s, "registers-the-lane", "holder", "next")
		w.finish("next")
		s.wantQuota("gpu", nil, nil)
	})
}

// A job whose workers die ends as aborted and takes no slot with it.
func TestSlotOfAnAbortedJob(t *testing.T) {
	for name, row := range map[string]struct {
		retry  job.Retry
		starts int
	}{
		"at most once":       {job.Retry{Never: true}, 1},
		"one interrupt more": {job.Retry{Interrupts: 1}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				s.create("gpu", 1)
				w := s.site()
				d := s.dispatch(w.staff(2, "site.paint"))
				s.dispatch(w.staff(2, "site.carve"))
				j := put(s, paint.Call(stint{Name: "crashes"}).Quota("gpu").Retry(row.retry).ID("crashes"))
				moment()
				stints(s, carve, gpu, "next")
				for i := range row.starts {
					awaitFake(s, func() bool { return len(w.begun()) == i+1 })
					d.wire.Freeze() // longer than the lease: as good as a crash
					time.Sleep(ackWait)
					d.wire.Thaw()
				}
				if _, err := j.Wait(s.Context()); !errors.Is(err, job.ErrAborted) {
					s.Fatalf("got %v, want aborted", err)
				}
				s.wantQuota("gpu", ids("next"), nil)
				w.finish("next")
				w.wantMost(s, map[string]int{"gpu": 1})
				s.wantQuota("gpu", nil, nil)
			})
		})
	}
}

// Once an outcome can be read nothing is owed: whoever waited for a job finds
// its slot free, however it ended, at whatever moment.
func TestAwaitedJobHasReleasedItsSlot(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 2)
		fails := asyncnats.Define[bool, asyncnats.None]("story.quick")
		handler := fails.Handle(func(_ context.Context, fail bool) (asyncnats.None, error) {
			time.Sleep(time.Millisecond) // until somebody waits, where nothing is kept
			if fail {
				return asyncnats.None{}, errors.New("asked to")
			}
			return asyncnats.None{}, nil
		})
		for range 2 {
			s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}, Agents: []agents.Agent{{Name: "main", Size: 5}}})
		}
		for i := range 150 {
			j := put(s, fails.Call(i%3 == 0).Quota("gpu").Keep([]job.Keep{job.KeepDefault, job.KeepNone}[i%2]))
			if _, err := j.Wait(s.Context()); (err != nil) != (i%3 == 0) {
				s.Fatal(err)
			}
			s.wantQuota("gpu", nil, nil)
		}
		// Many at once: none that was waited for is among the holders.
		var jobs []*asyncnats.Job[asyncnats.None]
		for range 100 {
			jobs = append(jobs, put(s, fails.Call(false).Quota("gpu")))
		}
		for _, j := range jobs {
			wait(s, j)
			quota, err := s.queue.Quota(s.Context(), "gpu")
			if err != nil {
				s.Fatal(err)
			}
			for _, c := range append(quota.Holders, quota.Waiters...) {
				if c.ID == j.ID() {
					s.Fatalf("job %s is over and has a claim still: %+v", j.ID(), c)
				}
			}
		}
	})
}
