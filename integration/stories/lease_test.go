package stories

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

const ackWait = 15 * time.Second // the default

// patient runs until its context ends where first is set and not yet taken,
// and at once otherwise, and tells causes why its context ended.
type patient struct {
	task   asyncnats.Task[asyncnats.None, string]
	first  atomic.Bool
	starts atomic.Int32
	causes chan error
}

func newPatient() *patient {
	p := &patient{task: asyncnats.Define[asyncnats.None, string]("story.patient"), causes: make(chan error, 10)}
	p.first.Store(true)
	return p
}

func (p *patient) handler() job.Handler {
	return p.task.Handle(func(ctx context.Context, _ asyncnats.None) (string, error) {
		p.starts.Add(1)
		if p.first.CompareAndSwap(true, false) {
			<-ctx.Done()
			p.causes <- context.Cause(ctx)
			return "late", nil // it does not even notice
		}
		info, _ := job.FromContext(ctx)
		return info.Dispatcher, nil
	})
}

// A worker that is cut off from the server is told that its lease is lost
// before the job starts elsewhere, and what it returns is dropped.
func TestLeaseIsLostBeforeTheJobStartsElsewhere(t *testing.T) {
	for name, sever := range map[string]func(*staff){
		"wire cut":    func(d *staff) { d.wire.Cut() },
		"wire frozen": func(d *staff) { d.wire.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				p := newPatient()
				isolated := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
				j := put(s, p.task.Call(asyncnats.None{}))
				awaitFake(s, func() bool { return p.starts.Load() == 1 })
				sever(isolated)
				heir := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})

				cause := <-p.causes
				if !errors.Is(cause, job.ErrLeaseLost) {
					s.Errorf("context ended with %v", cause)
				}
				if n := p.starts.Load(); n != 1 {
					s.Errorf("the job had started elsewhere (%d starts) when the lease was lost", n)
				}
				if got := wait(s, j); got != heir.UUID() {
					s.Errorf("job ended by %q, want the heir", got)
				}
				before := record(s, j)
				isolated.wire.Restore()
				isolated.wire.Thaw()
				time.Sleep(time.Minute)
				if after := record(s, j); after.Attempt != before.Attempt {
					s.Errorf("a late outcome was recorded: %+v", after)
				}
				if !isolated.log.Contains("outcome dropped", string(j.ID())) {
					s.Error("the refusal was not logged")
				}
			})
		})
	}
}

// A wire that is cut for less than the lease costs nothing.
func TestShortCutDuringWork(t *testing.T) {
	tell(t, func(s *story) {
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{nap.Handle(func(_ context.Context, d time.Duration) (asyncnats.None, error) {
			time.Sleep(d)
			return asyncnats.None{}, nil
		})}})
		j := put(s, nap.Call(6*time.Second))
		time.Sleep(time.Second)
		d.wire.Cut()
		time.Sleep(7 * time.Second) // the job ends meanwhile
		d.wire.Restore()
		wait(s, j)
		if r := record(s, j); r.Attempt.Number != 1 || r.Attempt.Dispatcher != d.UUID() {
			s.Errorf("record %+v: want the first attempt", r)
		}
	})
}

// Nothing is lost over a restart of the server with jobs pending and running.
func TestServerRestarts(t *testing.T) {
	tell(t, func(s *story) {
		var runs atomic.Int32
		s.dispatch(dispatcher.Config{
			Agents: []agents.Agent{{Name: "main", Size: 10}},
			Handlers: []job.Handler{nap.Handle(func(_ context.Context, d time.Duration) (asyncnats.None, error) {
				runs.Add(1)
				time.Sleep(d)
				return asyncnats.None{}, nil
			})},
		})
		var jobs []*asyncnats.Job[asyncnats.None]
		for range 50 {
			jobs = append(jobs, put(s, nap.Call(time.Second)))
		}
		time.Sleep(1500 * time.Millisecond)
		s.server.Stop()
		time.Sleep(4 * time.Second)
		s.server.Restart(s.T)
		for _, j := range jobs {
			wait(s, j)
		}
		if n := runs.Load(); n < 50 || n > 70 {
			s.Errorf("50 jobs were started %d times", n)
		}
	})
}

// A job that is handed back over a wire that does not move is left alone when it
// moves again: by then another has it.
func TestLateHandBackTakesNothing(t *testing.T) {
	for name, strand := range map[string]func(*story, *site) (stranded *staff){
		"of a job that was begun": func(s *story, w *site) *staff {
			c := w.staff(1)
			c.Grace = -1
			first := s.dispatch(c)
			put(s, paint.Call(stint{Name: "job"}))
			awaitFake(s, func() bool { return len(w.begun()) == 1 })
			second := s.dispatch(c)
			first.stop() // so that the next attempt has a record when it must stop
			awaitFake(s, func() bool { return len(w.begun()) == 2 })
			moment()
			second.wire.Freeze()
			second.stop()
			return second
		},
		"of one that found no place": func(s *story, w *site) *staff {
			d := s.dispatch(w.staff(1))
			stints(s, carve, nil, "opens-the-lane")
			stints(s, paint, nil, "opens-the-other")
			w.finish("opens-the-lane", "opens-the-other")
			put(s, carve.Call(stint{Name: "fills"})) // and its pull from the other lane lingers
			put(s, paint.Call(stint{Name: "job"}))
			time.Sleep(10 * time.Millisecond)
			d.wire.Freeze()
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				w := s.site()
				stranded := strand(s, w)
				time.Sleep(ackWait - time.Second)
				heir := s.dispatch(w.staff(3))
				attempts := func() (list []turn) {
					for _, turn := range w.seen() {
						if turn.name == "job" && turn.Dispatcher == heir.UUID() {
							list = append(list, turn)
						}
					}
					return list
				}
				awaitFake(s, func() bool { return len(attempts()) == 1 })
				moment()
				stranded.wire.Thaw()
				time.Sleep(ackWait)
				if list := attempts(); len(list) != 1 || list[0].cause != nil {
					s.Errorf("attempts of the heir: %+v", list)
				}
			})
		})
	}
}

// A job that kills its workers ends as aborted, after as many interruptions
// as its policy allows.
func TestInterruptsAreCounted(t *testing.T) {
	for name, row := range map[string]struct {
		retry  job.Retry
		starts int // of which the first leaves no trace, unless it is the only one
	}{
		"at most once":       {job.Retry{Never: true}, 1},
		"one interrupt more": {job.Retry{Interrupts: 1}, 3},
		"the default":        {job.Retry{}, 11},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				var begun atomic.Int32
				crash := asyncnats.Define[asyncnats.None, asyncnats.None]("story.crash")
				d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{crash.Handle(func(ctx context.Context, _ asyncnats.None) (asyncnats.None, error) {
					begun.Add(1)
					<-ctx.Done()
					return asyncnats.None{}, context.Cause(ctx)
				})}})
				j := put(s, crash.Call(asyncnats.None{}).Retry(row.retry))
				for range row.starts {
					n := begun.Load()
					awaitFake(s, func() bool { return begun.Load() > n || n == 0 && begun.Load() > 0 })
					d.wire.Freeze() // longer than the lease: as good as a crash
					time.Sleep(ackWait)
					d.wire.Thaw()
				}
				_, err := j.Wait(s.Context())
				if !errors.Is(err, job.ErrAborted) {
					s.Fatalf("got %v, want aborted", err)
				}
				if n := int(begun.Load()); n != row.starts {
					s.Errorf("started %d times, want %d", n, row.starts)
				}
			})
		})
	}
}

// A stopping dispatcher whose handlers do not return leaves them behind, and
// their jobs go on elsewhere at once.
func TestStubbornHandlerIsLeftBehind(t *testing.T) {
	tell(t, func(s *story) {
		release := make(chan struct{})
		var starts atomic.Int32
		stuck := asyncnats.Define[asyncnats.None, string]("story.stuck")
		handler := stuck.Handle(func(ctx context.Context, _ asyncnats.None) (string, error) {
			if starts.Add(1) == 1 {
				<-release
			}
			info, _ := job.FromContext(ctx)
			return info.Dispatcher, nil
		})
		first := s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}, Grace: time.Second})
		j := put(s, stuck.Call(asyncnats.None{}))
		awaitFake(s, func() bool { return starts.Load() == 1 })
		began := time.Now()
		first.stop()
		if took := time.Since(began); took > 3*time.Second {
			s.Errorf("stop took %v", took)
		}
		second := s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}})
		if got := wait(s, j); got != second.UUID() {
			s.Errorf("job ended by %q, want the second dispatcher", got)
		}
		if took := time.Since(began); took > 4*time.Second {
			s.Errorf("it took %v until the job was done elsewhere", took)
		}
		close(release)
		time.Sleep(time.Second)
		if r := record(s, j); r.Interrupts != 1 || r.Attempt.Dispatcher != second.UUID() {
			s.Errorf("record %+v", r)
		}
	})
}

// A dispatcher whose connection is closed for good ends, and says so; its jobs
// go on elsewhere.
func TestClosedConnection(t *testing.T) {
	tell(t, func(s *story) {
		p := newPatient()
		nc := s.server.Connect(s.T)
		d, err := dispatcher.New(nc, dispatcher.Config{UUID: uuid.New(), Handlers: []job.Handler{p.handler()}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			s.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- d.Run(s.Context()) }()
		j := put(s, p.task.Call(asyncnats.None{}))
		awaitFake(s, func() bool { return p.starts.Load() == 1 })
		nc.Close()
		began := time.Now()
		if err := <-ended; !errors.Is(err, nats.ErrConnectionClosed) {
			s.Errorf("run ended with %v", err)
		}
		if took := time.Since(began); took > 3*time.Second {
			s.Errorf("it took %v", took)
		}
		if cause := <-p.causes; !errors.Is(cause, job.ErrLeaseLost) {
			s.Errorf("the handler's context ended with %v", cause)
		}
		heir := s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		if got := wait(s, j); got != heir.UUID() {
			s.Errorf("job ended by %q, want the heir", got)
		}
	})
}

// A dispatcher that is asked to stop before it has begun has nothing to complain
// of.
func TestStopBeforeTheBeginning(t *testing.T) {
	tell(t, func(s *story) {
		d, err := dispatcher.New(s.server.Connect(s.T), shouters(dispatcher.Config{UUID: uuid.New(), Log: slog.New(slog.DiscardHandler)}))
		if err != nil {
			s.Fatal(err)
		}
		ctx, cancel := context.WithCancel(s.Context())
		cancel()
		if err := d.Run(ctx); err != nil {
			s.Errorf("got %v", err)
		}
	})
}

// An outage is logged once per lane, not for as long as it lasts.
func TestOutageIsLoggedOnce(t *testing.T) {
	tell(t, func(s *story) {
		d := s.dispatch(shouters(dispatcher.Config{}))
		wait(s, put(s, shout.Call("x")))
		d.wire.Cut()
		time.Sleep(10 * time.Minute)
		d.wire.Restore()
		wait(s, put(s, shout.Call("y")))
		said := d.log.String()
		if n := strings.Count(said, "level=ERROR"); n > 2 || strings.Count(said, `level=ERROR msg="lane failed`) != 1 {
			s.Errorf("%d errors were logged:\n%s", n, said)
		}
	})
}

// awaitFake waits, in fake time, until something is done.
func awaitFake(s *story, done func() bool) {
	s.Helper()
	for range 10_000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Fatal("waited in vain")
}

// A handler that ends its goroutine (runtime.Goexit, as t.FailNow does) leaves its job
// to the next attempt, and its place to other jobs. Its agent can stop.
func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	for name, quotas := range map[string][]string{"": nil, "of a quota": {"one"}} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				if err := s.queue.CreateQuota(s.Context(), "one", 1); err != nil {
					s.Fatal(err)
				}
				var starts atomic.Int32
				quits := asyncnats.Define[asyncnats.None, string]("story.quits")
				handler := quits.Handle(func(context.Context, asyncnats.None) (string, error) {
					if starts.Add(1) == 1 {
						runtime.Goexit()
					}
					return "done", nil
				})
				d := s.dispatch(shouters(dispatcher.Config{Handlers: []job.Handler{handler}, Agents: []agents.Agent{{Name: "main", Size: 1}}}))
				began := time.Now()
				j := put(s, quits.Call(asyncnats.None{}).Quota(quotas...))
				awaitFake(s, func() bool { return starts.Load() == 1 })
				if wait(s, put(s, shout.Call("hello"))); time.Since(began) > time.Second {
					s.Errorf("its place was free after %v", time.Since(began))
				}
				if wait(s, j) != "done" {
					s.Error("it was not done")
				}
				began = time.Now()
				if d.stop(); time.Since(began) > time.Second {
					s.Errorf("its dispatcher, which was idle, stopped after %v", time.Since(began))
				}
			})
		})
	}
}
