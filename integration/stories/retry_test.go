package stories

import (
	"context"
	"errors"
	"io/fs"
	"math"
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

// player performs a task as its script says: one line for each attempt, the
// last for all that follow.
type player struct {
	task   asyncnats.Task[string, string]
	mu     sync.Mutex
	script []error
	infos  []job.Info
	starts []time.Time
}

func newPlayer(script ...error) *player {
	return &player{task: asyncnats.Define[string, string]("story.player"), script: script}
}

func (p *player) handler() job.Handler {
	return p.task.Handle(func(ctx context.Context, arg string) (string, error) {
		info, _ := job.FromContext(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		line := p.script[min(len(p.starts), len(p.script)-1)]
		p.starts = append(p.starts, time.Now())
		p.infos = append(p.infos, info)
		return arg, line
	})
}

// after lists when the attempts began, since the given time.
func (p *player) after(begin time.Time) []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var after []time.Duration
	for _, start := range p.starts {
		after = append(after, start.Sub(begin))
	}
	return after
}

// wantAfter checks that attempts began when they were due, or at most so much later.
func (p *player) wantAfter(s *story, begin time.Time, tolerance time.Duration, want ...time.Duration) {
	s.Helper()
	got := p.after(begin)
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && got[i] >= want[i] && got[i] <= want[i]+tolerance
	}
	if !ok {
		s.Errorf("attempts began after %v, want %v, or up to %v later each", got, want, tolerance)
	}
}

// prompt is how late a job may begin in fake time: what is due is rounded by
// timers only.
const prompt = 5 * time.Millisecond

var errBroken = errors.New("broken")

func TestRetries(t *testing.T) {
	exact := job.Retry{Max: 4, Min: time.Second, Jitter: -1}
	for name, row := range map[string]struct {
		script   []error
		retry    job.Retry
		within   time.Duration
		attempts []time.Duration // when they begin
		fails    string          // with what, "" for not at all
		kind     job.Kind
		tally    job.Tally
		past     int
	}{
		"not readable":       {script: []error{(*fs.PathError)(nil)}, attempts: []time.Duration{0}, fails: "*fs.PathError, cannot be read", kind: job.KindPanic, tally: job.Tally{Errors: 1}},
		"a Failure of nil":   {script: []error{(*job.Failure)(nil)}, attempts: []time.Duration{0}, fails: "*job.Failure, cannot be read", kind: job.KindPanic, tally: job.Tally{Errors: 1}},
		"no policy":          {script: []error{errBroken}, attempts: []time.Duration{0}, fails: "broken", tally: job.Tally{Errors: 1}},
		"in the end it does": {script: []error{errBroken, errBroken, errBroken, nil}, retry: exact, attempts: []time.Duration{0, 1e9, 3e9, 7e9}, tally: job.Tally{Errors: 3}, past: 3},
		"exhausted":          {script: []error{errBroken}, retry: exact, attempts: []time.Duration{0, 1e9, 3e9, 7e9, 15e9}, fails: "broken", tally: job.Tally{Errors: 5}, past: 4},
		"permanent":          {script: []error{errBroken, job.Permanent(errBroken)}, retry: exact, attempts: []time.Duration{0, 1e9}, fails: "broken", tally: job.Tally{Errors: 2}, past: 1},
		"retry after":        {script: []error{job.RetryAfter(time.Hour, errBroken), nil}, attempts: []time.Duration{0, 3600e9}, tally: job.Tally{Errors: 1}, past: 1},
		"retry at once":      {script: []error{job.RetryAfter(0, errBroken), nil}, attempts: []time.Duration{0, 0}, tally: job.Tally{Errors: 1}, past: 1},
		"snooze":             {script: []error{job.Snooze(time.Minute), job.Snooze(time.Minute), nil}, attempts: []time.Duration{0, 60e9, 120e9}, tally: job.Tally{Snoozes: 2}},
		"snooze and error":   {script: []error{job.Snooze(time.Minute), errBroken, job.Snooze(time.Minute), nil}, retry: exact, attempts: []time.Duration{0, 60e9, 61e9, 121e9}, tally: job.Tally{Snoozes: 2, Errors: 1}, past: 1},
		"snooze, never":      {script: []error{job.Snooze(time.Minute), errBroken}, retry: job.Retry{Never: true}, attempts: []time.Duration{0, 60e9}, fails: "broken", tally: job.Tally{Snoozes: 1, Errors: 1}},
		"till its deadline":  {script: []error{errBroken}, retry: exact, within: 5 * time.Second, attempts: []time.Duration{0, 1e9, 3e9}, fails: "broken", tally: job.Tally{Errors: 3}, past: 2},
		"snooze past it":     {script: []error{job.Snooze(time.Hour)}, within: time.Minute, attempts: []time.Duration{0}, fails: "not run again before its deadline", kind: job.KindExpired, tally: job.Tally{Snoozes: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				p := newPlayer(row.script...)
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				time.Sleep(time.Second)
				begin := time.Now()
				j := put(s, p.task.Call("x").Retry(row.retry).Within(row.within))
				_, err := j.Wait(s.Context())
				if row.fails == "" && err != nil || row.fails != "" && (err == nil || !strings.Contains(err.Error(), row.fails)) {
					s.Errorf("ended with %v, want %q", err, row.fails)
				}
				p.wantAfter(s, begin, prompt, row.attempts...)
				r := record(s, j)
				if r.Attempt.Number != len(row.attempts) || r.Tally != row.tally || len(r.Past) != row.past {
					s.Errorf("record of attempt %d, %+v, %d past failures", r.Attempt.Number, r.Tally, len(r.Past))
				}
				if !r.Put.Equal(begin) {
					s.Errorf("put %v after it was", r.Put.Sub(begin))
				}
				for i, f := range r.Past {
					if f.Kind != job.KindError || f.Message != "broken" || f.Attempt == 0 || f.Dispatcher == "" || i > 0 && f.Attempt <= r.Past[i-1].Attempt {
						s.Errorf("past failure %d: %+v", i, f)
					}
				}
				if f := r.Outcome.Failure; f != nil && (f.Attempt != len(row.attempts) || row.kind != "" && f.Kind != row.kind) {
					s.Errorf("failure %+v", f)
				}
				for i, info := range p.infos {
					if info.Attempt != i+1 || info.Errors+info.Snoozes > i {
						s.Errorf("attempt %d sees %+v", i+1, info)
					}
				}
				time.Sleep(5 * time.Minute)
				if n := len(p.after(begin)); n != len(row.attempts) {
					s.Errorf("began %d times in the end", n)
				}
				s.wantEmpty()
			})
		})
	}
}

// wantEmpty checks that no message of a job is left in the queue.
func (s *story) wantEmpty() {
	s.Helper()
	info, err := s.queue.Info(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if info.Messages > 0 {
		s.Errorf("%d messages are left in the queue", info.Messages)
	}
}

// An interruption is no error, nor the other way round, and both survive it.
func TestCountersAreApart(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(errBroken, errBroken, nil)
		hang := newPatient()
		hang.first.Store(false)
		first := true
		var mu sync.Mutex
		stuck := make(chan struct{})
		task := asyncnats.Define[string, string]("story.player")
		handler := task.Handle(func(ctx context.Context, arg string) (string, error) {
			info, _ := job.FromContext(ctx)
			mu.Lock()
			hangs := first && info.Errors == 1
			first = first && !hangs
			mu.Unlock()
			if hangs {
				close(stuck)
				<-ctx.Done()
				return "", context.Cause(ctx)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			line := p.script[len(p.starts)]
			p.starts, p.infos = append(p.starts, time.Now()), append(p.infos, info)
			return arg, line
		})
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}})
		j := put(s, task.Call("x").Retry(job.Retry{Max: 2, Interrupts: 1, Jitter: -1}))
		<-stuck
		d.wire.Cut() // its lease is lost: that is an interruption
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}})
		if got := wait(s, j); got != "x" {
			s.Errorf("got %q", got)
		}
		if r := record(s, j); r.Tally != (job.Tally{Errors: 2, Interrupts: 1}) || r.Attempt.Number != 4 {
			s.Errorf("attempt %d, %+v", r.Attempt.Number, r.Tally)
		}
		var seen []job.Tally
		for _, info := range p.infos {
			seen = append(seen, info.Tally)
		}
		if diff := cmp.Diff([]job.Tally{{}, {Errors: 1, Interrupts: 1}, {Errors: 2, Interrupts: 1}}, seen); diff != "" {
			s.Errorf("handlers saw (-want +got):\n%s", diff)
		}
	})
}

// A job that rests until its retry holds no place and no slot; one that is to
// run again at once comes before those that wait, and keeps them (FEATURES 167).
func TestRestingHoldsNothing(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
			s.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		task := asyncnats.Define[string, string]("story.player")
		handler := task.Handle(func(ctx context.Context, arg string) (string, error) {
			info, _ := job.FromContext(ctx)
			mu.Lock()
			order = append(order, arg)
			mu.Unlock()
			time.Sleep(time.Second)
			if info.Attempt == 1 {
				switch arg {
				case "rests":
					return "", job.RetryAfter(time.Minute, errBroken)
				case "hurries":
					return "", job.RetryAfter(0, errBroken)
				}
			}
			return arg, nil
		})
		var jobs []*asyncnats.Job[string]
		for _, arg := range []string{"rests", "hurries", "a", "b"} {
			jobs = append(jobs, put(s, task.Call(arg).Quota("one")))
		}
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}, Agents: []agents.Agent{{Name: "main", Size: 2}}})
		for _, j := range jobs {
			wait(s, j)
		}
		if want := []string{"rests", "hurries", "hurries", "a", "b", "rests"}; !slices.Equal(order, want) {
			s.Errorf("ran %q, want %q", order, want)
		}
		if quota, err := s.queue.Quota(s.Context(), "one"); err != nil || len(quota.Holders)+len(quota.Waiters) > 0 {
			s.Errorf("left %+v, %v", quota.Slots, err)
		}
	})
}

// Between two attempts a job says when it is due, and that others may read.
func TestRetryingIsShown(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(job.RetryAfter(time.Hour, errBroken), nil)
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		j := put(s, p.task.Call("x"))
		awaitFake(s, func() bool { return len(p.after(time.Time{})) == 1 })
		time.Sleep(time.Second)
		status, err := j.Status(s.Context())
		if err != nil || status.State != job.Retrying || status.Record == nil || status.Record.Errors != 1 {
			s.Fatalf("status %+v, %v", status, err)
		}
		if wait := time.Until(status.Due); wait < 59*time.Minute || wait > time.Hour {
			s.Errorf("due in %v", wait)
		}
		listed, err := s.queue.Jobs(s.Context(), 10, job.Retrying)
		if err != nil || len(listed) != 1 || listed[0].ID != j.ID() || listed[0].State != job.Retrying || !listed[0].Due.Equal(status.Due) {
			s.Errorf("listed %+v, %v", listed, err)
		}
		if listed, err := s.queue.Jobs(s.Context(), 10, job.Pending); err != nil || len(listed) != 0 {
			s.Errorf("listed as pending %+v, %v", listed, err)
		}
		if !d.log.Contains("level=WARN", "job failed, will be tried again", "errors=1", "err=broken", string(j.ID())) {
			s.Error("the retry was not logged")
		}
		wait(s, j)
	})
}

// A job that is to rest for longer than the server can count does not run again at once.
func TestSnoozeForAges(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(job.Snooze(math.MaxInt64))
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		j := put(s, p.task.Call("x"))
		time.Sleep(time.Minute)
		status, err := j.Status(s.Context())
		if err != nil || status.State != job.Retrying || time.Until(status.Due) < job.MaxDelay-time.Hour {
			s.Errorf("status %+v, %v", status, err)
		}
		if n := len(p.after(time.Time{})); n != 1 {
			s.Errorf("began %d times", n)
		}
	})
}
