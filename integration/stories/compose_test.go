package stories

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

var (
	// sum adds up what parts returned, and counts those that failed.
	sum = asyncnats.Define[[]asyncnats.Outcome[int], string]("story.sum")
	// total adds up what parts returned.
	total = asyncnats.Define[[]asyncnats.Outcome[int], int]("story.total")
)

// ensemble is a troupe that composes.
func ensemble(d *diary, more ...job.Handler) dispatcher.Config {
	config := troupe(d)
	config.Handlers = append(config.Handlers,
		sum.Handle(func(_ context.Context, parts []asyncnats.Outcome[int]) (string, error) {
			total, failed := add(parts)
			d.write("sum of %d", len(parts))
			return fmt.Sprintf("%d, %d failed", total, failed), nil
		}),
		total.Handle(func(_ context.Context, parts []asyncnats.Outcome[int]) (int, error) {
			total, _ := add(parts)
			return total, nil
		}))
	config.Handlers = append(config.Handlers, more...)
	return config
}

// add adds up what parts returned, and counts those that failed.
func add(parts []asyncnats.Outcome[int]) (total, failed int) {
	for _, part := range parts {
		if part.Failure != nil {
			failed++
		}
		total += part.Result
	}
	return total, failed
}

// TestParallel follows the usage document's parallel: the postprocess gets the
// outcomes of all parts in order, those that failed among them (FEATURES 202–208).
func TestParallel(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := ensemble(&d)
		config.Agents[0].Size = 3
		s.dispatch(config)
		parts := asyncnats.Parallel(work.Call("a"), work.Call("bad"), work.Call("ccc"))
		whole := put(s, asyncnats.Then(parts, sum))
		if got := wait(s, whole); got != "4, 1 failed" {
			t.Errorf("got %q", got)
		}
		if n := len(d.read()); n != 4 {
			t.Errorf("%d lines, want 4: %q", n, d.read())
		}
		outcomes := wait(s, put(s, parts))
		if len(outcomes) != 3 || outcomes[0].Result != 1 || outcomes[1].Failure.Message != "cannot do bad" || outcomes[2].Result != 3 {
			t.Errorf("outcomes %+v", outcomes)
		}
		s.settled()
		if r := record(s, whole); r.State != job.Completed || r.Parts.Completed() != 2 {
			t.Errorf("record %+v", r)
		}
	})
}

// Parts of several types are decoded by who gets their outcomes.
func TestPartsOfSeveralTypes(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		read := func(parts []asyncnats.Outcome[job.Value]) (text string) {
			var n int
			if err := errors.Join(parts[0].Result.Decode(&n), parts[1].Result.Decode(&text)); err != nil {
				s.Error(err)
			}
			return fmt.Sprint(n, " ", text)
		}
		join := asyncnats.Define[[]asyncnats.Outcome[job.Value], string]("story.join")
		rest := asyncnats.Define[asyncnats.Outcome[job.Value], asyncnats.None]("story.rest")
		s.dispatch(ensemble(&d,
			shout.Handle(func(_ context.Context, text string) (string, error) { return strings.ToUpper(text), nil }),
			join.Handle(func(_ context.Context, parts []asyncnats.Outcome[job.Value]) (string, error) { return read(parts), nil }),
			rest.Handle(func(_ context.Context, o asyncnats.Outcome[job.Value]) (asyncnats.None, error) {
				var text string
				err := o.Result.Decode(&text)
				d.write("rest %s", text)
				return asyncnats.None{}, err
			}),
		))
		parts := asyncnats.Parallel(work.Call("ab").Any(), shout.Call("x").Any().OnDone(rest))
		if got := read(wait(s, put(s, parts))); got != "2 X" {
			s.Errorf("waited for %q", got)
		}
		if got := wait(s, put(s, asyncnats.Then(parts, join))); got != "2 X" {
			s.Errorf("went on with %q", got)
		}
		d.wantAny(s, "work ab", "rest X", "work ab", "rest X")
	})
}

// settled waits until nothing is left in the queue.
func (s *story) settled() {
	s.Helper()
	s.settledBut(0)
}

// settledBut waits until so many jobs are left in the queue.
func (s *story) settledBut(jobs uint64) {
	s.Helper()
	waitFor(s, func() bool {
		info, err := s.queue.Info(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		return info.Messages == jobs && s.stored() == 1+jobs // the meta message
	})
}

// forgotten stops a dispatcher, and looks whether the records of all jobs go by
// themselves in about a day. That the server has them go is TestKeep's to see.
func (s *story) forgotten(working *staff) {
	s.Helper()
	working.stop()
	bucket, err := s.server.JetStream(s.T).Stream(s.Context(), "KV_ASYNC_JOBS")
	if err != nil {
		s.Fatal(err)
	}
	info, err := bucket.Info(s.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		s.Fatal(err)
	}
	if len(info.State.Subjects) == 0 {
		s.Error("no job has a record")
	}
	for subject := range info.State.Subjects {
		record, err := bucket.GetLastMsgForSubject(s.Context(), subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // it went just now
		}
		if err != nil {
			s.Fatal(err)
		}
		ttl, err := time.ParseDuration(record.Header.Get(jetstream.MsgTTLHeader))
		if err != nil || ttl > 25*time.Hour {
			s.Errorf("%s is kept for %v, %v", subject, ttl, err)
		}
	}
}

// stored is how many messages the stream of the default queue has.
func (s *story) stored() uint64 {
	s.Helper()
	stream, err := s.server.JetStream(s.T).Stream(s.Context(), "ASYNC_default")
	if err != nil {
		s.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// TestSerial runs parts one after another, whatever becomes of them (FEATURES 203, 204).
func TestSerial(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := ensemble(&d)
		config.Agents[0].Size = 3
		s.dispatch(config)
		whole := put(s, asyncnats.Then(asyncnats.Serial(work.Call("a"), work.Call("bad"), work.Call("ccc")), sum))
		if got := wait(s, whole); got != "4, 1 failed" {
			t.Errorf("got %q", got)
		}
		d.want(s, "work a", "work bad", "work ccc", "sum of 3")
		s.settled()
	})
}

// TestThen ends with the first failure, and does not go on after it.
func TestThen(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(ensemble(&d))
		chain := func(arg string) asyncnats.Call[asyncnats.None] { return asyncnats.Then(work.Call(arg), noted) }
		wait(s, put(s, chain("abc")))
		d.want(s, "work abc", "noted 3")
		_, err := put(s, chain("bad").OnFailure(mourned)).Wait(s.Context())
		failure, failed := errors.AsType[*job.Failure](err)
		if !failed || failure.Message != "cannot do bad" {
			t.Errorf("got %v, want the failure of the first", err)
		}
		d.want(s, "work abc", "noted 3", "work bad", "mourned error: cannot do bad")
		s.settled()
	})
}

// TestEmptyCompositions have the empty list for a result.
func TestEmptyCompositions(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(ensemble(&d))
		for _, call := range []asyncnats.Call[[]asyncnats.Outcome[int]]{asyncnats.Parallel[int](), asyncnats.Serial[int]()} {
			if got := wait(s, put(s, call)); len(got) != 0 {
				t.Errorf("got %v", got)
			}
		}
		s.settled()
	})
}

// TestNesting composes compositions, five levels deep.
func TestNesting(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		config := ensemble(&d)
		config.Agents[0].Size = 2
		working := s.dispatch(config)
		call := work.Call("a")
		for range 5 {
			call = asyncnats.Then(asyncnats.Parallel(call, asyncnats.Then(asyncnats.Serial(call, work.Call("bb")), total)), total)
		}
		if got := wait(s, put(s, call)); got != 94 { // each level doubles, and adds 2
			t.Errorf("got %d, want 94", got)
		}
		works := 0
		for _, line := range d.read() {
			if strings.HasPrefix(line, "work") {
				works++
			}
		}
		if want := 32 + 31; works != want {
			t.Errorf("%d parts were performed, want %d", works, want)
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestDelegation returns a call from a handler, which returns one in turn (FEATURES
// 66, 209).
func TestDelegation(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		outer := asyncnats.Define[string, int]("story.outer")
		middle := asyncnats.Define[string, int]("story.middle")
		working := s.dispatch(ensemble(&d,
			outer.HandleCall(func(_ context.Context, arg string) (asyncnats.Call[int], error) {
				d.write("outer %s", arg)
				if arg == "" {
					return asyncnats.Return(-1), nil
				}
				return middle.Call(arg + "!"), nil
			}),
			middle.HandleCall(func(_ context.Context, arg string) (asyncnats.Call[int], error) {
				d.write("middle %s", arg)
				return work.Call(arg + "?"), nil
			}),
		))
		j := put(s, outer.Call("abc").OnSuccess(noted))
		if got := wait(s, j); got != 5 {
			t.Errorf("got %d, want 5", got)
		}
		d.want(s, "outer abc", "middle abc!", "work abc!?", "noted 5")
		if got := wait(s, put(s, outer.Call(""))); got != -1 {
			t.Errorf("got %d, want -1", got)
		}
		_, err := put(s, outer.Call("bad")).Wait(s.Context())
		if failure, failed := errors.AsType[*job.Failure](err); !failed || failure.Message != "cannot do bad!?" {
			t.Errorf("got %v, want the failure of what it was handed on to", err)
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestParentsHoldNoPlace has as many parents wait as their agent has places, for
// children that need one too, and slots of the same quota (FEATURES b8).
func TestParentsHoldNoPlace(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.Limit(s.Context(), "narrow", 1); err != nil {
			t.Fatal(err)
		}
		var d diary
		parent := asyncnats.Define[int, string]("story.parent")
		config := ensemble(&d, parent.HandleCall(func(_ context.Context, n int) (asyncnats.Call[string], error) {
			return asyncnats.Then(asyncnats.Parallel(work.Call("a").Quota("narrow"), work.Call("bb").Quota("narrow")), sum), nil
		}))
		config.Agents = []agents.Agent{{Name: "main", Size: 3}}
		s.dispatch(config)
		var parents []*asyncnats.Job[string]
		for i := range 9 {
			parents = append(parents, put(s, parent.Call(i).Quota("narrow")))
		}
		for _, p := range parents {
			if got := wait(s, p); got != "3, 0 failed" {
				t.Errorf("got %q", got)
			}
		}
		s.settled()
	})
}

// TestScheduledParts begin when their calls say, and a composition when its own does.
func TestScheduledParts(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		begin := time.Now()
		config := ensemble(&d)
		at := asyncnats.Define[string, time.Duration]("story.at")
		config.Handlers = append(config.Handlers, at.Handle(func(context.Context, string) (time.Duration, error) {
			return time.Since(begin).Round(time.Second), nil
		}))
		s.dispatch(config)
		got := wait(s, put(s, asyncnats.Serial(at.Call("x"), at.Call("x").In(10*time.Minute), at.Call("x").In(10*time.Minute)).In(time.Minute)))
		want := []time.Duration{time.Minute, 11 * time.Minute, 21 * time.Minute}
		for i, o := range got {
			if o.Result != want[i] {
				t.Errorf("part %d began after %v, want %v", i, o.Result, want[i])
			}
		}
		s.settled()
	})
}

// TestCancelWhole cancels a composition while parts of it run, are pending, are
// scheduled, and are compositions.
func TestCancelWhole(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		stop := asyncnats.Define[string, int]("story.stop")
		began := make(chan struct{}, 1)
		config := ensemble(&d, stop.Handle(func(ctx context.Context, _ string) (int, error) {
			began <- struct{}{}
			<-ctx.Done()
			d.write("stopped: %v", context.Cause(ctx))
			return 0, ctx.Err()
		}))
		config.Agents[0].Size = 2 // one for what is to be stopped
		working := s.dispatch(config)
		whole := put(s, asyncnats.Parallel(
			work.Call("a"),
			stop.Call(""),
			work.Call("later").In(10*time.Minute),
			asyncnats.Then(asyncnats.Serial(work.Call("b").In(10*time.Minute), work.Call("c")), total),
		).OnFailure(mourned))
		<-began
		time.Sleep(time.Second)
		if was, err := whole.Cancel(s.Context()); err != nil || was != job.Waiting {
			t.Fatalf("cancelled as %s, %v", was, err)
		}
		_, err := whole.Wait(s.Context())
		if !errors.Is(err, job.ErrCancelled) {
			t.Errorf("got %v, want ErrCancelled", err)
		}
		time.Sleep(30 * time.Minute)
		got := strings.Join(d.read(), "\n")
		for _, want := range []string{"work a", "stopped: job cancelled", "mourned cancelled: it was waiting"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q did not happen", want)
			}
		}
		if n := len(d.read()); n != 3 {
			t.Errorf("%d lines, want 3: %q", n, d.read())
		}
		s.settled()
		s.forgotten(working)
	})
}

// TestCancelPart has one of the parts fail, and the whole complete.
func TestCancelPart(t *testing.T) {
	tell(t, func(s *story) {
		var d diary
		s.dispatch(ensemble(&d))
		whole := put(s, asyncnats.Then(asyncnats.Parallel(work.Call("a"), work.Call("later").In(10*time.Minute)), sum))
		var part job.ID
		waitFor(s, func() bool {
			jobs, err := s.queue.Jobs(s.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range jobs {
				if j.Task == "story.work" && j.State == job.Pending {
					part = j.ID
				}
			}
			return part != ""
		})
		j, err := asyncnats.Lookup[int](s.Context(), s.queue, string(part))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Cancel(s.Context()); err != nil {
			t.Fatal(err)
		}
		if got := wait(s, whole); got != "1, 1 failed" {
			t.Errorf("got %q", got)
		}
		s.settled()
	})
}

// TestPartsInOtherQueues spreads parts over queues.
func TestPartsInOtherQueues(t *testing.T) {
	tell(t, func(s *story) {
		for _, name := range []string{"audio", "video"} {
			if _, err := s.client.CreateQueue(s.Context(), name, asyncnats.QueueConfig{}); err != nil {
				t.Fatal(err)
			}
		}
		var d diary
		s.dispatch(ensemble(&d))
		whole := put(s, asyncnats.Then(asyncnats.Parallel(work.Call("a").Queue("audio"), work.Call("bb").Queue("video"), work.Call("ccc")), sum.Queue("audio")))
		if got := wait(s, whole); got != "6, 0 failed" {
			t.Errorf("got %q", got)
		}
		s.settled()
	})
}

// TestQueueOfPartsGoes has parts fail whose queue was deleted, not wait for ever.
func TestQueueOfPartsGoes(t *testing.T) {
	tell(t, func(s *story) {
		if _, err := s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{}); err != nil {
			t.Fatal(err)
		}
		whole := put(s, asyncnats.Then(asyncnats.Parallel(work.Call("a").Queue("audio"), work.Call("bb")), sum))
		if err := s.client.DeleteQueue(s.Context(), "audio"); err != nil {
			t.Fatal(err)
		}
		var d diary
		s.dispatch(ensemble(&d))
		if got := wait(s, whole); got != "2, 1 failed" {
			t.Errorf("got %q", got)
		}
		s.settled()
	})
}

// TestIllegalCompositions refuses what would fail later.
func TestIllegalCompositions(t *testing.T) {
	tell(t, func(s *story) {
		type whole = asyncnats.Call[[]asyncnats.Outcome[int]]
		parts := asyncnats.Parallel(work.Call("a"))
		for name, row := range map[string]struct {
			call whole
			want string
		}{
			"quota of a whole":     {parts.Quota("gpu"), "a composition has no quotas: give it to its parts"},
			"timeout of a whole":   {parts.Timeout(time.Second), "a composition has no timeout: give it to its parts"},
			"retry of a whole":     {parts.Retry(job.Retry{Max: 1}), "a composition has no retry policy: give it to its parts"},
			"priority of a whole":  {parts.Priority(job.High), "a composition has no priority: give it to its parts"},
			"replacing":            {parts.ID("x").Replace(), "a composition replaces no job"},
			"ID of a part":         {asyncnats.Serial(work.Call("a"), work.Call("a").ID("x")), "part 1: story.work: a job that belongs to another has its ID from that"},
			"key of a part":        {asyncnats.Parallel(work.Call("a").Unique("x")), "part 0: story.work: a job that belongs to another has its ID from that"},
			"illegal task":         {asyncnats.Parallel(asyncnats.Define[string, int]("a b").Call("")), `part 0: call of a b`},
			"unknown quota":        {asyncnats.Parallel(work.Call("a").Quota("nothing")), "part 0: unknown quota"},
			"unknown queue":        {asyncnats.Parallel(work.Call("a").Queue("nowhere")), "part 0: queue nowhere"},
			"result as a call":     {asyncnats.Parallel(asyncnats.Return(1)), "a result is no call"},
			"another queue":        {parts.Queue("audio"), "call names queue audio and is put on queue default"},
			"unique callback":      {parts.OnFailure(mourned.UniqueBy(func(job.Failure) any { return 1 })), "a job that belongs to another has its ID from that"},
			"callback of a part":   {asyncnats.Parallel(work.Call("a").OnSuccess(noted.Queue("nowhere"))), "part 0: queue nowhere"},
			"deep, of a callback":  {asyncnats.Parallel(work.Call("a").OnSuccess(noted.Retry(job.Retry{Never: true, Max: 1}))), "never and max 1 exclude each other"},
			"deadline of the past": {parts.Within(-time.Second), "must not be negative"},
		} {
			_, err := asyncnats.Put(s.Context(), s.queue, row.call)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: got %v, want %q", name, err, row.want)
			}
		}
		if diff := cmp.Diff(uint64(1), s.stored()); diff != "" {
			t.Errorf("something is stored: %s", diff)
		}
	})
}
