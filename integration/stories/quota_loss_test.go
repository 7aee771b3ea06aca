package stories

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// A dispatcher that is cut off, or hangs, keeps its slots until its leases are
// over. Then another takes them over, with a higher token: at no time are there
// more live contexts in the quota than its size. What waited with it waits
// elsewhere, in the same order.
func TestSlotOutlivesItsDispatcher(t *testing.T) {
	for name, sever := range map[string]func(*staff){
		"wire cut":    func(d *staff) { d.wire.Cut() },
		"wire frozen": func(d *staff) { d.wire.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				s.create("gpu", 1)
				w := s.site()
				isolated := s.dispatch(w.staff(5, "site.paint"))
				jobs := stints(s, paint, gpu, "runs", "waits")
				heir := s.dispatch(w.staff(5))
				jobs = append(jobs, stints(s, carve, gpu, "last")...)
				s.wantQuota("gpu", ids("runs"), ids("waits", "last"))
				time.Sleep(time.Minute)
				sever(isolated)
				at := time.Now()
				time.Sleep(ackWait * 2 / 3)
				if t := w.seen()[0]; !t.over.IsZero() {
					s.Errorf("the context ended %v after the wire was severed", t.over.Sub(at))
				}
				awaitFake(s, func() bool { return len(w.begun()) > 1 })
				// A server that has not noticed that a wire is frozen may offer
				// the job to that dispatcher again, while its pulls last.
				if took := time.Since(at); took > 3*ackWait || name == "wire cut" && took > ackWait+time.Second {
					s.Errorf("taken over after %v", took)
				}
				moment()
				w.wantBegun(s, "runs", "runs")
				turns := w.seen()
				lost, again := turns[0], turns[1]
				if !errors.Is(lost.cause, job.ErrLeaseLost) || again.Dispatcher != heir.UUID() || again.began.Before(lost.over) {
					s.Errorf("lost %+v, again %+v", lost, again)
				}
				if again.Fence("gpu") <= lost.Fence("gpu") {
					s.Errorf("token %d after %d", again.Fence("gpu"), lost.Fence("gpu"))
				}
				quota := s.wantQuota("gpu", ids("runs"), ids("waits", "last"))
				for _, c := range append(quota.Holders, quota.Waiters...) {
					if c.Dispatcher != heir.UUID() {
						s.Errorf("%s is with %s still", c.ID, c.Dispatcher)
					}
				}
				isolated.wire.Restore()
				isolated.wire.Thaw()
				for _, name := range []string{"runs", "waits", "last"} {
					time.Sleep(time.Second)
					w.finish(name)
				}
				w.wantBegun(s, "runs", "runs", "waits", "last")
				for _, j := range jobs {
					wait(s, j)
				}
				w.wantMost(s, map[string]int{"gpu": 1})
				s.wantQuota("gpu", nil, nil)
			})
		})
	}
}

// A cut that is shorter than the lease interrupts nobody, and what ends or is
// put meanwhile gives its slot back or gets one when it is over.
func TestShortCut(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		d := s.dispatch(w.staff(5))
		jobs := stints(s, paint, gpu, "runs", "waits")
		d.wire.Cut()
		w.finish("runs")
		time.Sleep(ackWait / 3)
		s.wantQuota("gpu", ids("runs"), ids("waits"))
		w.wantBegun(s, "runs")
		d.wire.Restore()
		time.Sleep(time.Second)
		w.wantBegun(s, "runs", "waits")
		w.finish("waits")
		for _, j := range jobs {
			wait(s, j)
			if r := record(s, j); r.Attempt.Number != 1 || r.Interrupts != 0 {
				s.Errorf("record %+v", r)
			}
		}
		s.wantQuota("gpu", nil, nil)
	})
}

// A slot that was given to a dispatcher while its connection was lost is used
// as soon as that is back.
func TestSlotIsGivenWhileAway(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(5, "site.carve"))
		stints(s, carve, gpu, "holder")
		d := s.dispatch(w.staff(5, "site.paint"))
		stints(s, paint, gpu, "waits")
		time.Sleep(ackWait/3 + time.Second) // quotas are read again each third
		d.wire.Cut()
		w.finish("holder")
		time.Sleep(time.Second)
		s.wantQuota("gpu", ids("waits"), nil)
		w.wantBegun(s, "holder")
		d.wire.Restore()
		time.Sleep(200 * time.Millisecond)
		w.wantBegun(s, "holder", "waits")
		w.finish("waits")
	})
}

// Where a lane's consumer is deleted its jobs are given out again while they
// run. The second attempt takes over the slot, and the first, whose context ends
// with that, has nothing to say.
func TestSlotIsTakenOver(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(5))
		s.dispatch(w.staff(5))
		j := stints(s, paint, gpu, "job")[0]
		js, err := jetstream.New(s.server.Connect(s.T))
		if err != nil {
			s.Fatal(err)
		}
		if err := js.DeleteConsumer(s.Context(), "ASYNC_default", "site=paint==gpu"); err != nil {
			s.Fatal(err)
		}
		time.Sleep(time.Second) // the first one's lease is not extended before
		w.wantBegun(s, "job", "job")
		turns := w.seen()
		if !errors.Is(turns[0].cause, job.ErrLeaseLost) || turns[0].over.Sub(turns[1].began) > 10*time.Millisecond {
			s.Errorf("first attempt %+v, second %+v", turns[0], turns[1])
		}
		w.finish("job")
		if got := wait(s, j); got != "job" {
			s.Errorf("got %q", got)
		}
		s.wantQuota("gpu", nil, nil)
	})
}

// purge deletes the message of a job behind everybody's back.
func (s *story) purge(lane, id string) {
	s.Helper()
	js, err := jetstream.New(s.server.Connect(s.T))
	if err != nil {
		s.Fatal(err)
	}
	stream, err := js.Stream(s.Context(), "ASYNC_default")
	if err != nil {
		s.Fatal(err)
	}
	if err := stream.Purge(s.Context(), jetstream.WithPurgeSubject("async.default.job."+lane+"."+id)); err != nil {
		s.Fatal(err)
	}
}

// A job whose message an administrator deletes while it runs is told so. Its
// slot is swept when the job was found gone for an ack wait, by when its context
// has ended, whether its handler returns or not; and it has no outcome.
func TestPurgedJob(t *testing.T) {
	for name, stubborn := range map[string]bool{"handler returns": false, "handler goes on": true} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				s.create("gpu", 1)
				w := s.site()
				s.dispatch(w.staff(5, "site.carve"))
				stints(s, carve, gpu, "first") // its dispatcher keeps the quota
				w.finish("first")
				s.dispatch(w.staff(5, "site.paint"))
				doomed := put(s, paint.Call(stint{Name: "doomed", Stubborn: stubborn}).Quota("gpu").ID("doomed"))
				moment()
				stints(s, carve, gpu, "next")
				time.Sleep(time.Minute)
				at := time.Now()
				s.purge("site=paint==gpu", "doomed")
				awaitFake(s, func() bool { return len(w.begun()) == 3 })
				turns := w.seen()[1:]
				if took := turns[0].over.Sub(at); !errors.Is(turns[0].cause, job.ErrLeaseLost) || took > ackWait/3+100*time.Millisecond {
					s.Errorf("its context ended with %v after %v", turns[0].cause, took)
				}
				after := turns[1].began.Sub(at)
				if turns[1].name != "next" || after < ackWait || after > 2*ackWait+100*time.Millisecond {
					s.Errorf("the slot was given to %s after %v, want one to two ack waits", turns[1].name, after)
				}
				w.finish("doomed", "next")
				w.wantMost(s, map[string]int{"gpu": 1})
				s.wantQuota("gpu", nil, nil)
				if _, err := doomed.Wait(s.Context()); !errors.Is(err, asyncnats.ErrOutcomeNotKept) {
					s.Errorf("whoever waits for it gets %v", err)
				}
				// The lane is as good as ever.
				stints(s, paint, gpu, "one", "two", "three")
				w.finish("one")
				w.finish("two")
				w.finish("three")
				w.wantBegun(s, "first", "doomed", "next", "one", "two", "three")
			})
		})
	}
}

// A job that is deleted while it waits, or while nobody has it, leaves no claim
// either.
func TestPurgedWaiter(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(5, "site.carve"))
		stints(s, carve, gpu, "holder")
		c := w.staff(5, "site.paint")
		d := s.dispatch(c)
		stints(s, paint, gpu, "waits", "orphan")
		s.wantQuota("gpu", ids("holder"), ids("waits", "orphan"))
		s.purge("site=paint==gpu", "waits")
		time.Sleep(ackWait/3 + time.Second)
		s.wantQuota("gpu", ids("holder"), ids("orphan"))
		d.wire.Cut() // its claim stays
		s.purge("site=paint==gpu", "orphan")
		time.Sleep(ackWait)
		s.wantQuota("gpu", ids("holder"), ids("orphan"))
		time.Sleep(ackWait + time.Second)
		s.wantQuota("gpu", ids("holder"), nil)
		d.wire.Restore()
		time.Sleep(time.Second)
		stints(s, paint, gpu, "next")
		w.finish("holder")
		w.wantBegun(s, "holder", "next")
		w.finish("next")
		s.wantQuota("gpu", nil, nil)
	})
}

// A job whose dispatcher died, and whose task nobody else takes, keeps its slot until
// it is cancelled.
func TestSlotThatNobodyTakesOver(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		d := s.dispatch(w.staff(5, "site.paint"))
		held := stints(s, paint, gpu, "held")[0]
		s.dispatch(w.staff(5, "site.carve"))
		stints(s, carve, gpu, "next")
		d.wire.Cut()
		d.stop()
		time.Sleep(10 * time.Minute)
		w.wantBegun(s, "held")
		s.wantQuota("gpu", ids("held"), ids("next"))
		if _, err := held.Cancel(s.Context()); err != nil {
			s.Fatal(err)
		}
		time.Sleep(2 * ackWait)
		w.wantBegun(s, "held", "next")
		w.finish("next")
		s.wantQuota("gpu", nil, nil)
	})
}

// CleanQuota drops what a deleted job has left, without any dispatcher, and
// nothing else (FEATURES 39).
func TestCleanQuota(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 3)
		w := s.site()
		c := w.staff(5)
		c.Grace = -1
		d := s.dispatch(c)
		stints(s, paint, gpu, "kept", "gone", "gone-too")
		d.stop()
		s.wantQuota("gpu", ids("kept", "gone", "gone-too"), nil)
		s.purge("site=paint==gpu", "gone")
		s.purge("site=paint==gpu", "gone-too")
		if dropped, err := s.queue.CleanQuota(s.Context(), "gpu"); err != nil || dropped != 2 {
			s.Errorf("dropped %d, %v; want 2", dropped, err)
		}
		s.wantQuota("gpu", ids("kept"), nil)
		if _, err := s.queue.CleanQuota(s.Context(), "none"); !errors.Is(err, asyncnats.ErrUnknownQuota) {
			s.Errorf("clean a quota that does not exist: %v", err)
		}
	})
}
