package stories

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// wantCancelled checks that a job ended as cancelled and left nothing.
func wantCancelled[R any](s *story, j *asyncnats.Job[R]) {
	s.Helper()
	_, err := j.Wait(s.Context())
	if failure, failed := errors.AsType[*job.Failure](err); !failed || failure.Kind != job.KindCancelled || !errors.Is(err, job.ErrCancelled) {
		s.Errorf("job ended with %v, want that it was cancelled", err)
	}
	awaitFake(s, func() bool { return record(s, j).State == job.Completed })
	s.wantEmpty()
}

// However far a job has come, it can be cancelled, once; its ID is free again.
func TestCancel(t *testing.T) {
	type call = asyncnats.Call[string]
	for name, row := range map[string]struct {
		call   func(call) call
		script error
		staff  bool
		was    job.State
		ran    int
	}{
		"pending":                {was: job.Pending},
		"pending, keeps nothing": {call: func(c call) call { return c.Keep(job.KeepNone) }, was: job.Pending},
		"pending, of a quota":    {call: func(c call) call { return c.Quota("one") }, was: job.Pending},
		"scheduled":              {call: func(c call) call { return c.In(time.Hour) }, staff: true, was: job.Pending},
		"retrying":               {script: job.RetryAfter(time.Hour, errBroken), staff: true, was: job.Retrying, ran: 1},
		"retrying, of a quota":   {call: func(c call) call { return c.Quota("one") }, script: job.RetryAfter(time.Hour, errBroken), staff: true, was: job.Retrying, ran: 1},
		"snoozing, at most once": {call: func(c call) call { return c.Retry(job.Retry{Never: true}) }, script: job.Snooze(time.Hour), staff: true, was: job.Retrying, ran: 1},
		"stopped quota":          {call: func(c call) call { return c.Quota("none") }, staff: true, was: job.Pending},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				for quota, size := range map[string]int{"one": 1, "none": 0} {
					if err := s.queue.CreateQuota(s.Context(), quota, size); err != nil {
						s.Fatal(err)
					}
				}
				p := newPlayer(row.script, nil)
				if row.staff {
					s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				}
				c := p.task.Call("x").ID("me")
				if row.call != nil {
					c = row.call(c)
				}
				j := put(s, c)
				time.Sleep(time.Second)
				was, err := j.Cancel(s.Context())
				if name == "stopped quota" && was == job.Active {
					was = job.Pending // it was given out, and waited
				}
				if err != nil || was != row.was {
					s.Errorf("it was %s, %v, want %s", was, err, row.was)
				}
				wantCancelled(s, j)
				if _, err := j.Cancel(s.Context()); !errors.Is(err, asyncnats.ErrCompleted) {
					s.Errorf("cancelled again: %v", err)
				}
				if !row.staff {
					s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				}
				time.Sleep(2 * time.Minute)
				if n := len(p.after(time.Time{})); n != row.ran {
					s.Errorf("it ran %d times, want %d", n, row.ran)
				}
				if r := record(s, j); r.By != s.Name() || r.Put.IsZero() || r.Task != p.task.Name() {
					s.Errorf("record %+v", r)
				}
				if quota, err := s.queue.Quota(s.Context(), "one"); err != nil || len(quota.Holders)+len(quota.Waiters) > 0 {
					s.Errorf("left %+v, %v", quota.Slots, err)
				}
				again := put(s, p.task.Call("again").ID("me"))
				if got := wait(s, again); got != "again" {
					s.Errorf("the next of its ID got %q", got)
				}
			})
		})
	}
}

// The handler of a running job learns of its cancel at once, wherever it runs;
// where word does not reach it, when its lease is extended.
func TestCancelRunning(t *testing.T) {
	for name, row := range map[string]struct {
		deaf  bool // it does not return before its time
		quota bool
		cut   bool // from the one who cancels
		when  time.Duration
	}{
		"":               {when: 0},
		"of a quota":     {quota: true},
		"deaf":           {deaf: true, when: 0},
		"deaf, of quota": {deaf: true, quota: true},
		"out of reach":   {cut: true, when: ackWait/3 + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
					s.Fatal(err)
				}
				started, ended := make(chan struct{}), make(chan error, 1)
				task := asyncnats.Define[asyncnats.None, string]("story.endless")
				d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{task.Handle(func(ctx context.Context, _ asyncnats.None) (string, error) {
					close(started)
					<-ctx.Done()
					ended <- context.Cause(ctx)
					if row.deaf {
						time.Sleep(2 * ackWait) // its lease is kept, and so its slot
					}
					return "a result all the same", nil
				})}})
				call := task.Call(asyncnats.None{})
				if row.quota {
					call = call.Quota("one")
				}
				j := put(s, call)
				<-started
				if row.cut {
					d.wire.Freeze() // for a moment: what is told is lost
				}
				begin := time.Now()
				was, err := j.Cancel(s.Context())
				if row.cut {
					time.Sleep(time.Millisecond)
					d.wire.Thaw()
				}
				if err != nil || was != job.Active && !row.cut {
					s.Errorf("it was %s, %v", was, err)
				}
				if cause := <-ended; !errors.Is(cause, job.ErrCancelled) {
					s.Errorf("its context ended with %v", cause)
				}
				if took := time.Since(begin); took > row.when+time.Second {
					s.Errorf("it learnt after %v", took)
				}
				if row.deaf {
					time.Sleep(2*ackWait - time.Second)
					if r := record(s, j); r.State != job.Callbacks || !r.EndedAs(job.KindCancelled) {
						s.Errorf("its slot is owed still, and its record says %+v", r)
					}
					if quota, err := s.queue.Quota(s.Context(), "one"); err != nil || row.quota && len(quota.Holders) != 1 {
						s.Errorf("its handler runs, and its slot is %+v, %v", quota.Slots, err)
					}
				}
				wantCancelled(s, j)
				if quota, err := s.queue.Quota(s.Context(), "one"); err != nil || len(quota.Holders) != 0 {
					s.Errorf("left %+v, %v", quota.Slots, err)
				}
			})
		})
	}
}

// A job that waits for a slot in a dispatcher can be cancelled, and others go on.
func TestCancelWaiting(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
			s.Fatal(err)
		}
		release := make(chan struct{})
		var mu sync.Mutex
		var order []string
		task := asyncnats.Define[string, string]("story.player")
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{task.Handle(func(_ context.Context, arg string) (string, error) {
			mu.Lock()
			order = append(order, arg)
			mu.Unlock()
			if arg == "first" {
				<-release
			}
			return arg, nil
		})}})
		var jobs []*asyncnats.Job[string]
		for _, arg := range []string{"first", "second", "third"} {
			jobs = append(jobs, put(s, task.Call(arg).Quota("one")))
			time.Sleep(time.Second)
		}
		if _, err := jobs[1].Cancel(s.Context()); err != nil {
			s.Fatal(err)
		}
		_, err := jobs[1].Wait(s.Context())
		if !errors.Is(err, job.ErrCancelled) {
			s.Errorf("it ended with %v", err)
		}
		close(release)
		wait(s, jobs[0])
		wait(s, jobs[2])
		if want := []string{"first", "third"}; !slices.Equal(order, want) {
			s.Errorf("ran %q, want %q", order, want)
		}
		wantCancelled(s, jobs[1])
	})
}

// What is not there cannot be cancelled, nor what is over; an old handle does not
// cancel a new job of its ID.
func TestCancelRefused(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(nil)
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		j := put(s, p.task.Call("x").ID("me"))
		wait(s, j)
		if _, err := j.Cancel(s.Context()); !errors.Is(err, asyncnats.ErrCompleted) {
			s.Errorf("of a completed job: %v", err)
		}
		traceless := put(s, p.task.Call("x").Keep(job.KeepNone))
		if _, err := traceless.Wait(s.Context()); err != nil && !errors.Is(err, asyncnats.ErrOutcomeNotKept) {
			s.Fatal(err)
		}
		s.wantEmpty()
		if _, err := traceless.Cancel(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("of one that left no trace: %v", err)
		}
		d.stop()
		next := put(s, p.task.Call("y").ID("me"))
		if _, err := j.Cancel(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("of another's ID: %v", err)
		}
		if _, err := next.Cancel(s.Context()); err != nil {
			s.Error(err)
		}
	})
}

// A worker that died with a job which is cancelled then: whoever gets the job
// pays what it owes, and does not begin it.
func TestCancelOfTheDead(t *testing.T) {
	for name, policy := range map[string]job.Retry{"no record": {}, "started on record": {Never: true}} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
					s.Fatal(err)
				}
				p := newPatient()
				d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				j := put(s, p.task.Call(asyncnats.None{}).Quota("one").Retry(policy))
				awaitFake(s, func() bool { return p.starts.Load() == 1 })
				d.wire.Cut()
				if _, err := j.Cancel(s.Context()); err != nil {
					s.Fatal(err)
				}
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}, Agents: []agents.Agent{{Name: "main", Size: 1}}})
				time.Sleep(5 * ackWait)
				wantCancelled(s, j)
				if n := p.starts.Load(); n != 1 {
					s.Errorf("it was begun %d times", n)
				}
				if quota, err := s.queue.Quota(s.Context(), "one"); err != nil || len(quota.Holders)+len(quota.Waiters) > 0 {
					s.Errorf("left %+v, %v", quota.Slots, err)
				}
			})
		})
	}
}

// A job that nobody was given can be taken back, and put again; another cannot.
func TestPull(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(errBroken, nil)
		if _, err := put(s, p.task.Call("x").ID("me")).Pull(s.Context()); err != nil {
			s.Error(err)
		}
		s.wantEmpty()
		due := time.Now().Add(time.Hour)
		pulled, err := put(s, p.task.Call("y").ID("me").At(due).Timeout(time.Minute)).Pull(s.Context())
		if err != nil || pulled.ID != "me" || pulled.Spec.Task != p.task.Name() || !pulled.Spec.Begin.Equal(due) {
			s.Errorf("pulled %+v, %v", pulled, err)
		}
		s.wantEmpty()
		again, err := asyncnats.Put(s.Context(), s.queue, pulled.Call())
		if err != nil || again.ID() != "me" {
			s.Fatal(again, err)
		}
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		if _, err := again.Wait(s.Context()); err == nil {
			s.Error("it did not fail")
		}
		if _, err := again.Pull(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("pulled when it was over: %v", err)
		}
		retrying := put(s, p.task.Call("z"))
		wait(s, retrying)
		d.stop()
		hung := newPatient()
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{hung.handler()}})
		running := put(s, hung.task.Call(asyncnats.None{}))
		awaitFake(s, func() bool { return hung.starts.Load() == 1 })
		if _, err := running.Pull(s.Context()); !errors.Is(err, asyncnats.ErrAssigned) {
			s.Errorf("pulled while it ran: %v", err)
		}
	})
}

// A part of a composition, or what a handler has called, is not taken back from the job
// that waits for it, which would wait for ever. It can be cancelled.
func TestPullOfWhatAnotherWaitsFor(t *testing.T) {
	tell(t, func(s *story) {
		outer := asyncnats.Define[string, string]("story.outer")
		later := shout.Call("x").In(time.Hour)
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{
			shout.Handle(toUpper),
			outer.HandleCall(func(context.Context, string) (asyncnats.Call[string], error) { return later, nil }),
		}})
		parallel, calling := put(s, asyncnats.Parallel(later, later)), put(s, outer.Call("x"))
		for name, whole := range map[string]interface {
			Tree(context.Context, int) (asyncnats.Node, error)
		}{"part": parallel, "call": calling} {
			var tree asyncnats.Node
			waitFor(s, func() (begun bool) {
				var err error
				tree, err = whole.Tree(s.Context(), 1)
				return err == nil && len(tree.Parts) > 0
			})
			part, err := asyncnats.Lookup[string](s.Context(), s.queue, string(tree.Parts[0].ID))
			if err != nil {
				s.Fatal(name, err)
			}
			if pulled, err := part.Pull(s.Context()); err == nil || !strings.Contains(err.Error(), tree.ID.String()+" in queue default waits for it: cancel") {
				s.Errorf("%s: pulled %+v, %v", name, pulled, err)
			}
			if _, err := part.Cancel(s.Context()); err != nil {
				s.Errorf("%s: %v", name, err)
			}
		}
		ctx, cancel := context.WithTimeout(s.Context(), 2*time.Hour)
		defer cancel()
		if _, err := calling.Wait(ctx); err == nil || !strings.Contains(err.Error(), string(job.KindCancelled)) {
			s.Errorf("who called: %v", err)
		}
		if parts, err := parallel.Wait(ctx); err != nil || len(parts) != 2 || parts[0].Failure == nil || parts[1].Result != "X" {
			s.Errorf("the whole: %+v, %v", parts, err)
		}
	})
}

// An answer that a pull does not get costs it time. What it has taken back is not lost.
func TestPullUnanswered(t *testing.T) {
	const forever = 1_000_000
	for name, row := range map[string]struct {
		delay  time.Duration
		first  string // the first request whose answer is lost has this in its subject,
		after  int    // after so many that have,
		lost   int64  // and so many are lost in all
		reason error
	}{
		"to the removal":                          {0, ".STREAM.MSG.DELETE.", 0, 1, nil},
		"to the removal, twice":                   {0, ".STREAM.MSG.DELETE.", 0, 2, nil},
		"to the removal, when it is scheduled":    {time.Hour, ".STREAM.MSG.DELETE.", 0, 1, nil},
		"to the removal, and to all that follows": {0, ".STREAM.MSG.DELETE.", 0, forever, asyncnats.ErrUnanswered},
		"to the lane's going on":                  {0, ".CONSUMER.PAUSE.", 1, 1, nil},
		"to the removal of its record":            {0, ".API.$KV.", 0, 1, nil},
		"to the removal of its record, for ever":  {0, ".API.$KV.", 0, forever, asyncnats.ErrUnanswered},
		"to the first look":                       {0, ".STREAM.MSG.GET.", 0, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				told := asyncnats.Define[string, asyncnats.None]("story.told")
				var lost atomic.Int64
				pulling, seen := false, 0
				queue := s.through(func(request *nats.Msg) bool {
					if pulling && strings.Contains(request.Subject, row.first) {
						seen++
					}
					if seen > row.after && lost.Load() < row.lost {
						lost.Add(1)
						request.Reply = "nobody"
					}
					return false
				})
				j, err := asyncnats.Put(s.Context(), queue, shout.Call("x").ID("me").In(row.delay))
				if err != nil {
					s.Fatal(err)
				}
				if err := j.OnSuccess(s.Context(), told); err != nil { // which gives it a record
					s.Fatal(err)
				}
				pulling = true
				pulled, err := j.Pull(s.Context())
				if !errors.Is(err, row.reason) {
					s.Errorf("%v, want %v", err, row.reason)
				}
				if pulled.ID != "me" || pulled.Spec.Task != shout.Name() {
					s.Errorf("pulled %+v", pulled)
				}
				if lost.Load() == 0 {
					s.Error("no answer was lost")
				}
				if row.reason != nil {
					return
				}
				s.wantEmpty()
				if _, err := asyncnats.Lookup[string](s.Context(), s.queue, "me"); !errors.Is(err, asyncnats.ErrNoJob) {
					s.Errorf("what is left of it: %v", err)
				}
			})
		})
	}
}

// A pull that got no answer while somebody else has cancelled the job took nothing back.
func TestPullUnansweredOfCancelled(t *testing.T) {
	tell(t, func(s *story) {
		mine := put(s, shout.Call("x").ID("me"))
		lost := false
		queue := s.through(func(request *nats.Msg) bool {
			if lost || !strings.Contains(request.Subject, ".STREAM.MSG.DELETE.") {
				return false
			}
			lost = true
			if _, err := mine.Cancel(s.Context()); err != nil {
				s.Error(err)
			}
			return true
		})
		theirs, err := asyncnats.Lookup[string](s.Context(), queue, "me")
		if err != nil {
			s.Fatal(err)
		}
		if pulled, err := theirs.Pull(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) || pulled.ID != "" || !lost {
			s.Errorf("pulled %+v, %v", pulled, err)
		}
	})
}

// The server counts an ack before it removes the message. Whoever cancels in between a job
// of which nothing is kept is told that it has ended, and the job is not said to be
// cancelled.
func TestCancelOfWhatIsAcked(t *testing.T) {
	tell(t, func(s *story) {
		release := make(chan struct{})
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(context.Context, string) (string, error) {
			<-release
			return "done", nil
		})}})
		asked, ended := 0, time.Time{}
		var there []byte // the message, as it was before the ack
		nc := s.server.Connect(s.T)
		queue := s.through(func(request *nats.Msg) bool {
			if !strings.Contains(request.Subject, ".STREAM.MSG.GET.ASYNC_default") {
				return false
			}
			// It is looked for when the cancel begins, and when that is written; then
			// dispatchers are told.
			if asked++; asked == 2 {
				found, err := nc.Request("$JS.API.STREAM.MSG.GET.ASYNC_default", request.Data, time.Second)
				if err != nil {
					s.Error(err)
					return false
				}
				there = found.Data
				close(release)
				awaitFake(s, func() bool { return messages(s) == 0 })
				ended = time.Now()
			}
			return (asked == 2 || asked == 3) && time.Since(ended) < 50*time.Millisecond && request.Respond(there) == nil
		})
		j := put(s, shout.Call("x").Keep(job.KeepNone))
		time.Sleep(time.Second)
		same, err := asyncnats.Lookup[string](s.Context(), queue, j.ID().String())
		if err != nil {
			s.Fatal(err)
		}
		asked = 0
		if was, err := same.Cancel(s.Context()); !errors.Is(err, asyncnats.ErrCompleted) || asked < 3 {
			s.Errorf("it was %s, %v, asked %d times", was, err, asked)
		}
		if status, err := j.Status(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("left %+v, %v", status, err)
		}
	})
}

// A dispatcher that is told of a cancel may have ended the attempt before whoever cancels
// asks the server for it. The job was active all the same.
func TestCancelOfWhatEndsAtOnce(t *testing.T) {
	tell(t, func(s *story) {
		started := make(chan struct{})
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(ctx context.Context, _ string) (string, error) {
			close(started)
			<-ctx.Done()
			return "", context.Cause(ctx)
		})}})
		cancels, asked := false, 0
		queue := s.through(func(request *nats.Msg) bool {
			if cancels && strings.Contains(request.Subject, ".CONSUMER.INFO.ASYNC_default") {
				asked++
				awaitFake(s, func() bool { return messages(s) == 0 })
			}
			return false
		})
		j := put(s, shout.Call("x"))
		<-started
		same, err := asyncnats.Lookup[string](s.Context(), queue, j.ID().String())
		if err != nil {
			s.Fatal(err)
		}
		cancels = true
		if was, err := same.Cancel(s.Context()); was != job.Active || err != nil || asked == 0 {
			s.Errorf("it was %s, %v, asked %d times", was, err, asked)
		}
		wantCancelled(s, j)
	})
}

// The parts of a cancelled whole that nobody was given are cancelled at once, though
// another job of their lane runs.
func TestCancelOfManyParts(t *testing.T) {
	tell(t, func(s *story) {
		release, performed := make(chan struct{}), 0
		s.dispatch(dispatcher.Config{
			Agents: []agents.Agent{{Name: "main", Size: 1}},
			Handlers: []job.Handler{shout.Handle(func(_ context.Context, arg string) (string, error) {
				if arg == "first" {
					<-release
				}
				performed++
				return arg, nil
			})},
		})
		first := put(s, shout.Call("first"))
		var calls []asyncnats.Call[string]
		for range 1000 {
			calls = append(calls, shout.Call("x"))
		}
		whole := put(s, asyncnats.Parallel(calls...))
		time.Sleep(time.Second)
		begin := time.Now()
		if _, err := whole.Cancel(s.Context()); err != nil {
			s.Fatal(err)
		}
		awaitFake(s, func() bool { return record(s, whole).State == job.Completed })
		if took := time.Since(begin); took > time.Second {
			s.Errorf("it took %v", took)
		}
		close(release)
		wait(s, first)
		if performed != 1 {
			s.Errorf("%d parts were performed", performed-1)
		}
	})
}
