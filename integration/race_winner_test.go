package integration

import (
	"context"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// manyRuns is from how many runs on each race must have had both ends: a busy
// machine may be too slow for one of them in a few.
const manyRuns = 1000

var raceRuns = flag.Int("race.runs", 12, "how often each race is run")

// A job that is cancelled just when something else happens to it has one outcome,
// and everybody is told the same (FEATURES, trap 12): whoever cancels, whoever
// waits, and whoever reads the record.
func TestOneWinner(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of jobs in real time")
	}
	var ran sync.Map // by ID
	again := asyncnats.Define[time.Duration, string]("race.again")
	quick := asyncnats.Define[time.Duration, string]("race.quick")
	handlers := []job.Handler{
		quick.Handle(func(ctx context.Context, d time.Duration) (string, error) {
			info, _ := job.FromContext(ctx)
			ran.Store(info.ID, true)
			time.Sleep(d)
			return "done", nil
		}),
		again.Handle(func(ctx context.Context, d time.Duration) (string, error) {
			if info, _ := job.FromContext(ctx); info.Attempt == 1 {
				return "", job.RetryAfter(d, errors.New("broken"))
			}
			return "done", nil
		}),
	}
	type call = asyncnats.Call[string]
	for name, race := range map[string]struct {
		call func() call
		from time.Duration // before it is cancelled, at least
		two  bool          // who cancel it
		late bool          // its deadline passes instead
		none bool          // its result is not kept
	}{
		"claim":             {call: func() call { return quick.Call(0) }},
		"completion":        {call: func() call { return quick.Call(time.Millisecond) }},
		"firing":            {call: func() call { return quick.Call(0).In(350 * time.Millisecond) }, from: 300 * time.Millisecond},
		"retry":             {call: func() call { return again.Call(time.Millisecond) }, from: 200 * time.Millisecond},
		"at once":           {call: func() call { return again.Call(0) }},
		"a start on record": {call: func() call { return quick.Call(0).Retry(job.Retry{Never: true}) }},
		"a quota":           {call: func() call { return quick.Call(0).Quota("two") }},
		"nothing is kept":   {call: func() call { return quick.Call(time.Millisecond).Keep(job.KeepNone) }, none: true},
		"a cancel":          {call: func() call { return quick.Call(0) }, two: true},
		"a deadline":        {call: func() call { return quick.Call(time.Millisecond).Within(time.Minute) }, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, url := startServer(t)
			nc, queue := connect(t, url, asyncnats.QueueConfig{})
			if err := queue.CreateQuota(t.Context(), "two", 2); err != nil {
				t.Fatal(err)
			}
			d, err := dispatcher.New(nc, dispatcher.Config{UUID: uuid.New(), Handlers: handlers, Agents: []agents.Agent{{Name: "main", Size: 16}}})
			if err != nil {
				t.Fatal(err)
			}
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			ns, err := stream.Open(t.Context(), js, "")
			if err != nil {
				t.Fatal(err)
			}
			opened, err := ns.Queue(t.Context(), job.DefaultQueue)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() {
				if err := d.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			defer running.Wait()
			defer stop()
			var mu sync.Mutex
			won, lost := 0, 0
			var racers sync.WaitGroup
			runs := make(chan struct{})
			for range 64 {
				racers.Go(func() {
					for range runs {
						j, err := asyncnats.Put(t.Context(), queue, race.call())
						if err != nil {
							t.Error(err)
							continue
						}
						var wins int
						if race.late {
							wins = expireInRace(t, opened, j, race.from+aWhile(), &ran)
						} else {
							wins = cancelInRace(t, j, race.from+aWhile(), race.two, race.none)
						}
						mu.Lock()
						won, lost = won+wins, lost+1-wins
						mu.Unlock()
					}
				})
			}
			for range *raceRuns {
				runs <- struct{}{}
			}
			close(runs)
			racers.Wait()
			if *raceRuns >= manyRuns && (won == 0 || lost == 0 && !race.two) {
				t.Errorf("%d were cancelled and %d were not: that is no race", won, lost)
			}
			// Whoever was cancelled last is paid for at once, not when its
			// message is delivered again.
			began := time.Now()
			await(t, func() bool {
				info, err := queue.Info(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				quota, err := queue.Quota(t.Context(), "two")
				if err != nil {
					t.Fatal(err)
				}
				return info.Messages == 0 && len(quota.Holders)+len(quota.Waiters) == 0
			})
			if took := time.Since(began); took > stream.DefaultAckWait/2 {
				t.Errorf("what was owed was paid after %v", took)
			}
			t.Logf("%d were cancelled, %d were not", won, lost)
		})
	}
}

// aWhile is up to half a second, mostly some milliseconds: a busy machine takes
// longer for everything, and each race is to have both ends.
func aWhile() time.Duration {
	return time.Duration(math.Pow(rand.Float64(), 6) * float64(500*time.Millisecond))
}

// cancelInRace cancels a job after a while, by one or two, and checks that all
// agree on how it ended. It returns 1 where it was cancelled. none says that nothing
// is to be left of one that was not.
func cancelInRace(t *testing.T, j *asyncnats.Job[string], after time.Duration, two, none bool) (wins int) {
	t.Helper()
	errs := make(chan error, 2)
	cancel := func() {
		time.Sleep(after)
		_, err := j.Cancel(t.Context())
		errs <- err
	}
	n := 1
	if two {
		n = 2
		go cancel()
	}
	go cancel()
	result, err := j.Wait(t.Context())
	for range n {
		switch cancelErr := <-errs; {
		case cancelErr == nil:
			wins++
		case none && errors.Is(cancelErr, asyncnats.ErrNoJob):
		case !errors.Is(cancelErr, asyncnats.ErrCompleted):
			t.Errorf("cancel: %v", cancelErr)
		}
	}
	none = none && wins == 0
	switch {
	case wins > 1:
		t.Errorf("%s was cancelled %d times", j.ID(), wins)
	case wins == 1 && !errors.Is(err, job.ErrCancelled):
		t.Errorf("%s was cancelled, and ended with %q, %v", j.ID(), result, err)
	case none && errors.Is(err, asyncnats.ErrOutcomeNotKept):
	case wins == 0 && err != nil:
		t.Errorf("%s was not cancelled, and ended with %v", j.ID(), err)
	}
	status, err := j.Status(t.Context())
	if none {
		if !errors.Is(err, asyncnats.ErrNoJob) {
			t.Errorf("%s: %+v, %v, want that nothing is left", j.ID(), status, err)
		}
		return 0
	}
	if err != nil || status.Record == nil || status.Record.EndedAs(job.KindCancelled) != (wins == 1) {
		t.Errorf("%s: %+v, %v, want that it says cancelled: %t", j.ID(), status, err, wins == 1)
	}
	return min(wins, 1)
}

// expireInRace has a job's deadline pass after a while, and checks that it either
// ran and did what it was to do, or did not run. It returns 1 where it expired.
func expireInRace(t *testing.T, queue *stream.Queue, j *asyncnats.Job[string], after time.Duration, ran *sync.Map) (wins int) {
	t.Helper()
	found, err := queue.Find(t.Context(), j.ID())
	spec, _ := found.Spec()
	if err == nil {
		time.Sleep(after)
		err = queue.Expire(t.Context(), stream.Due{
			Timer: stream.Timer{Kind: stream.TimerDeadline, Of: string(j.ID()), Nonce: spec.Nonce}, At: time.Now(), Fired: time.Now(),
		})
	}
	if err != nil && !errors.Is(err, asyncnats.ErrNoJob) {
		t.Error(err)
	}
	_, outcome := j.Wait(t.Context())
	_, did := ran.Load(j.ID())
	switch failure, failed := errors.AsType[*job.Failure](outcome); {
	case outcome == nil && did:
		return 0
	case failed && failure.Kind == job.KindExpired && !did:
		return 1
	}
	t.Errorf("%s ended with %v, and ran: %t", j.ID(), outcome, did)
	return 0
}
