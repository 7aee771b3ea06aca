package stories

import (
	"context"
	"errors"
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

type order struct {
	Customer string `json:"customer"`
	Items    int    `json:"items"`
}

// A second job of the same key is refused with the handle of the first until that
// is over, however it ends; jobs of other keys and of other tasks are no concern
// of it.
func TestUnique(t *testing.T) {
	ship := asyncnats.Define[order, string]("order.ship").UniqueBy(func(o order) any { return o.Customer })
	bill := asyncnats.Define[order, string]("order.bill").UniqueBy(func(o order) any { return o.Customer })
	tell(t, func(s *story) {
		first := put(s, ship.Call(order{"ada", 1}))
		holder, err := asyncnats.Put(s.Context(), s.queue, ship.Call(order{"ada", 2}))
		if !errors.Is(err, asyncnats.ErrExists) || holder == nil || holder.ID() != first.ID() {
			s.Errorf("the second: %v, %v", holder, err)
		}
		put(s, ship.Call(order{"bob", 1}))
		put(s, bill.Call(order{"ada", 1}))
		if _, err := asyncnats.Put(s.Context(), s.queue, bill.Call(order{}).ID("mine")); err == nil || !strings.Contains(err.Error(), "has an ID of its own") {
			s.Errorf("with an ID: %v", err)
		}
		if _, err := first.Cancel(s.Context()); err != nil {
			s.Fatal(err)
		}
		put(s, ship.Call(order{"ada", 3}))
		byKey := asyncnats.Define[string, string]("note.send")
		for _, key := range []string{"", "a", "with space", "straße", strings.Repeat("x", 1000), "a/b", "a.b"} {
			put(s, byKey.Call("").Unique(key))
			if _, err := asyncnats.Put(s.Context(), s.queue, byKey.Call("").Unique(key)); !errors.Is(err, asyncnats.ErrExists) {
				s.Errorf("key %.20q: %v", key, err)
			}
		}
		long := asyncnats.Define[string, string](strings.Repeat("x", 128))
		put(s, long.Call("").Unique("key"))
		if _, err := asyncnats.Put(s.Context(), s.queue, long.Call("").Unique("key")); !errors.Is(err, asyncnats.ErrExists) {
			s.Errorf("of a task with a long name: %v", err)
		}
	})
}

// A job takes the place of one that was not given out, pending or scheduled, in
// whatever lane; not of one that was.
func TestReplace(t *testing.T) {
	task := asyncnats.Define[string, string]("story.player")
	type call = asyncnats.Call[string]
	in := func(d time.Duration) func(call) call { return func(c call) call { return c.In(d) } }
	quota := func(c call) call { return c.Quota("one") }
	plain := func(c call) call { return c }
	for name, row := range map[string]struct {
		old, next func(call) call
		after     time.Duration
	}{
		"pending by pending":            {plain, plain, 0},
		"pending by scheduled":          {plain, in(time.Minute), time.Minute},
		"scheduled by pending":          {in(time.Hour), plain, 0},
		"scheduled by scheduled":        {in(time.Hour), in(time.Minute), time.Minute},
		"scheduled by later":            {in(time.Minute), in(2 * time.Minute), 2 * time.Minute},
		"pending by another lane":       {plain, quota, 0},
		"scheduled by another lane":     {in(time.Hour), quota, 0},
		"scheduled by another, later":   {in(time.Minute), func(c call) call { return quota(in(2 * time.Minute)(c)) }, 2 * time.Minute},
		"of another lane, by scheduled": {quota, in(time.Minute), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
					s.Fatal(err)
				}
				old := put(s, row.old(task.Call("old").ID("me")))
				begin := time.Now()
				next := put(s, row.next(task.Call("next").ID("me")).Replace())
				if info, err := s.queue.Info(s.Context()); err != nil || info.Messages != 1 {
					s.Errorf("%d messages, %v", info.Messages, err)
				}
				p := newPlayer(nil)
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				if got := wait(s, next); got != "next" {
					s.Errorf("got %q", got)
				}
				time.Sleep(5 * time.Minute)
				if got := p.after(begin); len(got) != 1 || got[0] < row.after || got[0] > row.after+time.Second {
					s.Errorf("ran after %v", got)
				}
				if _, err := old.Wait(s.Context()); !errors.Is(err, asyncnats.ErrOutcomeNotKept) {
					s.Errorf("who waits for the old one is told %v", err)
				}
				put(s, task.Call("new").ID("me").Replace()) // nobody has it
			})
		})
	}
	t.Run("refused", func(t *testing.T) {
		tell(t, func(s *story) {
			p := newPatient()
			s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}, Agents: []agents.Agent{{Name: "main", Size: 1}}})
			running := put(s, p.task.Call(asyncnats.None{}).ID("me"))
			awaitFake(s, func() bool { return p.starts.Load() == 1 })
			holder, err := asyncnats.Put(s.Context(), s.queue, p.task.Call(asyncnats.None{}).ID("me").Replace())
			if !errors.Is(err, asyncnats.ErrExists) || holder.ID() != running.ID() {
				s.Errorf("of a running job: %v, %v", holder, err)
			}
			if _, err := asyncnats.Put(s.Context(), s.queue, p.task.Call(asyncnats.None{}).Replace()); err == nil || !strings.Contains(err.Error(), "only by its ID") {
				s.Errorf("without an ID: %v", err)
			}
			if _, err := asyncnats.PutMany(s.Context(), s.queue, p.task.Call(asyncnats.None{}).ID("you").Replace()); err == nil || !strings.Contains(err.Error(), "by itself") {
				s.Errorf("of many: %v", err)
			}
		})
	})
}

// Where the lane of the job to be replaced goes on too soon, the put says that this may be
// performed, beside the job that is stored.
func TestReplaceTooLate(t *testing.T) {
	tell(t, func(s *story) {
		put(s, shout.Call("old").ID("me"))
		if err := s.queue.Pause(s.Context(), ""); err != nil {
			s.Fatal(err)
		}
		var starts atomic.Int64
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(_ context.Context, text string) (string, error) {
			starts.Add(1)
			time.Sleep(time.Minute)
			return text, nil
		})}})
		time.Sleep(time.Second)
		nc := s.server.Connect(s.T)
		ask := func(subject string, data []byte) *nats.Msg {
			answer, err := nc.Request(strings.Replace(subject, "."+relayed+".", ".", 1), data, time.Second)
			if err != nil {
				s.Error(err)
			}
			return answer
		}
		rests, late := "", false // the subject of its pause
		queue := s.through(func(request *nats.Msg) bool {
			if strings.Contains(request.Subject, ".CONSUMER.PAUSE.") {
				rests = request.Subject
			}
			if rests == "" || late || !strings.Contains(request.Subject, ".CONSUMER.INFO.") {
				return false
			}
			late = true
			look := ask(request.Subject, request.Data)
			ask(rests, []byte("{}"))
			if err := s.queue.Resume(s.Context(), ""); err != nil {
				s.Error(err)
			}
			time.Sleep(time.Second)
			return request.Respond(look.Data) == nil
		})
		next, err := asyncnats.Put(s.Context(), queue, shout.Call("next").ID("me").Replace())
		if !errors.Is(err, asyncnats.ErrAssigned) || next == nil {
			s.Fatalf("%v, %v", next, err)
		}
		if got := wait(s, next); got != "next" {
			s.Errorf("got %q", got)
		}
		if n := starts.Load(); n != 2 {
			s.Errorf("%d were performed", n)
		}
	})
}

// A job that takes the place of another has its own deadline, where nobody takes
// it, and nothing is left of the other: neither its deadline nor its record.
func TestReplacedLeavesNothing(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(job.RetryAfter(time.Hour, errBroken))
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		put(s, p.task.Call("old").ID("me").Within(2*time.Hour))
		awaitFake(s, func() bool { return len(p.after(time.Time{})) == 1 })
		time.Sleep(time.Second)
		d.stop()
		s.bystander()
		begin := time.Now()
		next := put(s, p.task.Call("next").ID("me").Within(time.Minute).Replace())
		wantStored(s, 2) // the job, and the timer of its deadline
		if status, err := next.Status(s.Context()); err != nil || status.State != job.Pending || status.Record != nil {
			s.Errorf("status %+v, %v", status, err)
		}
		if _, _, found, err := openQueue(s).Record(s.Context(), "me"); err != nil || found {
			s.Errorf("the other's record is there: %t, %v", found, err)
		}
		wantExpired(s, next, begin.Add(time.Minute), "not begun before its deadline")
		wantEmpty(s)
	})
}

// However often it is put, a debounced job runs once, when it was quiet for long
// enough, with the last argument.
func TestDebounce(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(nil)
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		var last *asyncnats.Job[string]
		var quiet time.Time
		for i := range 20 {
			last = put(s, p.task.Call(string(rune('a'+i))).Unique("x").Debounce(time.Second))
			quiet = time.Now()
			time.Sleep([]time.Duration{0, 400 * time.Millisecond, 990 * time.Millisecond}[i%3])
		}
		if got := wait(s, last); got != "t" {
			s.Errorf("got %q", got)
		}
		p.wantAfter(s, quiet, 300*time.Millisecond, time.Second)
	})
}

// Of those who replace one job at once one has the last word, and no more than
// that job runs.
func TestReplaceTogether(t *testing.T) {
	tell(t, func(s *story) {
		p := newPlayer(nil)
		var puts sync.WaitGroup
		for range 20 {
			puts.Go(func() {
				if _, err := asyncnats.Put(s.Context(), s.queue, p.task.Call("x").Unique("x").Debounce(time.Minute)); err != nil {
					s.Error(err)
				}
			})
		}
		puts.Wait()
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		time.Sleep(2 * time.Minute)
		if n := len(p.after(time.Time{})); n != 1 {
			s.Errorf("%d jobs ran", n)
		}
		s.wantEmpty()
	})
}
