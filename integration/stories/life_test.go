package stories

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

var shout = asyncnats.Define[string, string]("text.shout")

func toUpper(_ context.Context, text string) (string, error) { return strings.ToUpper(text), nil }

func shouters(c dispatcher.Config) dispatcher.Config {
	c.Handlers = append(c.Handlers, shout.Handle(toUpper))
	return c
}

func TestResultComesBack(t *testing.T) {
	tell(t, func(s *story) {
		j := put(s, shout.Call("hello"))
		d := s.dispatch(shouters(dispatcher.Config{}))
		if got := wait(s, j); got != "HELLO" {
			s.Errorf("got %q", got)
		}
		r := record(s, j)
		if r.State != job.Completed || r.Attempt.Number != 1 || r.Attempt.Agent != agents.DefaultName ||
			r.Attempt.Dispatcher != d.UUID() || r.By != s.Name() || !r.Outcome.Succeeded() {
			s.Errorf("record %+v", r)
		}
	})
}

func TestLookupFromAnotherClient(t *testing.T) {
	tell(t, func(s *story) {
		put(s, shout.Call("hello").ID("order/7"))
		other, err := asyncnats.Connect(s.Context(), s.server.Connect(s.T), asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		found, err := asyncnats.Lookup[string](s.Context(), other.Queue("default"), "order/7")
		if err != nil {
			s.Fatal(err)
		}
		if status, err := found.Status(s.Context()); err != nil || status.State != job.Pending {
			s.Errorf("status %+v, %v: want pending", status, err)
		}
		s.dispatch(shouters(dispatcher.Config{}))
		if got := wait(s, found); got != "HELLO" {
			s.Errorf("got %q", got)
		}
		if _, err := asyncnats.Lookup[string](s.Context(), other.Queue("default"), "order/8"); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("lookup of no job: %v", err)
		}
	})
}

func TestFailureTellsWhy(t *testing.T) {
	fails := asyncnats.Define[string, asyncnats.None]("story.fails")
	tell(t, func(s *story) {
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{fails.Handle(func(ctx context.Context, how string) (asyncnats.None, error) {
			switch how {
			case "error":
				return asyncnats.None{}, errors.New("no such file")
			case "panic":
				panic("out of cheese")
			case "invalid":
				return asyncnats.None{}, &job.Failure{Kind: job.KindInvalid, Message: "by hand"}
			default:
				<-ctx.Done()
				return asyncnats.None{}, context.Cause(ctx)
			}
		})}})
		for name, want := range map[string]struct {
			kind    job.Kind
			message string
			stack   string
			is      error
		}{
			"error":   {job.KindError, "no such file", "", nil},
			"panic":   {job.KindPanic, "out of cheese", "life_test.go", nil},
			"invalid": {job.KindInvalid, "by hand", "", job.ErrInvalid},
			"timeout": {job.KindTimeout, "ran longer than its timeout of 5s", "", job.ErrTimeout},
		} {
			_, err := put(s, fails.Call(name).Timeout(5*time.Second)).Wait(s.Context())
			failure, failed := errors.AsType[*job.Failure](err)
			if !failed {
				s.Errorf("%s: got %v", name, err)
				continue
			}
			if failure.Kind != want.kind || !strings.Contains(failure.Message, want.message) ||
				!strings.Contains(failure.Stack, want.stack) || want.is != nil && !errors.Is(err, want.is) {
				s.Errorf("%s: got %+v", name, failure)
			}
			if failure.Attempt != 1 || failure.Dispatcher != d.UUID() || failure.Agent != "main" || failure.At.IsZero() {
				s.Errorf("%s: does not say on whose account: %+v", name, failure)
			}
		}
	})
}

// A job that runs for ten times its ack wait keeps its lease.
func TestLongJobRunsOnce(t *testing.T) {
	tell(t, func(s *story) {
		var runs atomic.Int32
		handler := nap.Handle(func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
			runs.Add(1)
			select {
			case <-time.After(d):
				return asyncnats.None{}, nil
			case <-ctx.Done():
				return asyncnats.None{}, context.Cause(ctx)
			}
		})
		for range 2 {
			s.dispatch(dispatcher.Config{Handlers: []job.Handler{handler}})
		}
		wait(s, put(s, nap.Call(10*15*time.Second)))
		if runs.Load() != 1 {
			s.Errorf("ran %d times", runs.Load())
		}
	})
}

func TestIDIsFreeAgainWhenTheJobIsDone(t *testing.T) {
	tell(t, func(s *story) {
		first := put(s, shout.Call("one").ID("mine"))
		second, err := asyncnats.Put(s.Context(), s.queue, shout.Call("two").ID("mine"))
		if !errors.Is(err, asyncnats.ErrExists) {
			s.Fatalf("second put: %v, want ErrExists", err)
		}
		s.dispatch(shouters(dispatcher.Config{}))
		// The handle that came with the error is that of the first job.
		if got := wait(s, second); got != "ONE" {
			s.Errorf("got %q, want the first job's result", got)
		}
		wait(s, first)
		for _, text := range []string{"three", "four"} {
			if got := wait(s, put(s, shout.Call(text).ID("mine"))); got != strings.ToUpper(text) {
				s.Errorf("got %q for %q", got, text)
			}
		}
		if _, err := first.Status(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("status of a job whose ID is used again: %v, want ErrNoJob", err)
		}
	})
}

func TestKeep(t *testing.T) {
	for name, row := range map[string]struct {
		keep  job.Keep
		text  string
		after time.Duration
		gone  bool
	}{
		"default is kept for a day":          {job.KeepDefault, "x", 23 * time.Hour, false},
		"default is gone after a day":        {job.KeepDefault, "x", 25 * time.Hour, true},
		"a duration is kept":                 {job.KeepFor(time.Minute), "x", 50 * time.Second, false},
		"a duration is gone after it":        {job.KeepFor(time.Minute), "x", 62 * time.Second, true},
		"the least is twice the ack wait":    {job.KeepFor(time.Second), "x", 28 * time.Second, false},
		"the longest is kept":                {job.KeepFor(math.MaxInt64), "x", 47 * time.Hour, false},
		"a duration may exceed the default":  {job.KeepFor(48 * time.Hour), "x", 47 * time.Hour, false},
		"nothing is kept of a result":        {job.KeepNone, "x", 0, true},
		"a failure is kept all the same":     {job.KeepNone, "", time.Hour, false},
		"a failure is gone when its time is": {job.KeepNone, "", 25 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(_ context.Context, text string) (string, error) {
					time.Sleep(time.Millisecond) // somebody waits by then
					if text == "" {
						return "", errors.New("nothing to shout")
					}
					return strings.ToUpper(text), nil
				})}})
				j := put(s, shout.Call(row.text).Keep(row.keep))
				// Whoever waits at the moment of completion gets the outcome,
				// kept or not.
				result, err := j.Wait(s.Context())
				if row.text != "" && (err != nil || result != "X") {
					s.Fatalf("first wait: %q, %v", result, err)
				}
				d.stop() // its pings would make a day take long
				time.Sleep(row.after)
				_, err = j.Wait(s.Context())
				if gone := errors.Is(err, asyncnats.ErrOutcomeNotKept); gone != row.gone {
					s.Errorf("after %v: %v", row.after, err)
				}
			})
		})
	}
}

func TestQueuesAreSeparate(t *testing.T) {
	tell(t, func(s *story) {
		audio, err := s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{})
		if err != nil {
			s.Fatal(err)
		}
		s.dispatch(shouters(dispatcher.Config{Queues: []string{"audio"}}))
		here := put(s, shout.Call("here").ID("same"))
		there, err := asyncnats.Put(s.Context(), audio, shout.Call("there").ID("same"))
		if err != nil {
			s.Fatal(err)
		}
		if got := wait(s, there); got != "THERE" {
			s.Errorf("got %q", got)
		}
		time.Sleep(time.Minute)
		if status, err := here.Status(s.Context()); err != nil || status.State != job.Pending {
			s.Errorf("job of the queue that nobody serves: %+v, %v", status, err)
		}
		// One dispatcher may serve both, with an agent for one of them alone.
		s.dispatch(shouters(dispatcher.Config{
			Queues: []string{"default", "audio"},
			Agents: []agents.Agent{{Name: "only", Queue: "default"}},
		}))
		if got := wait(s, here); got != "HERE" {
			s.Errorf("got %q", got)
		}
	})
}

func TestResultThatIsTooLarge(t *testing.T) {
	grow := asyncnats.Define[int, []byte]("story.grow")
	tellWith(t, func(o *server.Options) { o.MaxPayload = 64 << 10 }, func(s *story) {
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{grow.Handle(func(_ context.Context, n int) ([]byte, error) {
			return make([]byte, n), nil
		})}})
		if got := wait(s, put(s, grow.Call(60<<10))); len(got) != 60<<10 {
			s.Errorf("got %d bytes", len(got))
		}
		_, err := put(s, grow.Call(70<<10)).Wait(s.Context())
		if !errors.Is(err, job.ErrInvalid) || !strings.Contains(err.Error(), "65536") || !strings.Contains(err.Error(), "71685 bytes") {
			s.Errorf("got %v, want a Failure that says the sizes", err)
		}
	})
}

// Who waits while the connection is lost hears of the outcome when it is back.
func TestWaitOverALostConnection(t *testing.T) {
	tell(t, func(s *story) {
		nc, wire := s.server.ConnectWire(s.T)
		client, err := asyncnats.Connect(s.Context(), nc, asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		j, err := asyncnats.Put(s.Context(), client.Queue("default"), shout.Call("hello"))
		if err != nil {
			s.Fatal(err)
		}
		heard := make(chan time.Time)
		go func() {
			if got, err := j.Wait(s.Context()); err != nil || got != "HELLO" {
				s.Errorf("got %q, %v", got, err)
			}
			heard <- time.Now()
		}()
		time.Sleep(time.Minute) // by now it reads every ten seconds only
		wire.Cut()
		d := s.dispatch(shouters(dispatcher.Config{}))
		time.Sleep(11 * time.Second) // it has tried to read, in vain
		if !d.log.Contains("job done") {
			s.Fatal("the job was not done")
		}
		wire.Restore()
		back := time.Now()
		if took := (<-heard).Sub(back); took > time.Second {
			s.Errorf("it heard %v after the connection was back", took)
		}
	})
}

// A producer that has put jobs on a queue goes on when somebody else deletes
// the queue and creates it anew.
func TestQueueIsCreatedAnew(t *testing.T) {
	tell(t, func(s *story) {
		put(s, shout.Call("lost with the queue"))
		other, err := asyncnats.Connect(s.Context(), s.server.Connect(s.T), asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		if err := other.DeleteQueue(s.Context(), "default"); err != nil {
			s.Fatal(err)
		}
		if _, err := other.CreateQueue(s.Context(), "default", asyncnats.QueueConfig{}); err != nil {
			s.Fatal(err)
		}
		d := s.dispatch(shouters(dispatcher.Config{}))
		first := put(s, shout.Call("one"))
		time.Sleep(time.Minute)
		second := put(s, shout.Call("two"))
		if a, b := wait(s, first), wait(s, second); a != "ONE" || b != "TWO" {
			s.Errorf("got %q, %q", a, b)
		}
		d.stop()
	})
}
