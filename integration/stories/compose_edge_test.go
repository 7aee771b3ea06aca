package stories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/job"
)

// outerTask hands its argument on to work.
var outerTask = asyncnats.Define[string, int]("story.handover")

func handsOver(d *diary, f func(ctx context.Context, arg string) (asyncnats.Call[int], error)) job.Handler {
	return outerTask.HandleCall(func(ctx context.Context, arg string) (asyncnats.Call[int], error) {
		info, _ := job.FromContext(ctx)
		d.write("handover, attempt %d", info.Attempt)
		return f(ctx, arg)
	})
}

func toWork(_ context.Context, arg string) (asyncnats.Call[int], error) { return work.Call(arg), nil }

// TestDelegationOfJSONJob hands on a job that was put by hand.
func TestDelegationOfJSONJob(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		working := s.dispatch(ensemble(&d, handsOver(&d, toWork)))
		wait(s, put(s, outerTask.Call("a"))) // its lane is there now
		js := s.server.JetStream(s.T)
		if _, err := js.Publish(s.Context(), "async.default.job.story=handover.by-hand", []byte(`{"arg":"abcd"}`)); err != nil {
			t.Fatal(err)
		}
		j, err := asyncnats.Lookup[int](s.Context(), s.queue, "by-hand")
		if err != nil {
			t.Fatal(err)
		}
		if got := wait(s, j); got != 4 {
			t.Errorf("got %d, want 4", got)
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestDelegationByAnyJob hands on jobs that are performed at most once, that failed
// before, that have a deadline, that keep no result, and that have slots.
func TestDelegationByAnyJob(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.Limit(s.Context(), "narrow", 1); err != nil {
			t.Fatal(err)
		}
		var d diary
		working := s.dispatch(ensemble(&d, handsOver(&d, func(ctx context.Context, arg string) (asyncnats.Call[int], error) {
			if info, _ := job.FromContext(ctx); arg == "again" && info.Attempt == 1 {
				return asyncnats.Call[int]{}, errBroken
			}
			return work.Call(arg).In(time.Minute).Quota("narrow"), nil
		})))
		for name, call := range map[string]asyncnats.Call[int]{
			"once":  outerTask.Call("four").Retry(job.Retry{Never: true}),
			"again": outerTask.Call("again").Retry(job.Retry{Max: 3}),
			"late":  outerTask.Call("four").Within(time.Second),
			"slots": outerTask.Call("four").Quota("narrow"),
			"none":  outerTask.Call("four").Keep(job.KeepNone),
		} {
			got, err := put(s, call.OnDone(told)).Wait(s.Context())
			if err != nil || got < 4 {
				t.Errorf("%s: got %d, %v", name, got, err)
			}
		}
		quota, err := s.queue.Quota(s.Context(), "narrow")
		if err != nil || len(quota.Holders)+len(quota.Waiters) > 0 {
			t.Errorf("slots are left: %+v, %v", quota, err)
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestDelegationIsNoTimeout: a handler that returns too late a call is as one that
// returns a result too late.
func TestDelegationIsNoTimeout(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(ensemble(&d, handsOver(&d, func(_ context.Context, arg string) (asyncnats.Call[int], error) {
			time.Sleep(2 * time.Second)
			return work.Call(arg), nil
		})))
		if got := wait(s, put(s, outerTask.Call("abc").Timeout(time.Second))); got != 3 {
			t.Errorf("got %d", got)
		}
	})
}

// TestDelegationToNothing fails where the call names what does not exist.
func TestDelegationToNothing(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(ensemble(&d, handsOver(&d, func(_ context.Context, arg string) (asyncnats.Call[int], error) {
			if arg == "quota" {
				return work.Call(arg).Quota("nothing"), nil
			}
			return work.Call(arg).Queue("nowhere"), nil
		})))
		for arg, want := range map[string]string{"quota": "unknown quota", "queue": "queue nowhere"} {
			_, err := put(s, outerTask.Call(arg)).Wait(s.Context())
			failure, failed := errors.AsType[*job.Failure](err)
			if !failed || failure.Kind != job.KindInvalid || !strings.Contains(failure.Message, want) {
				t.Errorf("%s: %v", arg, err)
			}
		}
		s.settled()
	})
}

// TestDelegationIsDead keeps a job that was handed on and failed, and puts it again.
func TestDelegationIsDead(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		good := false
		working := s.dispatch(ensemble(&d, handsOver(&d, func(_ context.Context, arg string) (asyncnats.Call[int], error) {
			if good {
				return work.Call(arg), nil
			}
			return work.Call("bad " + arg), nil
		})))
		if _, err := put(s, outerTask.Call("abc").ID("x")).Wait(s.Context()); err == nil {
			t.Error("succeeded")
		}
		s.settled()
		dead, err := s.queue.DeadJob(s.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.queue.Dead(s.Context(), asyncnats.DeadFilter{})
		if err != nil || len(all) != 2 {
			t.Errorf("%d are kept, want the job and what it was handed on to: %v", len(all), err)
		}
		good = true
		j, err := s.queue.Retry(s.Context(), dead)
		if err != nil {
			t.Fatal(err)
		}
		wait(s, j)
		s.settled()
		s.forgotten(working)
	})
}

// TestDispatcherStopsWhileJobsWait has another go on.
func TestDispatcherStopsWhileJobsWait(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := func() *staff { return s.dispatch(ensemble(&d, handsOver(&d, toWork))) }
		first := config()
		parts := make([]asyncnats.Call[int], 40)
		for i := range parts {
			parts[i] = outerTask.Call(fmt.Sprint(i))
		}
		whole := put(s, asyncnats.Then(asyncnats.Parallel(parts...), sum))
		waitFor(s, func() bool { return len(d.read()) > 10 })
		first.stop()
		second := config()
		if got := wait(s, whole); got != "70, 0 failed" {
			t.Errorf("got %q", got)
		}
		s.settled()
		s.forgotten(second)
	})
}

// TestKeptNothing has wholes and parts that keep no result.
func TestKeptNothing(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		working := s.dispatch(ensemble(&d))
		none := work.Call("abc").Keep(job.KeepNone)
		whole := put(s, asyncnats.Then(asyncnats.Parallel(none, none.OnSuccess(noted)), sum).Keep(job.KeepNone))
		if got := wait(s, whole); got != "6, 0 failed" {
			t.Errorf("got %q", got)
		}
		s.settled()
		time.Sleep(10 * time.Minute)
		if _, err := whole.Status(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) {
			t.Errorf("the whole is kept: %v", err)
		}
		s.forgotten(working)
	})
}

// The tasks of what is too large.
var (
	bulky = asyncnats.Define[int, []byte]("story.bulky")
	heap  = asyncnats.Define[asyncnats.Bound[[]byte, []byte], asyncnats.None]("story.heap")
)

// large tells a story with a server that takes small messages only.
func large(t *testing.T, f func(s *story)) {
	tellWith(t, func(o *server.Options) { o.MaxPayload, o.MaxPending = 64<<10, 64<<20 }, f)
}

func bulk(d *diary) []job.Handler {
	return []job.Handler{
		bulky.Handle(func(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil }),
		heap.Handle(func(_ context.Context, b asyncnats.Bound[[]byte, []byte]) (asyncnats.None, error) {
			d.write("heap %d", len(b.Got))
			return asyncnats.None{}, nil
		}),
	}
}

// TestOutcomesTooLargeToJoin fails a whole whose outcomes are too large together.
func TestOutcomesTooLargeToJoin(t *testing.T) {
	large(t, func(s *story) {
		var d diary
		working := s.dispatch(ensemble(&d, bulk(&d)...))
		_, err := put(s, asyncnats.Parallel(bulky.Call(40<<10), bulky.Call(40<<10))).Wait(s.Context())
		failure, failed := errors.AsType[*job.Failure](err)
		if !failed || failure.Kind != job.KindInvalid || !strings.Contains(failure.Message, "larger than the server takes") {
			t.Errorf("got %v", err)
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestResultsOfAboutTheLimit succeed or fail, and nothing is left of them.
func TestResultsOfAboutTheLimit(t *testing.T) {
	large(t, func(s *story) {
		var d diary
		working := s.dispatch(ensemble(&d, bulk(&d)...))
		ignore := asyncnats.Define[[]byte, asyncnats.None]("story.ignore")
		succeeded, failed := 0, 0
		count := func(err error) {
			if err == nil {
				succeeded++
			} else if failure, ok := errors.AsType[*job.Failure](err); ok && failure.Kind == job.KindInvalid {
				failed++
			} else {
				t.Error(err)
			}
		}
		for n := 59<<10 + 500; n < 64<<10; n += 97 {
			outcomes, err := put(s, asyncnats.Parallel(bulky.Call(n))).Wait(s.Context())
			if err == nil && outcomes[0].Failure != nil {
				err = outcomes[0].Failure
			}
			count(err)
			call := bulky.Call(n)
			for range 12 {
				call = call.OnSuccess(ignore)
			}
			_, err = put(s, call).Wait(s.Context())
			count(err)
		}
		if succeeded == 0 || failed == 0 {
			t.Errorf("%d succeeded, %d failed", succeeded, failed)
		}
		waitFor(s, func() bool {
			info, err := s.queue.Info(s.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, lane := range info.Lanes {
				if lane.Task != "story.ignore" && lane.Pending+uint64(lane.Assigned) > 0 {
					return false
				}
			}
			return info.Waiting == 0
		})
		s.forgotten(working)
	})
}

// TestPartsTooLargeAlone refuses at the put a part that could never be put.
func TestPartsTooLargeAlone(t *testing.T) {
	large(t, func(s *story) {
		for _, n := range []int{63<<10 + 900, 64 << 10, 100 << 10} {
			_, err := asyncnats.Put(s.Context(), s.queue, asyncnats.Parallel(work.Call("a"), work.Call(strings.Repeat("x", n))))
			if !errors.Is(err, asyncnats.ErrTooLarge) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		if s.stored() != 1 {
			t.Error("something is stored")
		}
	})
}

// TestLargeFanOut puts a composition larger than the server takes in a message.
func TestLargeFanOut(t *testing.T) {
	large(t, func(s *story) {
		var d diary
		config := ensemble(&d)
		config.Agents[0].Size = 50
		working := s.dispatch(config)
		parts := make([]asyncnats.Call[int], 300)
		for i := range parts {
			parts[i] = work.Call(strings.Repeat("x", 1000))
		}
		if got := wait(s, put(s, asyncnats.Then(asyncnats.Parallel(parts...), total))); got != 300_000 {
			t.Errorf("got %d", got)
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestCallbacksThatCannotBePut fail by themselves, for all to see.
func TestCallbacksThatCannotBePut(t *testing.T) {
	large(t, func(s *story) {
		if _, err := s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{}); err != nil {
			t.Fatal(err)
		}
		var d diary
		big := put(s, bulky.Call(40<<10).OnSuccess(asyncnats.Bind(heap, make([]byte, 40<<10))))
		other := put(s, bulky.Call(10).OnSuccess(asyncnats.Bind(heap.Queue("audio"), []byte("x"))))
		if err := s.client.DeleteQueue(s.Context(), "audio"); err != nil {
			t.Fatal(err)
		}
		working := s.dispatch(ensemble(&d, bulk(&d)...))
		for _, j := range []*asyncnats.Job[[]byte]{big, other} {
			wait(s, j)
			waitFor(s, func() bool { return record(s, j).State.Final() })
			if r := record(s, j); r.State != job.Completed || len(r.Called) != 1 {
				t.Errorf("%+v", r)
			}
		}
		s.settled()
		dead, err := s.queue.Dead(s.Context(), asyncnats.DeadFilter{Task: "story.heap"})
		if err != nil || len(dead) != 2 || dead[0].Failure().Kind != job.KindInvalid {
			t.Errorf("%d callbacks are kept as failed, want 2: %v", len(dead), err)
		}
		d.want(s)
		s.forgotten(working)
	})
}

// TestCallbacksAreAddedInAnyState adds one to a job while it is tried again, while it
// waits for another, and to compositions before and after they begin.
func TestCallbacksAreAddedInAnyState(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := ensemble(&d, handsOver(&d, func(ctx context.Context, arg string) (asyncnats.Call[int], error) {
			if info, _ := job.FromContext(ctx); arg == "again" && info.Attempt == 1 {
				return asyncnats.Call[int]{}, job.RetryAfter(10*time.Minute, errBroken)
			}
			return work.Call(arg).In(10 * time.Minute), nil
		}))
		working := s.dispatch(config)
		parallel := asyncnats.Define[asyncnats.Outcome[[]asyncnats.Outcome[int]], asyncnats.None]("story.all")
		config.Handlers = append(config.Handlers, parallel.Handle(func(_ context.Context, o asyncnats.Outcome[[]asyncnats.Outcome[int]]) (asyncnats.None, error) {
			d.write("all %d", len(o.Result))
			return asyncnats.None{}, nil
		}))
		more := s.dispatch(config)
		retried, waits := put(s, outerTask.Call("again")), put(s, outerTask.Call("abc").Keep(job.KeepNone))
		whole := put(s, asyncnats.Parallel(work.Call("zz").In(10*time.Minute)).In(10*time.Minute))
		time.Sleep(time.Minute)
		for _, j := range []*asyncnats.Job[int]{retried, waits} {
			if err := j.OnSuccess(s.Context(), noted); err != nil {
				t.Fatal(err)
			}
		}
		if got := record(s, waits); got.State != job.Waiting {
			t.Errorf("%s", got.State)
		}
		for range 2 {
			if err := whole.OnDone(s.Context(), parallel); err != nil {
				t.Fatal(err)
			}
			time.Sleep(11 * time.Minute)
		}
		time.Sleep(30 * time.Minute)
		got := strings.Join(d.read(), "\n")
		if strings.Count(got, "noted 5") != 1 || strings.Count(got, "noted 3") != 1 || strings.Count(got, "all 1") != 2 {
			t.Errorf("got %q", d.read())
		}
		s.settled()
		more.stop()
		s.forgotten(working)
	})
}

// TestRecurringComposition has a composition recur, alone and with a deadline.
func TestRecurringComposition(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		call := asyncnats.Then(asyncnats.Parallel(work.Call("a"), work.Call(strings.Repeat("b", 5000))), sum)
		for name, c := range map[string]asyncnats.RecurringConfig{"each": {}, "alone": {Alone: true}} {
			if err := asyncnats.Repeat(s.Context(), s.queue, name, "@every 1m", call.Within(time.Minute), c); err != nil {
				t.Fatal(err)
			}
		}
		config := ensemble(&d)
		config.Agents[0].Size = 5
		s.dispatch(config)
		time.Sleep(4*time.Minute + 30*time.Second)
		sums := strings.Count(strings.Join(d.read(), "\n"), "sum of 2")
		if sums != 8 {
			t.Errorf("%d sums, want 8: %q", sums, d.read())
		}
		j, err := s.queue.RunRecurring(s.Context(), "each")
		if err != nil {
			t.Fatal(err)
		}
		wait(s, j)
		info, err := s.queue.Info(s.Context())
		if err != nil || info.Messages != 0 || info.Strays != 0 {
			t.Errorf("%+v, %v", info, err)
		}
		for _, lane := range info.Lanes {
			if lane.Task == "then" {
				t.Error("a composition has a lane")
			}
		}
	})
}

// TestQueueOfWaitingJobsGoes deletes a queue whose jobs wait for parts in another.
func TestQueueOfWaitingJobsGoes(t *testing.T) {
	tell(t, func(s *story) {
		audio, err := s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var d diary
		working := s.dispatch(ensemble(&d))
		call := asyncnats.Parallel(work.Call("abc").Queue(job.DefaultQueue).In(10 * time.Minute))
		if _, err := asyncnats.Put(s.Context(), audio, call); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := s.client.DeleteQueue(s.Context(), "audio"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute)
		d.want(s, "work abc")
		s.settled()
		s.forgotten(working)
	})
}

// TestQueueOfPartsGoesLater deletes the queue of parts when they were put in it before.
func TestQueueOfPartsGoesLater(t *testing.T) {
	tell(t, func(s *story) {
		if _, err := s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{}); err != nil {
			t.Fatal(err)
		}
		var d diary
		config := ensemble(&d)
		config.Queues = []string{job.DefaultQueue}
		working := s.dispatch(config)
		early := put(s, asyncnats.Parallel(work.Call("x").Queue("audio")))
		serial := put(s, asyncnats.Serial(work.Call("a").In(10*time.Minute), work.Call("b").Queue("audio")))
		parts := slices.Repeat([]asyncnats.Call[int]{work.Call("x").Queue("audio")}, 100)
		many := put(s, asyncnats.Parallel(parts...).In(10*time.Minute))
		time.Sleep(time.Minute)
		if err := s.client.DeleteQueue(s.Context(), "audio"); err != nil {
			t.Fatal(err)
		}
		if got := wait(s, serial); got[0].Result != 1 || got[1].Failure == nil {
			t.Errorf("got %+v", got)
		}
		// Whoever has put on it before finds out once for all parts.
		for i, part := range wait(s, many) {
			if part.Failure == nil {
				t.Errorf("part %d: %+v", i, part)
			}
		}
		if r := record(s, many); r.Ended.Sub(r.Started) > ackWait {
			t.Errorf("they were refused after %v", r.Ended.Sub(r.Started))
		}
		// What went with the queue cannot end; the whole can be ended.
		if _, err := early.Cancel(s.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		s.settled()
		s.forgotten(working)
	})
}

// TestWaitingJobsAreListed shows jobs that wait wherever jobs are shown.
func TestWaitingJobsAreListed(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(ensemble(&d, handsOver(&d, func(_ context.Context, arg string) (asyncnats.Call[int], error) {
			return work.Call(arg).In(10 * time.Minute), nil
		})))
		handed := put(s, outerTask.Call("abc"))
		whole := put(s, asyncnats.Parallel(work.Call("a").In(10*time.Minute)).ID("me"))
		time.Sleep(time.Minute)
		info, err := s.queue.Info(s.Context())
		if err != nil || info.Waiting != 2 || info.Scheduled != 2 || info.Messages != 4 || info.Strays != 0 {
			t.Errorf("%+v, %v", info, err)
		}
		jobs, err := s.queue.Jobs(s.Context(), 10, job.Waiting)
		if err != nil || len(jobs) != 2 {
			t.Errorf("%+v, %v", jobs, err)
		}
		for _, j := range []interface {
			Status(context.Context) (asyncnats.Status, error)
			Pull(context.Context) (asyncnats.Pulled, error)
		}{handed, whole} {
			if status, err := j.Status(s.Context()); err != nil || status.State != job.Waiting {
				t.Errorf("%+v, %v", status, err)
			}
			if _, err := j.Pull(s.Context()); !errors.Is(err, asyncnats.ErrAssigned) {
				t.Errorf("pulled: %v", err)
			}
		}
		again, err := asyncnats.Put(s.Context(), s.queue, asyncnats.Parallel(work.Call("b")).ID("me"))
		if !errors.Is(err, asyncnats.ErrExists) || again == nil || again.ID() != "me" {
			t.Fatalf("%v, %v", again, err)
		}
		if got := wait(s, again); got[0].Result != 1 {
			t.Errorf("got %+v", got)
		}
		wait(s, handed)
		s.settled()
	})
}

// TestDeadlineOfComposition ends one that does not begin in time, and leaves one that
// did alone.
func TestDeadlineOfComposition(t *testing.T) {
	tell(t, func(s *story) {
		late := put(s, asyncnats.Parallel(work.Call("a")).Within(time.Minute).OnFailure(mourned))
		time.Sleep(2 * time.Minute)
		var d diary
		working := s.dispatch(ensemble(&d))
		_, err := late.Wait(s.Context())
		if failure, failed := errors.AsType[*job.Failure](err); !failed || failure.Kind != job.KindExpired {
			t.Errorf("got %v", err)
		}
		if got := wait(s, put(s, asyncnats.Parallel(work.Call("a").In(10*time.Minute)).Within(time.Minute))); got[0].Result != 1 {
			t.Errorf("got %+v", got)
		}
		time.Sleep(20 * time.Minute)
		s.settled()
		s.forgotten(working)
	})
}

// TestPartExpires goes on with a whole when the deadline of a part has passed that
// nobody performs.
func TestPartExpires(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := ensemble(&d)
		config.Agents = []agents.Agent{{Name: "main", Size: 1, Filter: []string{"story.sum"}}}
		working := s.dispatch(config)
		whole := put(s, asyncnats.Then(asyncnats.Serial(work.Call("a").Within(time.Minute), work.Call("b").In(10*time.Minute).Within(time.Minute)), sum))
		if got := wait(s, whole); got != "0, 2 failed" {
			t.Errorf("got %q", got)
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestPulledJobKeepsCallbacks puts a job again that was taken back, callbacks and all.
func TestPulledJobKeepsCallbacks(t *testing.T) {
	tell(t, func(s *story) {
		double := asyncnats.Define[int, int]("story.double")
		j := put(s, work.Call("abc").OnSuccess(double.OnSuccess(noted)))
		pulled, err := j.Pull(s.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := asyncnats.Put(s.Context(), s.queue, pulled.Call()); err != nil {
			t.Fatal(err)
		}
		var d diary
		config := ensemble(&d, double.Handle(func(_ context.Context, n int) (int, error) { return 2 * n, nil }))
		s.dispatch(config)
		d.want(s, "work abc", "noted 6")
	})
}
