package integration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// What happens to a composition just when its last part is completed happens or does
// not, and everybody is told the same; two dispatchers go on with it.
func TestOneWinnerOfComposition(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of jobs in real time")
	}
	t.Parallel()
	quick := asyncnats.Define[time.Duration, string]("race.quick")
	count := asyncnats.Define[asyncnats.Bound[string, asyncnats.Outcome[[]asyncnats.Outcome[string]]], asyncnats.None]("race.count")
	single := asyncnats.Define[asyncnats.Bound[string, string], asyncnats.None]("race.single")
	var counted sync.Map // of *atomic.Int64, by name
	counts := func(name string) *atomic.Int64 {
		n, _ := counted.LoadOrStore(name, new(atomic.Int64))
		return n.(*atomic.Int64)
	}
	handlers := []job.Handler{
		quick.Handle(func(_ context.Context, d time.Duration) (string, error) {
			time.Sleep(d)
			return "done", nil
		}),
		count.Handle(func(_ context.Context, b asyncnats.Bound[string, asyncnats.Outcome[[]asyncnats.Outcome[string]]]) (asyncnats.None, error) {
			counts(b.With).Add(1)
			return asyncnats.None{}, nil
		}),
		single.Handle(func(_ context.Context, b asyncnats.Bound[string, string]) (asyncnats.None, error) {
			counts(b.With).Add(1)
			return asyncnats.None{}, nil
		}),
	}
	type whole = asyncnats.Call[[]asyncnats.Outcome[string]]
	part := func() asyncnats.Call[string] { return quick.Call(time.Millisecond) }
	// each race returns 1 where what came from outside won.
	for name, race := range map[string]func(t *testing.T, queue *asyncnats.Queue, n int) (won int){
		"the last part and a cancel": func(t *testing.T, queue *asyncnats.Queue, n int) int {
			call := []whole{asyncnats.Parallel(part(), part()), asyncnats.Serial(part(), part())}[n%2]
			return cancelWholeInRace(t, queue, call, fmt.Sprint("cancel", n), count, counts)
		},
		"the begin and a cancel": func(t *testing.T, queue *asyncnats.Queue, n int) int {
			return cancelWholeInRace(t, queue, asyncnats.Parallel(part().In(time.Millisecond)), fmt.Sprint("begin", n), count, counts)
		},
		"the last part and parts that are added": func(t *testing.T, queue *asyncnats.Queue, n int) int {
			j := mustPut(t, queue, []whole{asyncnats.Parallel(part()), asyncnats.Serial(part())}[n%2])
			time.Sleep(aWhile() / 4)
			err := asyncnats.AddParts(t.Context(), j, part(), part())
			outcomes, waitErr := j.Wait(t.Context())
			won := 0
			if err == nil {
				won = 1
			}
			if waitErr != nil || len(outcomes) != 1+2*won || err != nil && !errors.Is(err, asyncnats.ErrCompleted) {
				t.Errorf("%s: added: %v; %d outcomes, %v", j.ID(), err, len(outcomes), waitErr)
			}
			for i, o := range outcomes {
				if o.Result != "done" {
					t.Errorf("%s: outcome %d: %+v", j.ID(), i, o)
				}
			}
			return won
		},
		"two last parts": func(t *testing.T, queue *asyncnats.Queue, n int) int {
			call := asyncnats.Parallel(quick.Call(5*time.Millisecond), quick.Call(5*time.Millisecond))
			j := mustPut(t, queue, call.OnDone(asyncnats.Bind(count, fmt.Sprint("two", n))))
			outcomes, err := j.Wait(t.Context())
			if err != nil || len(outcomes) != 2 || outcomes[0].Result != "done" || outcomes[1].Result != "done" {
				t.Errorf("%s: %+v, %v", j.ID(), outcomes, err)
			}
			await(t, func() bool { return counts(fmt.Sprint("two", n)).Load() > 0 })
			return n % 2
		},
		"the completion and a callback": func(t *testing.T, queue *asyncnats.Queue, n int) int {
			j := mustPut(t, queue, part())
			time.Sleep(aWhile() / 8)
			name := fmt.Sprint("callback", n)
			if err := j.OnSuccess(t.Context(), asyncnats.Bind(single, name)); err != nil {
				t.Errorf("%s: %v", j.ID(), err)
			}
			if _, err := j.Wait(t.Context()); err != nil {
				t.Errorf("%s: %v", j.ID(), err)
			}
			await(t, func() bool { return counts(name).Load() > 0 })
			status, err := j.Status(t.Context())
			if err != nil || status.Record == nil {
				t.Fatalf("%+v, %v", status, err)
			}
			return min(1, len(status.Record.Called))
		},
		"the removal and a put of the same ID": func(t *testing.T, queue *asyncnats.Queue, n int) int {
			id := fmt.Sprint("again-", n)
			large := asyncnats.Define[[]byte, string]("race.large")
			call := asyncnats.Serial(large.Call(make([]byte, 3000)), large.Call(make([]byte, 3000))).ID(id)
			first := mustPut(t, queue, call)
			if _, err := first.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			second, err := asyncnats.Put(t.Context(), queue, call)
			if errors.Is(err, asyncnats.ErrExists) {
				if again, err := second.Wait(t.Context()); err != nil || len(again) != 2 {
					t.Errorf("%v, %v", again, err)
				}
				return 0
			}
			if err != nil {
				t.Fatal(err)
			}
			if outcomes, err := second.Wait(t.Context()); err != nil || len(outcomes) != 2 || outcomes[1].Result != "done" {
				t.Errorf("%+v, %v", outcomes, err)
			}
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, url := startServer(t)
			nc, queue := connect(t, url, asyncnats.QueueConfig{})
			large := asyncnats.Define[[]byte, string]("race.large")
			all := append(handlers[:len(handlers):len(handlers)], large.Handle(func(context.Context, []byte) (string, error) { return "done", nil }))
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			for range 2 {
				nc, _ := connect(t, url, asyncnats.QueueConfig{})
				d, err := dispatcher.New(nc, dispatcher.Config{UUID: uuid.New(), Handlers: all, Agents: []agents.Agent{{Name: "main", Size: 16}}})
				if err != nil {
					t.Fatal(err)
				}
				running.Go(func() {
					if err := d.Run(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			defer running.Wait()
			defer stop()
			var won, lost atomic.Int64
			var racers sync.WaitGroup
			runs := make(chan int)
			for range 32 {
				racers.Go(func() {
					for n := range runs {
						wins := race(t, queue, n)
						won.Add(int64(wins))
						lost.Add(int64(1 - wins))
					}
				})
			}
			for n := range max(1, *raceRuns/4) { // each takes longer than those of a job
				runs <- n
			}
			close(runs)
			racers.Wait()
			if *raceRuns >= manyRuns && (won.Load() == 0 || lost.Load() == 0) && name != "the removal and a put of the same ID" {
				t.Errorf("%d and %d: that is no race", won.Load(), lost.Load())
			}
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			awaitEmpty(t, js)
			counted.Range(func(name, n any) bool {
				if n.(*atomic.Int64).Load() != 1 {
					t.Errorf("callback %v was performed %d times", name, n.(*atomic.Int64).Load())
				}
				return true
			})
			counted.Clear()
			t.Logf("%d to %d", won.Load(), lost.Load())
		})
	}
}

func mustPut[R any](t *testing.T, queue *asyncnats.Queue, call asyncnats.Call[R]) *asyncnats.Job[R] {
	t.Helper()
	j, err := asyncnats.Put(t.Context(), queue, call)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// cancelWholeInRace cancels a composition after a while, and returns 1 where that
// was in time. Its callback is put once in any case.
func cancelWholeInRace(t *testing.T, queue *asyncnats.Queue, call asyncnats.Call[[]asyncnats.Outcome[string]], name string,
	count asyncnats.Task[asyncnats.Bound[string, asyncnats.Outcome[[]asyncnats.Outcome[string]]], asyncnats.None], counts func(string) *atomic.Int64,
) (won int) {
	t.Helper()
	j := mustPut(t, queue, call.OnDone(asyncnats.Bind(count, name)))
	time.Sleep(aWhile() / 4)
	_, err := j.Cancel(t.Context())
	outcomes, waitErr := j.Wait(t.Context())
	switch {
	case err == nil && errors.Is(waitErr, job.ErrCancelled):
		won = 1
	case errors.Is(err, asyncnats.ErrCompleted) && waitErr == nil:
	default:
		t.Errorf("%s: cancelled: %v; %d outcomes, %v", j.ID(), err, len(outcomes), waitErr)
	}
	await(t, func() bool { return counts(name).Load() > 0 })
	return won
}
