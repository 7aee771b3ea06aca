package stories

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// grower adds parts to the composition that it is a part of.
var grower = asyncnats.Define[int, int]("story.grower")

// growing performs grower: it adds a part for each number below its argument, and
// fails the first time, so that it adds them again.
func growing(d *diary) job.Handler {
	return grower.Handle(func(ctx context.Context, n int) (int, error) {
		info, _ := job.FromContext(ctx)
		d.write("grower, attempt %d", info.Attempt)
		whole, err := asyncnats.Whole[int](ctx)
		if err != nil {
			return 0, err
		}
		for i := range n {
			if err := asyncnats.AddParts(ctx, whole, work.Call(fmt.Sprintf("part%d", i))); err != nil {
				return 0, err
			}
		}
		if info.Attempt == 1 {
			return 0, job.RetryAfter(time.Second, errBroken)
		}
		return 0, nil
	})
}

// TestPartsAddedByPart follows the usage document's serial whose parts add others
// (FEATURES 205).
func TestPartsAddedByPart(t *testing.T) {
	for name, compose := range map[string]func(...asyncnats.Call[int]) asyncnats.Call[[]asyncnats.Outcome[int]]{
		"parallel": asyncnats.Parallel[int], "serial": asyncnats.Serial[int],
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				var d diary
				s.dispatch(ensemble(&d, growing(&d)))
				whole := put(s, asyncnats.Then(compose(grower.Call(3), work.Call("abc")), sum))
				if got := wait(s, whole); got != "18, 0 failed" {
					t.Errorf("got %q", got)
				}
				if name == "serial" {
					d.want(s, "grower, attempt 1", "grower, attempt 2", "work abc", "work part0", "work part1", "work part2", "sum of 5")
				}
				if n := len(d.read()); n != 7 {
					t.Errorf("%d lines, want 7: %q", n, d.read())
				}
				s.settled()
			})
		})
	}
}

// TestPartsAddedFromOutside adds parts before the whole begins, while it waits, and
// after.
func TestPartsAddedFromOutside(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		parts := asyncnats.Parallel(work.Call("a"), work.Call("later").In(10*time.Minute)).In(time.Minute)
		whole := put(s, parts)
		if err := asyncnats.AddParts(s.Context(), whole, work.Call("bb"), work.Call("ccc")); err != nil {
			t.Fatal(err)
		}
		s.dispatch(ensemble(&d))
		time.Sleep(30 * time.Second)
		d.want(s)
		time.Sleep(time.Minute)
		if err := asyncnats.AddParts(s.Context(), whole, work.Call("dddd")); err != nil {
			t.Fatal(err)
		}
		got := wait(s, whole)
		if total, failed := add(got); total != 1+5+2+3+4 || failed > 0 || got[4].Result != 4 {
			t.Errorf("got %+v", got)
		}
		if err := asyncnats.AddParts(s.Context(), whole, work.Call("e")); !errors.Is(err, asyncnats.ErrCompleted) {
			t.Errorf("added to what is over: %v", err)
		}
		if err := asyncnats.AddParts(s.Context(), whole, work.Call("e").ID("x")); err == nil {
			t.Error("a part has an ID of its own")
		}
		s.settled()
	})
}

// TestPartsAddedElsewhere refuses to add parts to what has none, and outside of a
// whole.
func TestPartsAddedElsewhere(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(ensemble(&d, growing(&d)))
		_, err := put(s, grower.Call(1)).Wait(s.Context())
		if failure, failed := errors.AsType[*job.Failure](err); !failed || failure.Message != "asyncnats: job is no part of another" {
			t.Errorf("got %v", err)
		}
		_, err = put(s, asyncnats.Then(work.Call("1"), grower)).Wait(s.Context())
		if failure, failed := errors.AsType[*job.Failure](err); !failed || !strings.HasSuffix(failure.Message, "parts can be added to a parallel or serial only") {
			t.Errorf("got %v", err)
		}
		_, err = asyncnats.Whole[int](s.Context())
		if !errors.Is(err, asyncnats.ErrNoSelf) {
			t.Errorf("outside of a handler: %v", err)
		}
	})
}

// TestTree shows a whole while it waits, and when it is completed.
func TestTree(t *testing.T) {
	tell(t, func(s *story) {
		if _, err := s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{}); err != nil {
			t.Fatal(err)
		}
		var d diary
		s.dispatch(ensemble(&d))
		inner := asyncnats.Then(asyncnats.Serial(work.Call("bad").Queue("audio"), work.Call("later").In(10*time.Minute)), total)
		whole := put(s, asyncnats.Parallel(work.Call("a").OnSuccess(noted), inner).OnDone(asyncnats.Define[asyncnats.Outcome[[]asyncnats.Outcome[int]], asyncnats.None]("story.unknown")))
		time.Sleep(time.Minute)
		if diff := cmp.Diff(sketch{"parallel", job.Waiting, 1, 2, []sketch{
			{"story.work", job.Completed, 0, 0, nil, []sketch{{"story.noted", job.Completed, 0, 0, nil, nil}}},
			{"then", job.Waiting, 0, 2, []sketch{
				{"serial", job.Waiting, 1, 2, []sketch{{"story.work", job.Completed, 0, 0, nil, nil}, {"", job.Pending, 0, 0, nil, nil}}, nil},
				{"", job.Pending, 0, 0, nil, nil},
			}, nil},
		}, nil}, sketchOf(s, whole)); diff != "" {
			t.Errorf("while it waits (-want +got):\n%s", diff)
		}
		p, reported, err := whole.Progress(s.Context())
		if want := (asyncnats.Progress{Done: 2, Total: 4}); err != nil || !reported || p != want {
			t.Errorf("progress %v, %t, %v, want %v", p, reported, err, want)
		}
		wait(s, whole)
		s.settledBut(1)
		if diff := cmp.Diff(sketch{"parallel", job.Completed, 2, 2, []sketch{
			{"story.work", job.Completed, 0, 0, nil, []sketch{{"story.noted", job.Completed, 0, 0, nil, nil}}},
			{"then", job.Completed, 2, 2, []sketch{
				{"serial", job.Completed, 2, 2, []sketch{{"story.work", job.Completed, 0, 0, nil, nil}, {"story.work", job.Completed, 0, 0, nil, nil}}, nil},
				{"story.total", job.Completed, 0, 0, nil, nil},
			}, nil},
		}, []sketch{{"story.unknown", job.Pending, 0, 0, nil, nil}}}, sketchOf(s, whole)); diff != "" {
			t.Errorf("completed (-want +got):\n%s", diff)
		}
		tree, err := whole.Tree(s.Context(), 1)
		if err != nil || len(tree.Parts) != 1 || tree.Count != 2 {
			t.Errorf("one of its parts: %+v, %v", tree, err)
		}
	})
}

// sketch is what of a tree these stories look at.
type sketch struct {
	Task        string
	State       job.State
	Done, Count int
	Parts       []sketch
	Callbacks   []sketch
}

func sketchOf[R any](s *story, j *asyncnats.Job[R]) sketch {
	s.Helper()
	tree, err := j.Tree(s.Context(), 100)
	if err != nil {
		s.Fatal(err)
	}
	return draw(tree)
}

func draw(n asyncnats.Node) sketch {
	d := sketch{Task: n.Task, State: n.State, Done: n.Done, Count: n.Count}
	for _, part := range n.Parts {
		d.Parts = append(d.Parts, draw(part))
	}
	for _, callback := range n.Callbacks {
		d.Callbacks = append(d.Callbacks, draw(callback))
	}
	return d
}
