package stories

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// Parts, what they are joined by, what is called back, and what a handler passes its
// work on to, all run under the trace and the baggage of the put; and each is itself
// (FEATURES 195).
func TestSelfAndTraceOfComposed(t *testing.T) {
	tell(t, func(s *story) {
		part, join := asyncnats.Define[string, string]("story.part"), asyncnats.Define[[]asyncnats.Outcome[string], string]("story.join")
		back, passing := asyncnats.Define[string, none]("story.back"), asyncnats.Define[string, string]("story.passing")
		var mu sync.Mutex
		seen := make(map[string][]job.ID)
		see := func(ctx context.Context) (string, error) {
			self, err := asyncnats.Self(ctx)
			info, _ := job.FromContext(ctx)
			if err == nil && self.ID() != info.ID {
				err = errors.New("it is not itself")
			}
			if err == nil {
				err = self.Annotate(ctx, "task", info.Task)
			}
			if err != nil {
				return "", err
			}
			mu.Lock()
			defer mu.Unlock()
			key := info.Task + ": " + carried(ctx)
			seen[key] = append(seen[key], info.ID)
			return info.Task, nil
		}
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{
			part.Handle(func(ctx context.Context, _ string) (string, error) { return see(ctx) }),
			join.Handle(func(ctx context.Context, _ []asyncnats.Outcome[string]) (string, error) { return see(ctx) }),
			back.Handle(func(ctx context.Context, _ string) (none, error) {
				_, err := see(ctx)
				return none{}, err
			}),
			passing.HandleCall(func(ctx context.Context, arg string) (asyncnats.Call[string], error) {
				_, err := see(ctx)
				return part.Call(arg), err
			}),
		}})
		ctx := traced(s, "acme")
		joined, err := asyncnats.Put(ctx, s.queue, asyncnats.Then(asyncnats.Parallel(part.Call("a"), part.Call("b")), join).OnSuccess(back))
		if err != nil {
			s.Fatal(err)
		}
		wait(s, joined)
		passed, err := asyncnats.Put(ctx, s.queue, passing.Call("c"))
		if err != nil {
			s.Fatal(err)
		}
		wait(s, passed)
		awaitFake(s, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(seen["story.back: trace acme"]) == 1
		})
		mu.Lock()
		defer mu.Unlock()
		for key, want := range map[string]int{
			"story.part: trace acme": 3, "story.join: trace acme": 1, "story.back: trace acme": 1, "story.passing: trace acme": 1,
		} {
			if len(seen[key]) != want {
				s.Errorf("%s %d times, want %d, of %v", key, len(seen[key]), want, seen)
			}
		}
		if slices.Contains(seen["story.back: trace acme"], joined.ID()) {
			s.Error("a callback takes itself for the job that it follows")
		}
		// Each was annotated by itself.
		for _, ids := range seen {
			for _, id := range ids {
				j, err := asyncnats.Lookup[job.Value](s.Context(), s.queue, id.String())
				if err != nil {
					s.Fatal(err)
				}
				if notes, err := j.Annotations(s.Context()); err != nil || len(notes) != 1 {
					s.Errorf("%s has %+v, %v", id, notes, err)
				}
			}
		}
	})
}

// A job that has passed its work on, and waits, can be annotated; nobody answers for it.
func TestAnnotateOneThatWaits(t *testing.T) {
	tell(t, func(s *story) {
		part, passing := asyncnats.Define[string, string]("story.part"), asyncnats.Define[string, string]("story.passing")
		release := make(chan struct{})
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{
			part.Handle(func(context.Context, string) (string, error) {
				<-release
				return "done", nil
			}),
			passing.HandleCall(func(ctx context.Context, arg string) (asyncnats.Call[string], error) {
				_, err := asyncnats.Answer(ctx, "x", func(context.Context, none) (none, error) { return none{}, nil })
				return part.Call(arg), err
			}),
		}})
		j := put(s, passing.Call("x"))
		awaitFake(s, func() bool {
			status, err := j.Status(s.Context())
			return err == nil && status.State == job.Waiting
		})
		if err := j.Annotate(s.Context(), "x", 1); err != nil {
			s.Error(err)
		}
		if _, err := asyncnats.Ask[none](s.Context(), j, "x", none{}); !errors.Is(err, asyncnats.ErrNotRunning) {
			s.Errorf("%v, want ErrNotRunning", err)
		}
		time.Sleep(time.Minute)
		close(release)
		wait(s, j)
		if n, set, err := asyncnats.Annotation[int](s.Context(), j, "x"); n != 1 || !set || err != nil {
			s.Errorf("%d, %v, %v", n, set, err)
		}
	})
}
