package stories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// diary is what handlers wrote of what they did, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// want waits until so many lines are written, and compares them.
func (d *diary) want(s *story, want ...string) {
	s.Helper()
	waitFor(s, func() bool { return len(d.read()) >= len(want) })
	if diff := cmp.Diff(want, d.read()); diff != "" {
		s.Errorf("what happened (-want +got):\n%s", diff)
	}
}

// wantAll is want for lines in any order, after the first.
func (d *diary) wantAll(s *story, first string, rest ...string) {
	s.Helper()
	d.wantInOrder(s, 1, append([]string{first}, rest...))
}

// wantAny is want for lines in any order.
func (d *diary) wantAny(s *story, lines ...string) {
	s.Helper()
	d.wantInOrder(s, 0, lines)
}

// wantInOrder is want for lines of which the first n are in order.
func (d *diary) wantInOrder(s *story, n int, lines []string) {
	s.Helper()
	waitFor(s, func() bool { return len(d.read()) >= len(lines) })
	got := d.read()
	slices.Sort(got[n:])
	slices.Sort(lines[n:])
	if diff := cmp.Diff(lines, got); diff != "" {
		s.Errorf("what happened (-want +got):\n%s", diff)
	}
}

// waitFor waits, in fake time, until something is so.
func waitFor(s *story, so func() bool) {
	s.Helper()
	for range 6000 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Fatal("it did not come to be within a minute")
}

var (
	work    = asyncnats.Define[string, int]("story.work")
	noted   = asyncnats.Define[int, asyncnats.None]("story.noted")
	mourned = asyncnats.Define[job.Failure, asyncnats.None]("story.mourned")
	told    = asyncnats.Define[asyncnats.Outcome[int], string]("story.told")
)

// troupe performs the tasks of these stories, and writes a diary.
func troupe(d *diary) dispatcher.Config {
	return dispatcher.Config{
		Agents: []agents.Agent{{Name: "main", Size: 1}},
		Handlers: []job.Handler{
			work.Handle(func(_ context.Context, arg string) (int, error) {
				d.write("work %s", arg)
				if strings.HasPrefix(arg, "bad") {
					return 0, errors.New("cannot do " + arg)
				}
				return len(arg), nil
			}),
			noted.Handle(func(_ context.Context, n int) (asyncnats.None, error) {
				d.write("noted %d", n)
				return asyncnats.None{}, nil
			}),
			mourned.Handle(func(_ context.Context, f job.Failure) (asyncnats.None, error) {
				d.write("mourned %s: %s", f.Kind, f.Message)
				return asyncnats.None{}, nil
			}),
			told.Handle(func(_ context.Context, o asyncnats.Outcome[int]) (string, error) {
				if o.Failure != nil {
					d.write("told of failure %s", o.Failure.Message)
					return "", nil //nolint:nilerr // the Failure is its argument
				}
				d.write("told of %d", o.Result)
				return "told", nil
			}),
		},
	}
}

// TestCallbacks follows the usage document's callbacks of a job that succeeds and of
// one that fails (FEATURES 77–82).
func TestCallbacks(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(troupe(&d))
		good := work.Call("seven77").OnSuccess(noted).OnFailure(mourned).OnDone(told)
		j := put(s, good)
		if n := wait(s, j); n != 7 {
			t.Errorf("got %d, want 7", n)
		}
		d.wantAll(s, "work seven77", "noted 7", "told of 7")
		s.settled()
		if r := record(s, j); r.State != job.Completed || !r.Outcome.Succeeded() {
			t.Errorf("record %+v, want completed", r)
		}
	})
	tell(t, func(s *story) {
		var d diary
		s.dispatch(troupe(&d))
		j := put(s, work.Call("bad").OnSuccess(noted).OnFailure(mourned).OnDone(told))
		if _, err := j.Wait(s.Context()); err == nil {
			t.Error("succeeded")
		}
		d.wantAll(s, "work bad", "mourned error: cannot do bad", "told of failure cannot do bad")
	})
}

// TestCallbacksOfWhatWasNotPerformed puts callbacks after a job that was cancelled
// while it was pending, and after one whose deadline passed.
func TestCallbacksOfWhatWasNotPerformed(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := troupe(&d)
		config.Agents = []agents.Agent{{Name: "main", Size: 1, Filter: []string{"story.mourned"}}}
		s.dispatch(config)
		cancelled := put(s, work.Call("x").OnFailure(mourned))
		if _, err := cancelled.Cancel(s.Context()); err != nil {
			t.Fatal(err)
		}
		d.want(s, "mourned cancelled: it was pending")
		put(s, work.Call("y").Within(time.Second).OnFailure(mourned).OnSuccess(noted))
		waitFor(s, func() bool { return len(d.read()) == 2 })
		if got := d.read()[1]; !strings.HasPrefix(got, "mourned expired: not begun before its deadline") {
			t.Errorf("got %q", got)
		}
	})
}

// TestCallbackOfCallback chains callbacks: the second gets what the first returned,
// and neither changes the outcome of the job (FEATURES 80, 81).
func TestCallbackOfCallback(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := troupe(&d)
		double := asyncnats.Define[int, int]("story.double")
		config.Handlers = append(config.Handlers, double.Handle(func(_ context.Context, n int) (int, error) {
			d.write("double %d", n)
			return 2 * n, nil
		}))
		s.dispatch(config)
		j := put(s, work.Call("four").OnSuccess(double.OnSuccess(double.OnSuccess(noted))))
		d.want(s, "work four", "double 4", "double 8", "noted 16")
		if n := wait(s, j); n != 4 {
			t.Errorf("got %d, want 4", n)
		}
	})
}

// TestCallbacksInOrder puts callbacks of one lane in the order in which they were
// added (FEATURES 82), those that were added later last.
func TestCallbacksInOrder(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := troupe(&d)
		step := asyncnats.Define[asyncnats.Bound[int, int], asyncnats.None]("story.step")
		config.Handlers = append(config.Handlers, step.Handle(func(_ context.Context, b asyncnats.Bound[int, int]) (asyncnats.None, error) {
			d.write("step %d", b.With)
			return asyncnats.None{}, nil
		}))
		call := work.Call("four")
		for i := range 4 {
			call = call.OnSuccess(asyncnats.Bind(step, i))
		}
		j := put(s, call)
		for i := range 3 {
			if err := j.OnSuccess(s.Context(), asyncnats.Bind(step, 4+i)); err != nil {
				t.Fatal(err)
			}
		}
		s.dispatch(config)
		d.want(s, "work four", "step 0", "step 1", "step 2", "step 3", "step 4", "step 5", "step 6")
	})
}

// TestBoundCallback gives a callback something of the caller's beside the outcome
// (FEATURES 59).
func TestBoundCallback(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := troupe(&d)
		mail := asyncnats.Define[asyncnats.Bound[string, int], asyncnats.None]("story.mail")
		config.Handlers = append(config.Handlers, mail.Handle(func(_ context.Context, b asyncnats.Bound[string, int]) (asyncnats.None, error) {
			d.write("to %s: %d", b.With, b.Got)
			return asyncnats.None{}, nil
		}))
		later := asyncnats.Define[asyncnats.Bound[string, job.Value], asyncnats.None]("story.later")
		config.Handlers = append(config.Handlers, later.Handle(func(_ context.Context, b asyncnats.Bound[string, job.Value]) (asyncnats.None, error) {
			var n int
			err := b.Got.Decode(&n)
			d.write("later to %s: %d", b.With, n)
			return asyncnats.None{}, err
		}))
		idle := asyncnats.Define[asyncnats.Bound[asyncnats.None, int], asyncnats.None]("story.idle")
		config.Handlers = append(config.Handlers, idle.Handle(func(_ context.Context, b asyncnats.Bound[asyncnats.None, int]) (asyncnats.None, error) {
			d.write("idle %d", b.Got)
			return asyncnats.None{}, nil
		}))
		s.dispatch(config)
		put(s, work.Call("four").OnSuccess(asyncnats.Bind(mail, "ann")))
		d.want(s, "work four", "to ann: 4")
		put(s, work.Call("fiver").Any().OnSuccess(asyncnats.Bind(later, "bob")))
		d.want(s, "work four", "to ann: 4", "work fiver", "later to bob: 5")
		put(s, work.Call("sixsix").OnSuccess(asyncnats.Bind(idle, asyncnats.None{})))
		d.want(s, "work four", "to ann: 4", "work fiver", "later to bob: 5", "work sixsix", "idle 6")
	})
}

// TestCallbackIsTriedForEver fails a callback more often than a job would be tried
// (FEATURES 85, 173).
func TestCallbackIsTriedForEver(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := troupe(&d)
		failures := 0
		stubborn := asyncnats.Define[int, asyncnats.None]("story.stubborn")
		config.Handlers = append(config.Handlers, stubborn.Handle(func(context.Context, int) (asyncnats.None, error) {
			if failures++; failures < 12 {
				return asyncnats.None{}, errBroken
			}
			d.write("done after %d failures", failures-1)
			return asyncnats.None{}, nil
		}))
		s.dispatch(config)
		j := put(s, work.Call("four").OnSuccess(stubborn))
		wait(s, j)
		time.Sleep(3 * time.Hour)
		d.want(s, "work four", "done after 11 failures")
	})
}

// TestAddedCallbacks adds callbacks to a job that is pending, to one that runs, and to
// one that is completed (FEATURES 83, 84).
func TestAddedCallbacks(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := troupe(&d)
		slow := asyncnats.Define[string, int]("story.slow")
		began, goOn := make(chan struct{}, 1), make(chan struct{})
		config.Handlers = append(config.Handlers, slow.Handle(func(ctx context.Context, arg string) (int, error) {
			began <- struct{}{}
			<-goOn
			d.write("slow %s", arg)
			return len(arg), nil
		}))
		j := put(s, slow.Call("abc").OnSuccess(noted))
		if err := j.OnSuccess(s.Context(), noted); err != nil {
			t.Fatal(err)
		}
		s.dispatch(config)
		<-began
		if err := j.OnDone(s.Context(), told); err != nil {
			t.Fatal(err)
		}
		if err := j.OnFailure(s.Context(), mourned); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the lease is extended meanwhile, and the record looked at
		close(goOn)
		wait(s, j)
		d.wantAll(s, "slow abc", "noted 3", "noted 3", "told of 3")
		if got := record(s, j).Attempt.Number; got != 1 {
			t.Errorf("attempt %d, want 1", got)
		}
		if err := j.OnSuccess(s.Context(), noted); err != nil {
			t.Fatal(err)
		}
		d.wantAll(s, "slow abc", "noted 3", "noted 3", "told of 3", "noted 3")
	})
}

// TestAddedCallbacksAreRefused adds callbacks where they would be lost.
func TestAddedCallbacksAreRefused(t *testing.T) {
	tell(t, func(s *story) {
		forgetful := put(s, work.Call("abc").Keep(job.KeepNone))
		if err := forgetful.OnSuccess(s.Context(), noted); !errors.Is(err, asyncnats.ErrNotKept) {
			t.Errorf("job that keeps no result: %v, want ErrNotKept", err)
		}
		gone := put(s, work.Call("abc"))
		if _, err := gone.Pull(s.Context()); err != nil {
			t.Fatal(err)
		}
		if err := gone.OnSuccess(s.Context(), noted); !errors.Is(err, asyncnats.ErrNoJob) {
			t.Errorf("job that was taken back: %v, want ErrNoJob", err)
		}
		j := put(s, work.Call("abc"))
		if err := j.OnSuccess(s.Context(), noted.Queue("nowhere")); !errors.Is(err, asyncnats.ErrNoQueue) {
			t.Errorf("callback in a queue that does not exist: %v, want ErrNoQueue", err)
		}
		if err := j.OnSuccess(s.Context(), noted.Quota("nothing")); !errors.Is(err, asyncnats.ErrUnknownQuota) {
			t.Errorf("callback of a quota that does not exist: %v, want ErrUnknownQuota", err)
		}
	})
}

// TestCallbacksOfJobWithoutRecord has a job that keeps no result put its callbacks.
func TestCallbacksOfJobWithoutRecord(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(troupe(&d))
		put(s, work.Call("abc").Keep(job.KeepNone).OnSuccess(noted))
		d.want(s, "work abc", "noted 3")
	})
}

// TestCallbackInAnotherQueue puts a callback where its task says.
func TestCallbackInAnotherQueue(t *testing.T) {
	tell(t, func(s *story) {
		if _, err := s.client.CreateQueue(s.Context(), "mail", asyncnats.QueueConfig{}); err != nil {
			t.Fatal(err)
		}
		var d diary
		config := troupe(&d)
		config.Queues = []string{job.DefaultQueue}
		s.dispatch(config)
		put(s, work.Call("abc").OnSuccess(noted.Queue("mail")))
		time.Sleep(time.Minute)
		d.want(s, "work abc")
		config = troupe(&d)
		config.Queues = []string{"mail"}
		s.dispatch(config)
		d.want(s, "work abc", "noted 3")
	})
}
