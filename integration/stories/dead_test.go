package stories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// wreck fails with the text that it is given, unless that is empty. sink is
// another.
var (
	wreck = asyncnats.Define[string, asyncnats.None]("ship.wreck")
	sink  = asyncnats.Define[string, asyncnats.None]("ship.sink")
)

// sea has handlers that fail, and counts how often they run.
type sea struct {
	runs atomic.Int32
	calm atomic.Bool // nothing fails any more
}

func (s *sea) sail(_ context.Context, text string) (asyncnats.None, error) {
	s.runs.Add(1)
	if text == "panic" {
		panic("iceberg")
	}
	if text == "" || s.calm.Load() {
		return asyncnats.None{}, nil
	}
	return asyncnats.None{}, errors.New(text)
}

func (s *sea) handlers() []job.Handler {
	return []job.Handler{wreck.Handle(s.sail), sink.Handle(s.sail)}
}

// ended puts a call and waits until its job has ended, which may be badly, and what
// is kept of that is kept: the outcome may be read a moment before.
func ended[R any](s *story, call asyncnats.Call[R]) *asyncnats.Job[R] {
	s.Helper()
	j := put(s, call)
	finish(s, j)
	time.Sleep(time.Millisecond)
	return j
}

func finish[R any](s *story, j *asyncnats.Job[R]) {
	s.Helper()
	_, err := j.Wait(s.Context())
	if _, failed := errors.AsType[*job.Failure](err); err != nil && !failed {
		s.Fatal(err)
	}
}

// dead lists the failed jobs that a filter accepts.
func dead(s *story, f asyncnats.DeadFilter) []asyncnats.Dead {
	s.Helper()
	list, err := s.queue.Dead(s.Context(), f)
	if err != nil {
		s.Fatal(err)
	}
	return list
}

// wantDead compares the IDs of the failed jobs that a filter accepts, newest first.
func wantDead(s *story, f asyncnats.DeadFilter, want ...job.ID) {
	s.Helper()
	var got []job.ID
	for _, d := range dead(s, f) {
		got = append(got, d.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("%+v (-want +got):\n%s", f, diff)
	}
}

func TestDeadIsFoundByWhatItIs(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		begin := time.Now()
		for i, call := range []asyncnats.Call[asyncnats.None]{
			wreck.Call("no harbour").ID("a"), wreck.Call("").ID("fine"), sink.Call("no water").ID("b"), wreck.Call("panic").ID("c"),
			wreck.Call("Water in the hold").ID("d"),
		} {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Minute)))
			ended(s, call)
		}
		cancelled := put(s, asyncnats.Define[string, string]("nobody.does").Call("x").ID("cancelled"))
		if _, err := cancelled.Cancel(s.Context()); err != nil {
			s.Fatal(err)
		}
		wantDead(s, asyncnats.DeadFilter{}, "d", "c", "b", "a")
		wantDead(s, asyncnats.DeadFilter{Limit: 2}, "d", "c")
		wantDead(s, asyncnats.DeadFilter{Task: "ship.wreck"}, "d", "c", "a")
		wantDead(s, asyncnats.DeadFilter{Task: "ship.wreck", Limit: 1}, "d")
		wantDead(s, asyncnats.DeadFilter{Task: "ship.*", Error: "water"}, "b")
		wantDead(s, asyncnats.DeadFilter{Task: "*.wreck", Error: "no "}, "a")
		wantDead(s, asyncnats.DeadFilter{Task: "ship"})
		wantDead(s, asyncnats.DeadFilter{Kind: job.KindPanic}, "c")
		wantDead(s, asyncnats.DeadFilter{Error: "panic: ice"}, "c")
		wantDead(s, asyncnats.DeadFilter{Since: begin.Add(90 * time.Second)}, "d", "c", "b")
		wantDead(s, asyncnats.DeadFilter{Since: begin.Add(90 * time.Second), Until: begin.Add(210 * time.Second)}, "c", "b")
		for _, f := range []asyncnats.DeadFilter{{Task: "a b"}, {Task: "a.>.b"}, {Kind: "cancelled"}, {Limit: -1}} {
			if _, err := s.queue.Dead(s.Context(), f); err == nil {
				s.Errorf("%+v: no error", f)
			}
			if _, err := s.queue.PurgeDead(s.Context(), f); err == nil {
				s.Errorf("purge %+v: no error", f)
			}
		}
	})
}

// Every attempt of a job that failed in the end is kept, with who made it, and the
// stack of the last.
func TestDeadShowsEveryAttempt(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		d := s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		j := ended(s, wreck.Call("panic").Retry(job.Retry{Max: 2, Min: time.Minute}))
		found, err := s.queue.DeadJob(s.Context(), j.ID().String())
		if err != nil {
			s.Fatal(err)
		}
		attempts := found.Attempts()
		if len(attempts) != 3 || found.Task != "ship.wreck" || string(found.Arg.Data) != "\xa5panic" || found.Record.Errors != 3 {
			s.Fatalf("found %+v", found)
		}
		for i, attempt := range attempts {
			if attempt.Attempt != i+1 || attempt.Dispatcher != d.UUID() || attempt.At.IsZero() || attempt.Message != "iceberg" || (attempt.Stack != "") != (i == 2) {
				s.Errorf("attempt %d: %+v", i+1, attempt)
			}
		}
		if diff := cmp.Diff(record(s, j), found.Record); diff != "" {
			s.Errorf("its record (-record +kept):\n%s", diff)
		}
	})
}

// What is kept under an ID is the last job that failed; one that succeeds leaves
// it alone.
func TestDeadOfAnIDThatIsUsedAgain(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		for _, text := range []string{"first", "second", ""} {
			ended(s, wreck.Call(text).ID("mine"))
			time.Sleep(time.Second)
		}
		list := dead(s, asyncnats.DeadFilter{})
		if len(list) != 1 || list[0].Failure().Message != "second" {
			s.Errorf("kept %+v, want the second job alone", list)
		}
	})
}

// A dispatcher that died between the record of a failure and what is kept of it
// has another do that, which performs nothing; once more is no harm.
func TestDeadIsKeptWhenTheMessageComesBack(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		queue := openQueue(s)
		fail := func(id job.ID, kind job.Kind) stream.Entry {
			e := stream.Entry{ID: id, Chosen: true, Spec: job.Spec{
				Version: job.SpecVersion, Nonce: job.NewNonce(), Task: wreck.Name(), Again: true, // a receiver looks at the record
			}}
			if err := queue.Put(s.Context(), e); err != nil {
				s.Fatal(err)
			}
			record := job.Record{
				Version: job.RecordVersion, Nonce: e.Spec.Nonce, Task: wreck.Name(), State: job.Completed,
				Outcome: &job.Outcome{Failure: &job.Failure{Kind: kind, Message: "as recorded"}},
			}
			if _, err := queue.Write(s.Context(), id, record, 0, job.KeepDefault); err != nil {
				s.Fatal(err)
			}
			return e
		}
		kept := fail("a", job.KindError)
		fail("b", job.KindCancelled)
		s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		time.Sleep(time.Second)
		list := dead(s, asyncnats.DeadFilter{})
		if len(list) != 1 || list[0].ID != "a" || list[0].Failure().Message != "as recorded" || sea.runs.Load() != 0 {
			s.Fatalf("kept %+v after %d runs", list, sea.runs.Load())
		}
		if err := queue.Put(s.Context(), kept); err != nil {
			s.Fatal(err)
		}
		time.Sleep(time.Second)
		if again := dead(s, asyncnats.DeadFilter{}); len(again) != 1 || !again[0].At.Equal(list[0].At) || messages(s) != 0 {
			s.Errorf("kept %+v, before %+v; %d messages left", again, list, messages(s))
		}
	})
}

// messages counts the messages of the queue.
func messages(s *story) uint64 {
	s.Helper()
	info, err := s.queue.Info(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return info.Messages
}

// A bucket that takes nothing holds up no job: the log says so, and the record has
// the failure.
func TestDeadIsRefused(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		d := s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		js := s.server.JetStream(s.T)
		s.edit("KV_ASYNC_DEAD", func(c *jetstream.StreamConfig) { c.MaxBytes = 10 })
		j := ended(s, wreck.Call("no harbour"))
		time.Sleep(time.Second)
		if messages(s) != 0 || !d.log.Contains("failed job not kept", j.ID().String(), "maximum bytes") {
			s.Errorf("%d messages left", messages(s))
		}
		wantDead(s, asyncnats.DeadFilter{})
		// A bucket that is gone is made again.
		if err := js.DeleteStream(s.Context(), "KV_ASYNC_DEAD"); err != nil {
			s.Fatal(err)
		}
		ended(s, wreck.Call("no harbour").ID("a"))
		time.Sleep(5 * time.Second)
		wantDead(s, asyncnats.DeadFilter{}, "a")
	})
}

// A job that is put again has all that it had, but its time to begin, its
// deadline and its attempts.
func TestRetryOfADeadJob(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		if err := s.queue.CreateQuota(s.Context(), "pier", 1); err != nil {
			s.Fatal(err)
		}
		policy := job.Retry{Max: 1, Min: time.Second, Jitter: -1}
		ended(s, wreck.Call("storm").ID("a").Quota("pier").Retry(policy).Timeout(time.Minute).Keep(job.KeepFor(time.Hour)).
			In(time.Second).Within(time.Hour))
		found := dead(s, asyncnats.DeadFilter{})[0]
		if found.Record.Errors != 2 {
			s.Fatalf("%+v", found.Record)
		}
		time.Sleep(2 * time.Hour) // its deadline is past, its record expired
		queue := openQueue(s)
		if err := s.queue.Pause(s.Context(), ""); err != nil {
			s.Fatal(err)
		}
		j, err := s.queue.Retry(s.Context(), found)
		if err != nil {
			s.Fatal(err)
		}
		spec := specOf(s, queue, "a")
		if j.ID() != "a" || spec.Retry != policy || spec.Timeout != time.Minute || spec.Keep != job.KeepFor(time.Hour) || !slices.Equal(spec.Quotas, []string{"pier"}) ||
			string(spec.Arg.Data) != "\xa5storm" || spec.By != s.Name() || !spec.Begin.IsZero() || !spec.Deadline.IsZero() || spec.Attempt != 0 || spec.Nonce == found.Record.Nonce {
			s.Errorf("put again as %+v", spec)
		}
		wantDead(s, asyncnats.DeadFilter{})
		if _, err := s.queue.Retry(s.Context(), found); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("put again twice: %v, want ErrNoJob", err)
		}
		if err := s.queue.Resume(s.Context(), ""); err != nil {
			s.Fatal(err)
		}
		finish(s, j)
		list := dead(s, asyncnats.DeadFilter{})
		if len(list) != 1 || list[0].Record.Errors != 2 || list[0].Record.Nonce != spec.Nonce || sea.runs.Load() != 4 {
			s.Fatalf("failed again: %+v after %d runs", list, sea.runs.Load())
		}
		sea.calm.Store(true)
		if j, err = s.queue.Retry(s.Context(), list[0]); err != nil {
			s.Fatal(err)
		}
		wait(s, j)
		wantDead(s, asyncnats.DeadFilter{})
	})
}

// A retry that died between the put and the removal is repeated, and is one job,
// however far that has come.
func TestRetryIsOneJob(t *testing.T) {
	for name, wait := range map[string]time.Duration{"pending": 0, "running": time.Second, "completed": time.Minute} {
		for _, keep := range []job.Keep{job.KeepDefault, job.KeepNone} {
			t.Run(fmt.Sprint(name, ", keep ", keep), func(t *testing.T) {
				tell(t, func(s *story) {
					var runs atomic.Int32
					slow := nap.Handle(func(_ context.Context, d time.Duration) (asyncnats.None, error) {
						if runs.Add(1) == 1 {
							return asyncnats.None{}, errors.New("not yet")
						}
						time.Sleep(d)
						return asyncnats.None{}, nil
					})
					d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{slow}})
					ended(s, nap.Call(10*time.Second).ID("a").Keep(keep))
					d.stop()
					found := dead(s, asyncnats.DeadFilter{})[0]
					queue := openQueue(s)
					entry, err := queue.DeadJob(s.Context(), "a")
					if err != nil {
						s.Fatal(err)
					}
					spec, err := entry.Anew(entry.Revision)
					if err != nil {
						s.Fatal(err)
					}
					if err := queue.Put(s.Context(), stream.Entry{ID: "a", Chosen: true, Spec: spec}); err != nil {
						s.Fatal(err)
					}
					if wait > 0 {
						s.dispatch(dispatcher.Config{Handlers: []job.Handler{slow}})
						time.Sleep(min(wait, 12*time.Second))
					}
					j, err := s.queue.Retry(s.Context(), found)
					if err != nil {
						s.Fatal(err)
					}
					if wait == 0 {
						s.dispatch(dispatcher.Config{Handlers: []job.Handler{slow}})
					}
					time.Sleep(time.Minute)
					if runs.Load() != 2 || messages(s) != 0 {
						s.Errorf("ran %d times, want once when it failed and once more; %d messages left", runs.Load(), messages(s))
					}
					wantDead(s, asyncnats.DeadFilter{})
					if status, err := j.Status(s.Context()); keep == job.KeepDefault && (err != nil || !status.Record.Outcome.Succeeded()) {
						s.Errorf("%+v, %v", status, err)
					}
				})
			})
		}
	}
}

// Of several jobs that are put again each is for itself.
func TestRetryOfManyDeadJobs(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		d := s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		if err := s.queue.CreateQuota(s.Context(), "pier", 1); err != nil {
			s.Fatal(err)
		}
		ended(s, wreck.Call("storm").ID("a"))
		ended(s, wreck.Call("storm").ID("taken"))
		ended(s, wreck.Call("storm").ID("limited").Quota("pier"))
		ended(s, wreck.Call("storm").ID("b"))
		ended(s, sink.Call("storm").ID("other"))
		if err := s.queue.RemoveQuota(s.Context(), "pier"); err != nil {
			s.Fatal(err)
		}
		d.stop()
		put(s, wreck.Call("new").ID("taken"))
		n, err := s.queue.RetryDead(s.Context(), asyncnats.DeadFilter{Task: "ship.wreck"})
		if n != 2 || !errors.Is(err, asyncnats.ErrExists) || !errors.Is(err, asyncnats.ErrUnknownQuota) ||
			!strings.Contains(err.Error(), "retry job taken") || !strings.Contains(err.Error(), "retry job limited") {
			s.Errorf("%d retried, %v", n, err)
		}
		wantDead(s, asyncnats.DeadFilter{}, "other", "limited", "taken")
		if n, err := s.queue.RetryDead(s.Context(), asyncnats.DeadFilter{Error: "storm", Task: "ship.sink"}); n != 1 || err != nil {
			s.Errorf("%d retried, %v", n, err)
		}
		sea.calm.Store(true)
		s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		time.Sleep(time.Minute)
		wantDead(s, asyncnats.DeadFilter{}, "limited", "taken")
		if messages(s) != 0 || sea.runs.Load() != 5+4 {
			s.Errorf("%d runs, %d messages left", sea.runs.Load(), messages(s))
		}
	})
}

// Removing leaves the record, and what it does not mean.
func TestDeadIsRemoved(t *testing.T) {
	tell(t, func(s *story) {
		var sea sea
		s.dispatch(dispatcher.Config{Handlers: sea.handlers()})
		for i, call := range []asyncnats.Call[asyncnats.None]{
			wreck.Call("storm"), sink.Call("storm"), wreck.Call("panic"), sink.Call("calm"), wreck.Call("calm"),
		} {
			ended(s, call.ID(fmt.Sprint(i)))
		}
		purge := func(f asyncnats.DeadFilter, want int) {
			s.Helper()
			if n, err := s.queue.PurgeDead(s.Context(), f); n != want || err != nil {
				s.Errorf("%+v removed %d, %v, want %d", f, n, err, want)
			}
		}
		first := dead(s, asyncnats.DeadFilter{})[0]
		if err := s.queue.RemoveDead(s.Context(), first); err != nil {
			s.Fatal(err)
		}
		if err := s.queue.RemoveDead(s.Context(), first); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("removed twice: %v, want ErrNoJob", err)
		}
		if _, err := asyncnats.Lookup[string](s.Context(), s.queue, first.ID.String()); err != nil {
			s.Errorf("its record: %v", err)
		}
		purge(asyncnats.DeadFilter{Kind: job.KindPanic}, 1)
		wantDead(s, asyncnats.DeadFilter{}, "3", "1", "0")
		purge(asyncnats.DeadFilter{Task: "ship.*", Error: "storm", Limit: 1}, 1)
		wantDead(s, asyncnats.DeadFilter{}, "3", "1")
		purge(asyncnats.DeadFilter{Task: "ship.wreck"}, 0)
		purge(asyncnats.DeadFilter{Task: "ship.sink"}, 2)
		purge(asyncnats.DeadFilter{}, 0)
		wantDead(s, asyncnats.DeadFilter{})
	})
}

// The list of failed jobs is as long to read as there are failed jobs, however
// many have succeeded.
func TestDeadIsListedWithoutSuccesses(t *testing.T) {
	tell(t, func(s *story) {
		const jobs, each = 21_000, 21
		var sea sea
		s.dispatch(dispatcher.Config{Handlers: sea.handlers(), UUID: uuid.New(), Agents: []agents.Agent{{Name: "main", Size: 64}}})
		calls := make([]asyncnats.Call[asyncnats.None], jobs)
		for i := range calls {
			calls[i] = wreck.Call("")
			if i%each == 0 {
				calls[i] = sink.Call(fmt.Sprint("storm ", i))
			}
		}
		if _, err := asyncnats.PutMany(s.Context(), s.queue, calls...); err != nil {
			s.Fatal(err)
		}
		for messages(s) > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		nc := s.server.Connect(s.T)
		client, err := asyncnats.Connect(s.Context(), nc, asyncnats.Config{Name: "reader"})
		if err != nil {
			s.Fatal(err)
		}
		queue := client.Queue(job.DefaultQueue)
		for _, row := range []struct {
			f          asyncnats.DeadFilter
			want, most int // entries, messages read
		}{
			{asyncnats.DeadFilter{}, jobs / each, jobs/each + 50},
			{asyncnats.DeadFilter{Error: "storm 0"}, 1, jobs/each + 50},
			{asyncnats.DeadFilter{Task: "ship.wreck"}, 0, 50},
			{asyncnats.DeadFilter{Limit: 20}, 20, 150},
			{asyncnats.DeadFilter{Since: time.Now()}, 0, 150},
		} {
			before := nc.Stats().InMsgs
			list, err := queue.Dead(s.Context(), row.f)
			if err != nil {
				s.Fatal(err)
			}
			if read := int(nc.Stats().InMsgs - before); len(list) != row.want || read > row.most {
				s.Errorf("%+v: %d jobs in %d messages, want %d in %d at most", row.f, len(list), read, row.want, row.most)
			}
		}
	})
}
