package integration

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// An agent that is removed just when it is given a job either has the job and
// stays, or is gone and has not: the job runs once, there or elsewhere, and at
// once (FEATURES, trap 12).
func TestRemovalAndClaim(t *testing.T) {
	if testing.Short() {
		t.Skip("many agents in real time")
	}
	_, url := startServer(t)
	nc, queue := connect(t, url, asyncnats.QueueConfig{})
	var mu sync.Mutex
	runs := make(map[job.ID][]string)
	quick := asyncnats.Define[asyncnats.None, string]("race.quick")
	handler := quick.Handle(func(ctx context.Context, _ asyncnats.None) (string, error) {
		info, _ := job.FromContext(ctx)
		mu.Lock()
		runs[info.ID] = append(runs[info.ID], info.Dispatcher)
		mu.Unlock()
		return info.Dispatcher, nil
	})
	removed, stays := uuid.New(), uuid.New()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, id := range []uuid.UUID{removed, stays} {
		d, err := dispatcher.New(nc, dispatcher.Config{
			UUID: id, Handlers: []job.Handler{handler}, Agents: []agents.Agent{{Name: "main", Size: 4}}, Log: quiet(),
		})
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
	await(t, func() bool {
		who, err := queue.Info(t.Context())
		return err == nil && len(who.Dispatchers) == 2
	})
	perform := func(n int) (here int) {
		var jobs []*asyncnats.Job[string]
		for range n {
			j, err := asyncnats.Put(t.Context(), queue, quick.Call(asyncnats.None{}))
			if err != nil {
				t.Fatal(err)
			}
			jobs = append(jobs, j)
		}
		for _, j := range jobs {
			by, err := j.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if by == removed.String() {
				here++
			}
		}
		return here
	}
	gone, busy, here := 0, 0, 0
	for range *raceRuns {
		await(t, func() bool { return perform(4) > 0 }) // it is at work
		done := make(chan error, 1)
		go func() {
			time.Sleep(rand.N(3 * time.Millisecond))
			done <- queue.RemoveAgent(t.Context(), removed.String(), "main")
		}()
		began := time.Now()
		here += perform(8)
		if took := time.Since(began); took > stream.DefaultAckWait/2 {
			t.Errorf("the jobs took %v", took)
		}
		switch err := <-done; {
		case err == nil:
			gone++
			if err := queue.AddAgent(t.Context(), removed.String(), agents.Agent{Name: "main", Size: 4}); err != nil {
				t.Fatal(err)
			}
		case errors.Is(err, asyncnats.ErrAgentBusy):
			busy++
		default:
			t.Fatal(err)
		}
	}
	for id, by := range runs {
		if len(by) != 1 {
			t.Errorf("%s ran %d times, by %v", id, len(by), by)
		}
	}
	t.Logf("removed %d times, busy %d times; it ran %d of %d jobs meanwhile", gone, busy, here, 8**raceRuns)
	if *raceRuns >= manyRuns && (gone == 0 || here == 0) {
		t.Error("that is no race")
	}
}
