package stories

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// A job begins when it is due, to the millisecond and never before; one that was
// due in the past begins at once (FEATURES 92, 95, 96).
func TestBegin(t *testing.T) {
	type call = asyncnats.Call[string]
	for name, row := range map[string]struct {
		when  func(call, time.Time) call
		quota bool
		after time.Duration
		late  time.Duration // at most
	}{
		"at once":                {func(c call, _ time.Time) call { return c }, false, 0, 0},
		"in the past":            {func(c call, now time.Time) call { return c.At(now.Add(-time.Hour)) }, false, 0, 0},
		"in a negative time":     {func(c call, _ time.Time) call { return c.In(-time.Hour) }, false, 0, 0},
		"in a moment":            {func(c call, _ time.Time) call { return c.In(100 * time.Millisecond) }, false, 100 * time.Millisecond, prompt},
		"just too late to hold":  {func(c call, _ time.Time) call { return c.In(301 * time.Millisecond) }, false, 301 * time.Millisecond, prompt},
		"at an odd time":         {func(c call, now time.Time) call { return c.At(now.Add(12*time.Second + 345*time.Millisecond)) }, false, 12345 * time.Millisecond, prompt},
		"in another zone":        {func(c call, now time.Time) call { return c.At(now.In(time.FixedZone("X", 3600)).Add(time.Hour)) }, false, time.Hour, prompt},
		"under a quota":          {func(c call, _ time.Time) call { return c.In(time.Minute) }, true, time.Minute, 300 * time.Millisecond},
		"under a quota, at once": {func(c call, _ time.Time) call { return c.In(time.Millisecond) }, true, time.Millisecond, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
					s.Fatal(err)
				}
				p := newPlayer(nil)
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				time.Sleep(time.Second)
				begin := time.Now()
				call := row.when(p.task.Call("x"), begin)
				if row.quota {
					call = call.Quota("one")
				}
				wait(s, put(s, call))
				p.wantAfter(s, begin, row.late, row.after)
			})
		})
	}
}

// Jobs that are due come before those put later, and one due in the past after
// those put before (FEATURES 96, 97).
func TestBeginOrder(t *testing.T) {
	tell(t, func(s *story) {
		var mu sync.Mutex
		var order []string
		task := asyncnats.Define[string, string]("story.player")
		begin := time.Now()
		var jobs []*asyncnats.Job[string]
		for _, row := range []struct {
			arg   string
			after time.Duration
		}{{"third", 3 * time.Second}, {"first", time.Second}, {"now", 0}, {"second", 2 * time.Second}, {"past", -time.Hour}} {
			call := task.Call(row.arg)
			if row.after != 0 {
				call = call.At(begin.Add(row.after))
			}
			jobs = append(jobs, put(s, call))
		}
		time.Sleep(time.Minute) // all are due
		jobs = append(jobs, put(s, task.Call("last")))
		s.dispatch(dispatcher.Config{
			Agents: []agents.Agent{{Name: "main", Size: 1}},
			Handlers: []job.Handler{task.Handle(func(_ context.Context, arg string) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, arg)
				return arg, nil
			})},
		})
		for _, j := range jobs {
			wait(s, j)
		}
		if want := []string{"now", "past", "first", "second", "third", "last"}; !slices.Equal(order, want) {
			s.Errorf("ran %q, want %q", order, want)
		}
	})
}

// Until it is due a job can be looked at, keeps its ID taken, and can be waited
// for.
func TestScheduledIsShown(t *testing.T) {
	tell(t, func(s *story) {
		due := time.Now().Add(time.Hour)
		p := newPlayer(nil)
		j := put(s, p.task.Call("x").ID("me").At(due))
		if status, err := j.Status(s.Context()); err != nil || status.State != job.Pending || !status.Due.Equal(due) {
			s.Errorf("status %+v, %v", status, err)
		}
		if listed, err := s.queue.Jobs(s.Context(), 10); err != nil || len(listed) != 1 || !listed[0].Due.Equal(due) {
			s.Errorf("listed %+v, %v", listed, err)
		}
		for _, call := range []asyncnats.Call[string]{p.task.Call("y").ID("me"), p.task.Call("y").ID("me").In(time.Minute)} {
			if _, err := asyncnats.Put(s.Context(), s.queue, call); err == nil {
				s.Error("its ID is free")
			}
		}
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		wait(s, j)
		if n := len(p.after(due)); n != 1 {
			s.Errorf("ran %d times", n)
		}
	})
}

// A dispatcher that dies while it holds a job until that is due loses nothing;
// one that is stopped hands it back at once.
func TestHeldJobIsNotLost(t *testing.T) {
	for name, end := range map[string]struct {
		how  func(*staff)
		late time.Duration
	}{
		"dies":  {func(d *staff) { d.wire.Cut() }, ackWait},
		"stops": {func(d *staff) { go d.stop() }, prompt},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				p := newPlayer(nil)
				d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				begin := time.Now()
				j := put(s, p.task.Call("x").In(10*time.Second))
				time.Sleep(10*time.Second - 20*time.Millisecond)
				synctest.Wait() // it was given out, and is held
				if n := s.given("story=player"); n != 1 {
					s.Fatalf("%d jobs are given out", n)
				}
				end.how(d) // one that is cut off may begin it all the same: its lease holds yet
				heir := newPlayer(nil)
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{heir.handler()}})
				wait(s, j)
				heir.wantAfter(s, begin, end.late, 10*time.Second)
			})
		})
	}
}

// given returns how many jobs of a lane are given out.
func (s *story) given(lane string) int {
	s.Helper()
	js, err := jetstream.New(s.server.Connect(s.T))
	if err != nil {
		s.Fatal(err)
	}
	consumer, err := js.Consumer(s.Context(), "ASYNC_default", lane)
	if err != nil {
		s.Fatal(err)
	}
	return consumer.CachedInfo().NumAckPending
}

// Held jobs take no place, and their number is bounded: with so many a runner asks
// for no more, and others have them.
func TestHeldJobsTakeNoPlace(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(nil)
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}, Agents: []agents.Agent{{Name: "main", Size: 1}}})
		begin := time.Now()
		var later []*asyncnats.Job[string]
		for range 200 { // more than are held
			later = append(later, put(s, p.task.Call("x").At(begin.Add(10*time.Second))))
		}
		time.Sleep(10*time.Second - 250*time.Millisecond)
		synctest.Wait()
		if n := s.given("story=player"); n > 70 {
			s.Errorf("%d jobs are held", n)
		}
		for _, j := range later {
			wait(s, j)
		}
		for _, after := range p.after(begin) {
			if after < 10*time.Second || after > 12*time.Second {
				s.Errorf("one began after %v", after)
			}
		}
	})
}

// A time that the server cannot tell is refused: it would come at once.
func TestTimesThatCannotBeTold(t *testing.T) {
	tell(t, func(s *story) {
		for name, row := range map[string]struct {
			call asyncnats.Call[string]
			want string
		}{
			"at":     {shout.Call("x").At(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)), "must lie between the years 1700 and 2250"},
			"in":     {shout.Call("x").In(math.MaxInt64), "begin 2292-04-10T23:47:16Z: must lie"},
			"within": {shout.Call("x").Within(math.MaxInt64), "deadline 2292-04-10T23:47:16Z: must lie between the years 1700 and 2250, or be left out"},
			"after":  {shout.Call("x").OnSuccess(shout.Within(math.MaxInt64)), "must be 100 years at most"},
		} {
			if _, err := asyncnats.Put(s.Context(), s.queue, row.call); err == nil || !strings.Contains(err.Error(), row.want) {
				s.Errorf("%s: %v, want it to say %q", name, err, row.want)
			}
		}
		if info, err := s.queue.Info(s.Context()); err != nil || info.Messages != 0 {
			s.Errorf("something was stored: %+v, %v", info, err)
		}
	})
}

// Whoever publishes by hand may say when a job is to begin, too, though its lane
// gives it out at once.
func TestBeginByHand(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(nil)
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		wait(s, put(s, p.task.Call("x"))) // registers the lane
		js, err := jetstream.New(s.server.Connect(s.T))
		if err != nil {
			s.Fatal(err)
		}
		begin := time.Now()
		due := begin.Add(time.Minute).UTC()
		if _, err := js.Publish(s.Context(), "async.default.job.story=player.mine", []byte(`{"arg":"y","begin":"`+due.Format(time.RFC3339Nano)+`"}`)); err != nil {
			s.Fatal(err)
		}
		j, err := asyncnats.Lookup[string](s.Context(), s.queue, "mine")
		if err != nil {
			s.Fatal(err)
		}
		wait(s, j)
		p.wantAfter(s, begin, prompt, 0, time.Minute)
		s.wantEmpty()
	})
}
