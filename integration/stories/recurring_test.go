package stories

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

var ticking = asyncnats.Define[string, asyncnats.None]("story.tick")

// ticker notes which ticks ran and when.
type ticker struct {
	mu   sync.Mutex
	runs map[job.ID][]time.Time
	take time.Duration // how long a tick's job runs
}

func newTicker() *ticker { return &ticker{runs: make(map[job.ID][]time.Time)} }

func (k *ticker) config() dispatcher.Config {
	return dispatcher.Config{Handlers: []job.Handler{ticking.Handle(func(ctx context.Context, _ string) (asyncnats.None, error) {
		info, _ := job.FromContext(ctx)
		k.mu.Lock()
		k.runs[info.ID] = append(k.runs[info.ID], time.Now())
		k.mu.Unlock()
		select {
		case <-time.After(k.take):
			return asyncnats.None{}, nil
		case <-ctx.Done():
			return asyncnats.None{}, context.Cause(ctx)
		}
	})}}
}

func (k *ticker) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.runs)
}

// wantEach says that each tick of a period has run once, from first on, no earlier
// than it was due and no later than late.
func (k *ticker) wantEach(s *story, name string, first time.Time, every time.Duration, n int, late time.Duration) {
	s.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range n {
		due := first.Add(time.Duration(i) * every)
		runs := k.runs[job.ID("cron/"+name+"/"+strconv.FormatInt(due.Unix(), 10))]
		if len(runs) != 1 || runs[0].Before(due) || runs[0].Sub(due) > late {
			s.Errorf("tick of %v ran at %v, want once, in time", due, runs)
		}
	}
	if len(k.runs) != n {
		s.Errorf("%d ticks ran, want %d", len(k.runs), n)
	}
}

func repeat(s *story, name, expression string, call asyncnats.Call[asyncnats.None], c asyncnats.RecurringConfig) {
	s.Helper()
	if err := asyncnats.Repeat(s.Context(), s.queue, name, expression, call, c); err != nil {
		s.Fatal(err)
	}
}

// recurring returns the one recurring job that there is.
func recurring(s *story) asyncnats.Recurring {
	s.Helper()
	list, err := s.queue.Recurring(s.Context())
	if err != nil || len(list) != 1 {
		s.Fatalf("recurring jobs %+v, %v: want one", list, err)
	}
	return list[0]
}

// midnight is when a bubble begins.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Three dispatchers, an hour of minutes: each tick is one job, on time.
func TestRecurringJob(t *testing.T) {
	tell(t, func(s *story) {
		k := newTicker()
		for range 3 {
			s.dispatch(k.config())
		}
		time.Sleep(time.Second)
		repeat(s, "pulse", "* * * * *", ticking.Call("x"), asyncnats.RecurringConfig{})
		if r := recurring(s); r.Name != "pulse" || r.Task != "story.tick" || !r.Next.Equal(midnight.Add(time.Minute)) || !r.Last.IsZero() {
			s.Errorf("%+v", r)
		}
		time.Sleep(time.Hour)
		k.wantEach(s, "pulse", midnight.Add(time.Minute), time.Minute, 60, 5*time.Millisecond)
		if r := recurring(s); !r.Next.Equal(midnight.Add(61*time.Minute)) || !r.Last.Equal(midnight.Add(time.Hour)) || r.By != s.Name() {
			s.Errorf("%+v", r)
		}
		wantStored(s, 1) // the timer
	})
}

// A recurring job whose first timer could not be stored ticks as soon as it can.
func TestRecurringJobWhoseTimerIsRefused(t *testing.T) {
	tell(t, func(s *story) {
		k := newTicker()
		s.dispatch(k.config())
		limit := func(size int32) {
			s.edit("ASYNC_default", func(c *jetstream.StreamConfig) { c.MaxMsgSize = size })
		}
		repeat(s, "early", "* * * * *", ticking.Call("x"), asyncnats.RecurringConfig{})
		time.Sleep(time.Second)
		limit(1)
		repeat(s, "pulse", "* * * * *", ticking.Call("x"), asyncnats.RecurringConfig{})
		time.Sleep(10 * time.Second)
		limit(-1)
		time.Sleep(2 * time.Minute)
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, name := range []string{"early", "pulse"} {
			for i := 1; i <= 2; i++ {
				id := job.ID("cron/" + name + "/" + strconv.FormatInt(midnight.Add(time.Duration(i)*time.Minute).Unix(), 10))
				if len(k.runs[id]) != 1 {
					s.Errorf("tick %d of %s ran %d times, want once", i, name, len(k.runs[id]))
				}
			}
		}
	})
}

// Dispatchers that die all the time, in the middle of whatever they do, lose no
// tick, and none is run twice but that they die while they run it.
func TestRecurringJobOutlivesDispatchers(t *testing.T) {
	tell(t, func(s *story) {
		k := newTicker()
		repeat(s, "pulse", "@every 2s", ticking.Call("x"), asyncnats.RecurringConfig{})
		created := recurring(s).Created.Truncate(time.Second)
		for i := range 20 {
			doomed := s.dispatch(k.config())
			time.Sleep(2*time.Second + time.Duration(i*137)*time.Millisecond)
			doomed.wire.Cut()
		}
		s.dispatch(k.config())
		time.Sleep(time.Minute)
		n := int(time.Since(created) / (2 * time.Second))
		k.mu.Lock()
		defer k.mu.Unlock()
		for i := 1; i < n; i++ {
			id := job.ID("cron/pulse/" + strconv.FormatInt(created.Add(time.Duration(2*i)*time.Second).Unix(), 10))
			if runs := k.runs[id]; len(runs) == 0 || len(runs) > 2 {
				s.Errorf("tick %d ran at %v", i, runs)
			}
		}
	})
}

func TestRecurringJobThatMissedTicks(t *testing.T) {
	for missed, want := range map[stream.Missed]int{stream.MissedLast: 1, stream.MissedNone: 0, stream.MissedAll: 5} {
		t.Run("missed "+string(missed), func(t *testing.T) {
			tell(t, func(s *story) {
				k := newTicker()
				repeat(s, "hourly", "@hourly", ticking.Call("x"), asyncnats.RecurringConfig{Missed: missed})
				time.Sleep(5*time.Hour + 30*time.Minute)
				s.dispatch(k.config())
				time.Sleep(10 * time.Second)
				if got := k.count(); got != want {
					s.Errorf("%d ticks made up for, want %d", got, want)
				}
				if _, ran := k.runs["cron/hourly/"+job.ID(strconv.FormatInt(midnight.Add(5*time.Hour).Unix(), 10))]; want > 0 && !ran {
					s.Error("the last tick was not made up for")
				}
				time.Sleep(time.Hour)
				if got := k.count(); got != want+1 {
					s.Errorf("%d ticks after the next, want %d", got, want+1)
				}
			})
		})
	}
}

func TestRecurringJobIsPausedAndRemoved(t *testing.T) {
	tell(t, func(s *story) {
		k := newTicker()
		s.dispatch(k.config())
		repeat(s, "pulse", "* * * * *", ticking.Call("x"), asyncnats.RecurringConfig{})
		after := func(what string, minutes, want int) {
			s.Helper()
			time.Sleep(time.Duration(minutes) * time.Minute)
			if got := k.count(); got != want {
				s.Errorf("%s: %d jobs, want %d", what, got, want)
			}
		}
		try := func(err error) {
			s.Helper()
			if err != nil {
				s.Fatal(err)
			}
		}
		time.Sleep(30 * time.Second)
		after("begun", 3, 3)
		try(s.queue.PauseRecurring(s.Context(), "pulse"))
		if !recurring(s).Paused {
			s.Error("is not shown as paused")
		}
		after("paused", 3, 3)
		j, err := s.queue.RunRecurring(s.Context(), "pulse")
		try(err)
		wait(s, j)
		after("run", 0, 4)
		try(s.queue.ResumeRecurring(s.Context(), "pulse"))
		after("resumed", 3, 7)
		repeat(s, "pulse", "*/2 * * * *", ticking.Call("x"), asyncnats.RecurringConfig{})
		after("replaced", 4, 9)
		try(s.queue.RemoveRecurring(s.Context(), "pulse"))
		after("removed", 10, 9)
		if err := s.queue.RemoveRecurring(s.Context(), "pulse"); !errors.Is(err, asyncnats.ErrNoRecurring) {
			s.Errorf("removed again: %v", err)
		}
		for id, runs := range k.runs {
			if len(runs) != 1 {
				s.Errorf("%s ran %d times", id, len(runs))
			}
		}
		wantStored(s, 0)
	})
}

// A recurring job that is replaced again and again, around its ticks, has one job
// for each.
func TestRecurringJobIsReplaced(t *testing.T) {
	tell(t, func(s *story) {
		k := newTicker()
		for range 2 {
			s.dispatch(k.config())
		}
		for i := range 60 {
			repeat(s, "pulse", "*/10 * * * * *", ticking.Call(fmt.Sprint(i)), asyncnats.RecurringConfig{})
			time.Sleep(1700 * time.Millisecond)
		}
		time.Sleep(time.Second)
		for id, runs := range k.runs {
			if len(runs) != 1 {
				s.Errorf("%s ran %d times", id, len(runs))
			}
		}
		if n := k.count(); n != 10 {
			s.Errorf("%d ticks, want 10", n)
		}
		time.Sleep(12 * time.Second)
		wantStored(s, 1) // of all the chains one goes on
	})
}

func TestRecurringJobAlone(t *testing.T) {
	tell(t, func(s *story) {
		k := newTicker()
		k.take = 2*time.Minute + 30*time.Second
		s.dispatch(k.config())
		time.Sleep(time.Second)
		repeat(s, "slow", "* * * * *", ticking.Call("x"), asyncnats.RecurringConfig{Alone: true})
		time.Sleep(10 * time.Minute)
		if n := k.count(); n != 4 { // at 1, 4, 7 and 10 minutes
			s.Errorf("%d ticks ran, want 4: %v", n, k.runs)
		}
	})
}

// The deadline of each job counts from its tick.
func TestRecurringJobWithin(t *testing.T) {
	tell(t, func(s *story) {
		s.bystander()
		time.Sleep(time.Second)
		repeat(s, "late", "@hourly", ticking.Call("x").Within(time.Minute), asyncnats.RecurringConfig{})
		time.Sleep(3*time.Hour + 5*time.Minute)
		jobs, err := s.queue.Jobs(s.Context(), 10)
		if err != nil || len(jobs) != 3 {
			s.Fatalf("%d jobs, %v", len(jobs), err)
		}
		for _, status := range jobs {
			if status.Record == nil || !status.Record.EndedAs(job.KindExpired) {
				s.Errorf("%+v, want it expired", status)
			}
		}
	})
}

func TestRepeatRefuses(t *testing.T) {
	tell(t, func(s *story) {
		for want, call := range map[string]asyncnats.Call[asyncnats.None]{
			"neither an ID": ticking.Call("x").ID("mine"),
			"nor a time":    ticking.Call("x").In(time.Hour),
			"or a key":      ticking.Call("x").Unique("mine"),
			"replaces none": ticking.Call("x").Replace(),
			"gpu":           ticking.Call("x").Quota("gpu"),
		} {
			err := asyncnats.Repeat(s.Context(), s.queue, "a", "@hourly", call, asyncnats.RecurringConfig{})
			if err == nil || !strings.Contains(err.Error(), want) {
				s.Errorf("%v, want it to say %s", err, want)
			}
		}
		err := asyncnats.Repeat(s.Context(), s.queue, "a", "every day", ticking.Call("x"), asyncnats.RecurringConfig{})
		if err == nil || !strings.Contains(err.Error(), `"30 3 * * MON-FRI"`) {
			s.Errorf("%v, want an example", err)
		}
		large := ticking.Call(strings.Repeat("x", 900<<10))
		err = asyncnats.Repeat(s.Context(), s.queue, "a", "@hourly", large, asyncnats.RecurringConfig{})
		if !errors.Is(err, asyncnats.ErrTooLarge) {
			s.Errorf("%v, want that it is too large", err)
		}
		if list, err := s.queue.Recurring(s.Context()); err != nil || len(list) != 0 {
			s.Errorf("stored: %v, %v", list, err)
		}
		if j, err := s.queue.RunRecurring(s.Context(), "a"); j != nil || !errors.Is(err, asyncnats.ErrNoRecurring) {
			s.Errorf("run: %v, %v", j, err)
		}
	})
}
