package stories

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// fireLate is how late what is due may be looked after.
const fireLate = 600 * time.Millisecond

// bystander runs a dispatcher that has no handler for the tasks of the test.
func (s *story) bystander() *staff {
	other := asyncnats.Define[string, string]("story.other")
	return s.dispatch(dispatcher.Config{Handlers: []job.Handler{other.Handle(toUpper)}})
}

// wantExpired waits for a job that is to end at its deadline, and no later.
func wantExpired[R any](s *story, j *asyncnats.Job[R], deadline time.Time, message string) {
	s.Helper()
	_, err := j.Wait(s.Context())
	failure, failed := errors.AsType[*job.Failure](err)
	if !failed || failure.Kind != job.KindExpired || !strings.Contains(failure.Message, message) || !errors.Is(err, job.ErrTimeout) {
		s.Fatalf("job %s ended as %v, want that its deadline passed: %s", j.ID(), err, message)
	}
	if late := time.Since(deadline); late < 0 || late > fireLate {
		s.Errorf("job %s ended %v after its deadline", j.ID(), late)
	}
	if r := record(s, j); !r.State.Ended() || r.Ended.IsZero() {
		s.Errorf("record %+v, want it ended", r)
	}
	awaitFake(s, func() bool {
		dead, err := s.queue.DeadJob(s.Context(), j.ID().String())
		return err == nil && dead.Record.EndedAs(job.KindExpired)
	})
}

// wantEmpty waits until the queue holds no job and no timer.
func wantEmpty(s *story) {
	s.Helper()
	time.Sleep(time.Second)
	wantStored(s, 0)
}

// wantStored says how many messages the stream of the default queue is to have
// but that of meta, timers included.
func wantStored(s *story, want uint64) {
	s.Helper()
	found, err := openQueue(s).Namespace().JetStream().Stream(s.Context(), "ASYNC_default")
	if err != nil {
		s.Fatal(err)
	}
	if got := found.CachedInfo().State.Msgs - 1; got != want {
		s.Errorf("%d messages are stored, want %d", got, want)
	}
}

func TestDeadlineWhereNobodyServes(t *testing.T) {
	tell(t, func(s *story) {
		s.bystander()
		deadline := time.Now().Add(time.Minute)
		j := put(s, shout.Call("x").Within(time.Minute))
		time.Sleep(time.Minute - time.Millisecond)
		if status, err := j.Status(s.Context()); err != nil || status.State != job.Pending {
			s.Errorf("%+v, %v before the deadline: want pending", status, err)
		}
		wantExpired(s, j, deadline, "not begun before its deadline, 2000-01-01T00:01:00")
		wantEmpty(s)
	})
}

func TestDeadlineOfManyPutTogether(t *testing.T) {
	tell(t, func(s *story) {
		s.bystander()
		deadline := time.Now().Add(time.Minute)
		calls := make([]asyncnats.Call[string], 1200)
		for i := range calls {
			calls[i] = shout.Call("x").Within(time.Minute)
		}
		jobs, err := asyncnats.PutMany(s.Context(), s.queue, calls...)
		if err != nil {
			s.Fatal(err)
		}
		for _, j := range jobs {
			if _, err := j.Wait(s.Context()); !errors.Is(err, job.ErrTimeout) {
				s.Fatalf("job ended as %v", err)
			}
		}
		if late := time.Since(deadline); late < 0 || late > 10*time.Second {
			s.Errorf("ended %v after the deadline", late)
		}
		wantEmpty(s)
	})
}

func TestDeadlineOfScheduledJob(t *testing.T) {
	tell(t, func(s *story) {
		s.bystander()
		deadline := time.Now().Add(time.Hour + time.Minute)
		j := put(s, shout.Call("x").In(time.Hour).Within(time.Minute))
		wantExpired(s, j, deadline, "not begun")
		wantEmpty(s)
	})
}

// One of the jobs has the slot, one waits for it in a dispatcher, and the others
// were not even given out.
func TestDeadlineOfJobsBlockedByAQuota(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.Limit(s.Context(), "gpu", 1); err != nil {
			s.Fatal(err)
		}
		limited := nap.Quota("gpu")
		handler := nap.Handle(func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
			time.Sleep(d)
			return asyncnats.None{}, nil
		})
		for range 2 {
			s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}})
		}
		runs := put(s, limited.Call(5*time.Minute).Within(time.Minute))
		time.Sleep(time.Second)
		deadline := time.Now().Add(time.Minute)
		var blocked []*asyncnats.Job[asyncnats.None]
		for range 6 {
			blocked = append(blocked, put(s, limited.Call(0).Within(time.Minute)))
		}
		next := put(s, limited.Call(0))
		for _, j := range blocked {
			wantExpired(s, j, deadline, "not begun")
		}
		wait(s, runs)
		wait(s, next)
		wantEmpty(s)
	})
}

// No retry begins after the deadline, which does not move; those before it do.
func TestDeadlineOfRetries(t *testing.T) {
	tell(t, func(s *story) {
		var attempts atomic.Int32
		fails := asyncnats.Define[asyncnats.None, asyncnats.None]("story.fails").Within(time.Minute).
			Retry(job.Retry{Max: job.Forever, Min: 20 * time.Second, Cap: 20 * time.Second, Jitter: -1})
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{fails.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
			attempts.Add(1)
			return asyncnats.None{}, errors.New("out of cheese")
		})}})
		put := func() *asyncnats.Job[asyncnats.None] { return put(s, fails.Call(asyncnats.None{})) }
		if _, err := put().Wait(s.Context()); err == nil || err.Error() != "out of cheese" || attempts.Load() != 3 {
			s.Errorf("ended as %v after %d attempts, want the error after 3", err, attempts.Load())
		}
		// Now nobody is there when the second retry is due.
		deadline := time.Now().Add(time.Minute)
		j := put()
		time.Sleep(30 * time.Second)
		d.stop()
		s.bystander()
		wantExpired(s, j, deadline, "not run again before its deadline")
		if r := record(s, j); r.Errors != 2 || !strings.HasSuffix(r.Outcome.Failure.Message, "it failed before: out of cheese") {
			s.Errorf("record %+v", r)
		}
		wantEmpty(s)
	})
}

func TestDeadlineWhileNoDispatcherLives(t *testing.T) {
	tell(t, func(s *story) {
		j := put(s, shout.Call("x").Within(time.Minute))
		time.Sleep(time.Hour)
		came := time.Now()
		s.bystander()
		wantExpired(s, j, came, "not begun")
		wantEmpty(s)
	})
}

// A job that began in time has all the time it needs, also where it is begun
// again; and the timer of one that ends in time goes with it.
func TestDeadlineOfJobThatBegan(t *testing.T) {
	tell(t, func(s *story) {
		short := put(s, shout.Call("x").Within(time.Hour))
		first := s.dispatch(shouters(dispatcher.Config{Grace: -1, Handlers: []job.Handler{nap.Handle(
			func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
				select {
				case <-time.After(d):
					return asyncnats.None{}, nil
				case <-ctx.Done():
					return asyncnats.None{}, context.Cause(ctx)
				}
			})}}))
		wait(s, short)
		wantEmpty(s)
		long := put(s, nap.Call(10*time.Minute).Within(time.Minute))
		time.Sleep(5 * time.Minute)
		first.stop()
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{nap.Handle(func(context.Context, time.Duration) (asyncnats.None, error) {
			return asyncnats.None{}, nil
		})}})
		wait(s, long)
		if r := record(s, long); r.Interrupts != 1 || r.Attempt.Number != 2 {
			s.Errorf("record %+v, want one interruption", r)
		}
		wantEmpty(s)
	})
}

// A dispatcher that was given a job and cannot be heard neither keeps the job
// from expiring nor begins it afterwards.
func TestDeadlineOfJobThatIsGivenOut(t *testing.T) {
	for _, held := range []time.Duration{50 * time.Millisecond, 5 * time.Second, time.Minute} {
		t.Run(held.String(), func(t *testing.T) {
			tell(t, func(s *story) {
				var ran atomic.Int32
				wire := s.dispatchSlowly(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(context.Context, string) (string, error) {
					ran.Add(1)
					return "ran", nil
				})}})
				time.Sleep(time.Second)
				j := put(s, shout.Call("x").Within(time.Second).In(time.Second)) // given out a little before it may begin
				time.Sleep(1500 * time.Millisecond)
				wire.hold(true)
				s.bystander()
				time.Sleep(500*time.Millisecond + held)
				wire.hold(false)
				text, err := j.Wait(s.Context())
				time.Sleep(time.Minute)
				switch failure, failed := errors.AsType[*job.Failure](err); {
				case err == nil && text == "ran" && ran.Load() == 1:
				case failed && failure.Kind == job.KindExpired && ran.Load() == 0:
				default:
					s.Errorf("ended as %q, %v; it ran %d times", text, err, ran.Load())
				}
				wantEmpty(s)
			})
		})
	}
}

// Of deadline and start one wins, however close they are.
func TestDeadlineAndStartRace(t *testing.T) {
	tell(t, func(s *story) {
		ran := make(map[job.ID]int)
		var mu sync.Mutex
		handler := nap.Handle(func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
			info, _ := job.FromContext(ctx)
			mu.Lock()
			ran[info.ID]++
			mu.Unlock()
			time.Sleep(d)
			return asyncnats.None{}, nil
		})
		for range 2 {
			s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}})
		}
		queue := openQueue(s)
		expired, done := 0, 0
		for round := range 40 {
			var jobs []*asyncnats.Job[asyncnats.None]
			for range 6 {
				// The timers are looked after by hand, as early as the jobs are claimed.
				jobs = append(jobs, put(s, nap.Call(time.Millisecond).In(time.Second).Within(time.Minute).ID(fmt.Sprintf("%d-%d", round, len(jobs)))))
			}
			specs := make([]job.Spec, len(jobs))
			for i, j := range jobs {
				specs[i] = specOf(s, queue, j.ID())
			}
			time.Sleep(time.Second - time.Millisecond)
			var all sync.WaitGroup
			for i, j := range jobs {
				all.Go(func() {
					time.Sleep(time.Duration(900+30*i) * time.Microsecond)
					if err := queue.Expire(s.Context(), dueNow(j.ID(), specs[i])); err != nil {
						s.Error(err)
					}
				})
			}
			all.Wait()
			for _, j := range jobs {
				_, err := j.Wait(s.Context())
				mu.Lock()
				runs := ran[j.ID()]
				mu.Unlock()
				switch failure, failed := errors.AsType[*job.Failure](err); {
				case err == nil && runs == 1:
					done++
				case failed && failure.Kind == job.KindExpired && runs == 0:
					expired++
				default:
					s.Errorf("job %s ended as %v and ran %d times", j.ID(), err, runs)
				}
			}
		}
		s.Logf("%d ran, %d expired", done, expired)
		if done == 0 || expired == 0 {
			s.Error("no race: want some of each")
		}
		time.Sleep(2 * time.Minute)
		wantEmpty(s)
	})
}

// Of deadline and cancel one wins, and all agree which.
func TestDeadlineAndCancelRace(t *testing.T) {
	tell(t, func(s *story) {
		queue := openQueue(s)
		expired, cancelled := 0, 0
		for round := range 60 {
			j := put(s, shout.Call("x").Within(time.Minute))
			due := dueNow(j.ID(), specOf(s, queue, j.ID()))
			var all sync.WaitGroup
			var cancelErr error
			all.Go(func() {
				time.Sleep(time.Duration(round%3) * time.Microsecond)
				_, cancelErr = j.Cancel(s.Context())
			})
			all.Go(func() {
				time.Sleep(time.Microsecond)
				if err := queue.Expire(s.Context(), due); err != nil {
					s.Error(err)
				}
			})
			all.Wait()
			_, err := j.Wait(s.Context())
			failure, _ := errors.AsType[*job.Failure](err)
			switch {
			case failure != nil && failure.Kind == job.KindCancelled && cancelErr == nil:
				cancelled++
			case failure != nil && failure.Kind == job.KindExpired && errors.Is(cancelErr, asyncnats.ErrCompleted):
				expired++
			default:
				s.Errorf("ended as %v, cancel says %v", err, cancelErr)
			}
		}
		s.Logf("%d cancelled, %d expired", cancelled, expired)
		if cancelled == 0 || expired == 0 {
			s.Error("no race: want some of each")
		}
		wantEmpty(s)
	})
}

// dueNow is the timer of a job's deadline as it fires.
func dueNow(id job.ID, spec job.Spec) stream.Due {
	return stream.Due{
		Timer: stream.Timer{Kind: stream.TimerDeadline, Of: string(id), Nonce: spec.Nonce}, At: time.Now(), Fired: time.Now(),
	}
}
