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

// A job is cancelled whose attempt has recorded that it is to run again, and does
// not look any more whether it is cancelled: it is over at once, and does not run
// again.
func TestCancelWhileScheduled(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(job.RetryAfter(time.Hour, errBroken), nil)
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		time.Sleep(time.Second)
		again := s.refuse("ASYNC_default", "async.default.later.*.*")
		j := put(s, p.task.Call("x"))
		awaitFake(s, func() bool {
			status, err := j.Status(s.Context())
			return err == nil && status.State == job.Retrying
		})
		if was, err := j.Cancel(s.Context()); err != nil || was != job.Retrying {
			s.Errorf("it was %s, %v", was, err)
		}
		again()
		time.Sleep(time.Second)
		if r := record(s, j); r.State != job.Completed {
			s.Errorf("a second later it is %s", r.State)
		}
		wantCancelled(s, j)
		time.Sleep(2 * time.Hour)
		if n := len(p.after(time.Time{})); n != 1 {
			s.Errorf("it ran %d times", n)
		}
	})
}

// A job is cancelled while its dispatcher stops, after its context has ended: it is
// handed back, and another dispatcher pays at once what it owes.
func TestCancelWhileDrained(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
			s.Fatal(err)
		}
		task := asyncnats.Define[asyncnats.None, string]("story.slow")
		started := make(chan struct{}, 2)
		handler := task.Handle(func(ctx context.Context, _ asyncnats.None) (string, error) {
			started <- struct{}{}
			<-ctx.Done()
			time.Sleep(500 * time.Millisecond)
			return "", context.Cause(ctx)
		})
		leaving := s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}, Grace: -1})
		j := put(s, task.Call(asyncnats.None{}).Quota("one"))
		<-started
		go leaving.stop()
		time.Sleep(100 * time.Millisecond)
		if _, err := j.Cancel(s.Context()); err != nil {
			s.Fatal(err)
		}
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}})
		time.Sleep(2 * time.Second)
		if r := record(s, j); r.State != job.Completed {
			s.Errorf("its handler has returned, and it is %s", r.State)
		}
		wantCancelled(s, j)
		if len(started) > 0 {
			s.Error("it began again")
		}
		if quota, err := s.queue.Quota(s.Context(), "one"); err != nil || len(quota.Holders) != 0 {
			s.Errorf("left %+v, %v", quota.Slots, err)
		}
	})
}

// A job that is to run again at once keeps its slot; where it is cancelled before
// it does, nobody is left with that.
func TestCancelBeforeItRunsAgain(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
			s.Fatal(err)
		}
		task := asyncnats.Define[string, string]("story.again")
		failed := make(chan struct{}, 1)
		handler := task.Handle(func(ctx context.Context, arg string) (string, error) {
			if arg == "next" {
				return arg, nil
			}
			if err := s.queue.Pause(ctx, task.Name()); err != nil {
				return "", err
			}
			time.Sleep(time.Second)
			failed <- struct{}{}
			return "", job.RetryAfter(0, errors.New("broken"))
		})
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}, Agents: []agents.Agent{{Name: "main", Size: 2}}})
		j := put(s, task.Call("first").Quota("one"))
		<-failed
		time.Sleep(time.Second)
		if was, err := j.Cancel(s.Context()); err != nil || was != job.Retrying {
			s.Errorf("it was %s, %v", was, err)
		}
		next := put(s, task.Call("next").Quota("one"))
		if err := s.queue.Resume(s.Context(), task.Name()); err != nil {
			s.Fatal(err)
		}
		begin := time.Now()
		wait(s, next)
		if took := time.Since(begin); took > time.Second {
			s.Errorf("the next one of its quota began after %v", took)
		}
		wantCancelled(s, j)
	})
}
