package stories

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

type none = asyncnats.None

// worker is a dispatcher that performs one task with f.
func worker[A, R any](s *story, task asyncnats.Task[A, R], f func(context.Context, A) (R, error)) *staff {
	s.Helper()
	return s.dispatch(dispatcher.Config{Handlers: []job.Handler{task.Handle(f)}})
}

// A handler has the handle of its own job: who it is, a queue to put more on, and
// all that a handle can do (FEATURES 193).
func TestSelf(t *testing.T) {
	tell(t, func(s *story) {
		if _, err := s.client.CreateQueue(s.Context(), "other", asyncnats.QueueConfig{}); err != nil {
			s.Fatal(err)
		}
		if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
			s.Fatal(err)
		}
		outer := asyncnats.Define[none, string]("story.outer")
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{
			shout.Handle(toUpper),
			outer.Handle(func(ctx context.Context, _ none) (string, error) {
				self, err := asyncnats.Self(ctx)
				if err != nil {
					return "", err
				}
				info, _ := job.FromContext(ctx)
				status, err := self.Status(ctx)
				if err != nil || self.ID() != info.ID || self.Queue().Name() != info.Queue || status.State != job.Assigned || status.By != s.Name() || info.Nonce.IsZero() {
					return "", fmt.Errorf("%s is %+v, %w", self.ID(), status, err)
				}
				if _, err := asyncnats.Put(ctx, self.Queue().Client().Queue("other"), shout.Call("elsewhere").ID("elsewhere")); err != nil {
					return "", err
				}
				inner, err := asyncnats.Put(ctx, self.Queue(), shout.Call("inner").Quota("one").ID("inner"))
				if err != nil {
					return "", err
				}
				return inner.Wait(ctx)
			}),
		}})
		if got := wait(s, put(s, outer.Call(none{}))); got != "INNER" {
			s.Errorf("got %q", got)
		}
		for id, q := range map[string]*asyncnats.Queue{"inner": s.queue, "elsewhere": s.client.Queue("other")} {
			j, err := asyncnats.Lookup[string](s.Context(), q, id)
			if err != nil {
				s.Fatal(err)
			}
			if status, err := j.Status(s.Context()); err != nil || status.By != d.UUID() {
				s.Errorf("%s: put by %q, %v, want the dispatcher (FEATURES 11)", id, status.By, err)
			}
		}
	})
}

// A handler cancels its own job.
func TestSelfCancel(t *testing.T) {
	tell(t, func(s *story) {
		task := asyncnats.Define[none, none]("story.suicide")
		worker(s, task, func(ctx context.Context, _ none) (none, error) {
			self, err := asyncnats.Self(ctx)
			if err == nil {
				_, err = self.Cancel(ctx)
			}
			if err != nil {
				return none{}, err
			}
			<-ctx.Done()
			return none{}, context.Cause(ctx)
		})
		wantCancelled(s, put(s, task.Call(none{})))
	})
}

func TestNoSelf(t *testing.T) {
	answer := func(context.Context, none) (none, error) { return none{}, nil }
	for name, ctx := range map[string]context.Context{
		"outside":             t.Context(),
		"a test of a handler": job.NewContext(t.Context(), job.Info{ID: "x"}),
	} {
		_, self := asyncnats.Self(ctx)
		_, answers := asyncnats.Answer(ctx, "x", answer)
		for what, err := range map[string]error{"Self": self, "Report": asyncnats.Report(ctx, asyncnats.Progress{}), "Answer": answers} {
			if !errors.Is(err, asyncnats.ErrNoSelf) || !strings.Contains(err.Error(), "call this in a handler") {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
}

// The handshake of zc.async's usage document: two jobs that run at once find each
// other by annotations, each waiting for the other's with a timeout (FEATURES 196,
// 197).
func TestHandshake(t *testing.T) {
	for name, answers := range map[string]bool{"answered": true, "in vain": false} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				asker, answerer := asyncnats.Define[none, string]("story.ask"), asyncnats.Define[job.ID, none]("story.answer")
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{asker.Handle(func(ctx context.Context, _ none) (string, error) {
					self, err := asyncnats.Self(ctx)
					if err != nil {
						return "", err
					}
					if err := self.Annotate(ctx, "question", "what is six times nine?"); err != nil {
						return "", err
					}
					ctx, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					return asyncnats.WaitAnnotation[string](ctx, self, "answer")
				})}})
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{answerer.Handle(func(ctx context.Context, id job.ID) (none, error) {
					self, err := asyncnats.Self(ctx)
					if err != nil {
						return none{}, err
					}
					other, err := asyncnats.Lookup[string](ctx, self.Queue(), string(id))
					if err != nil {
						return none{}, err
					}
					question, err := asyncnats.WaitAnnotation[string](ctx, other, "question")
					if err != nil || question != "what is six times nine?" {
						return none{}, fmt.Errorf("asked %q: %w", question, err)
					}
					time.Sleep(30 * time.Second)
					return none{}, other.Annotate(ctx, "answer", "42")
				})}})
				a := put(s, asker.Call(none{}))
				if !answers {
					began := time.Now()
					if _, err := a.Wait(s.Context()); err == nil || !strings.Contains(err.Error(), "deadline exceeded") || time.Since(began) < time.Minute {
						s.Errorf("after %v: %v, want that it waited in vain", time.Since(began), err)
					}
					return
				}
				b := put(s, answerer.Call(a.ID()))
				if got := wait(s, a); got != "42" {
					s.Errorf("answered %q", got)
				}
				wait(s, b)
				// Both are readable when the job is over.
				notes, err := a.Annotations(s.Context())
				if err != nil || len(notes) != 2 || notes[0].Name != "answer" || notes[1].Name != "question" || notes[0].By == notes[1].By {
					s.Errorf("%+v, %v", notes, err)
				}
			})
		})
	}
}

// A running job is asked to stop by an annotation, which it looks at from time to
// time (FEATURES 198); one that is set before the job runs is there when it does.
func TestStopByAnnotation(t *testing.T) {
	for name, before := range map[string]bool{"while it runs": false, "before it runs": true} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				task := asyncnats.Define[none, int]("story.steps")
				perform := func(ctx context.Context, _ none) (int, error) {
					self, err := asyncnats.Self(ctx)
					if err != nil {
						return 0, err
					}
					for step := 0; ; step++ {
						stop, set, err := asyncnats.Annotation[string](ctx, self, "stop")
						if err != nil || set && stop == "please" {
							return step, err
						}
						time.Sleep(time.Second)
					}
				}
				j := put(s, task.Call(none{}))
				if !before {
					worker(s, task, perform)
					time.Sleep(10500 * time.Millisecond)
				}
				if err := j.Annotate(s.Context(), "stop", "please"); err != nil {
					s.Fatal(err)
				}
				want := 11
				if before {
					worker(s, task, perform)
					want = 0
				}
				if got := wait(s, j); got != want {
					s.Errorf("it stopped after %d steps, want %d", got, want)
				}
				if err := j.RemoveAnnotation(s.Context(), "stop"); err != nil {
					s.Error(err)
				}
				if _, set, err := asyncnats.Annotation[string](s.Context(), j, "stop"); set || err != nil {
					s.Errorf("removed: %v, %v", set, err)
				}
				if err := j.Annotate(s.Context(), "after", 1); err != nil {
					s.Errorf("a job that is over: %v", err)
				}
				if _, _, err := asyncnats.Annotation[int](s.Context(), j, "after"); err != nil {
					s.Error(err)
				}
				if _, set, err := asyncnats.Annotation[string](s.Context(), j, "after"); set || err == nil || !strings.Contains(err.Error(), "annotation after of job") {
					s.Errorf("read as another type: %v, %v", set, err)
				}
			})
		})
	}
}

// Who waits for an annotation gets it, whatever happens to the connection meanwhile.
func TestWaitAnnotationSurvives(t *testing.T) {
	tell(t, func(s *story) {
		j := put(s, shout.Call("x"))
		quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}) // the outage is no news
		nc, wire := s.server.ConnectWire(s.T, quiet)
		far, err := asyncnats.Connect(s.Context(), nc, asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		there, err := asyncnats.Lookup[string](s.Context(), far.Queue(job.DefaultQueue), j.ID().String())
		if err != nil {
			s.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			value, err := asyncnats.WaitAnnotation[map[string]int](s.Context(), there, "x")
			if err == nil && value["a"] != 7 {
				err = fmt.Errorf("got %v", value)
			}
			got <- err
		}()
		synctest.Wait()
		wire.Cut()
		if err := j.Annotate(s.Context(), "x", map[string]int{"a": 7}); err != nil {
			s.Fatal(err)
		}
		time.Sleep(time.Minute)
		wire.Restore()
		select {
		case err := <-got:
			if err != nil {
				s.Error(err)
			}
		case <-time.After(time.Minute):
			s.Fatal("waits for what is set")
		}
		if _, err := asyncnats.WaitAnnotation[int](s.Context(), there, "a b"); err == nil {
			s.Error("waits for an illegal name")
		}
	})
}
