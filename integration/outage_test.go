package integration

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/integration/internal/crew"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// The server is away for half a minute, twice as long as leases last, and comes
// back with its store. Dispatchers go on by themselves: jobs that waited, ran, or
// ended meanwhile, with quotas and without, have one outcome each, and so have
// those that a client began to put meanwhile. Nothing of an outage is left in the
// dispatchers, however often there is one.
func TestServerIsAwayForLong(t *testing.T) {
	const outage = 30 * time.Second
	natstest.Run(t, func(t *testing.T, server *natstest.Server) {
		js, err := jetstream.New(server.Connect(t))
		if err == nil {
			err = keepRevisions(t.Context(), js, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		client, err := asyncnats.Connect(t.Context(), js.Conn(), asyncnats.Config{})
		if err != nil {
			t.Fatal(err)
		}
		queue, err := client.CreateQueue(t.Context(), job.DefaultQueue, asyncnats.QueueConfig{})
		if err == nil {
			err = errors.Join(queue.CreateQuota(t.Context(), "one", 1), queue.CreateQuota(t.Context(), "three", 3))
		}
		if err != nil {
			t.Fatal(err)
		}
		p := &play{TB: t, queue: queue, js: js, log: filepath.Join(t.TempDir(), "log"), began: time.Now()}
		for range 2 {
			crew.Hire(t, server, dispatcher.Config{Handlers: handlers(p.log), Agents: []agents.Agent{{Name: "main", Size: 6}}})
		}
		var mu sync.Mutex
		kinds := [][]string{nil, nil, {"one"}, {"three"}, {"three"}, {"one", "three"}}
		put := func(count int, takes func(i int) time.Duration) {
			for i := range count {
				quotas := kinds[i%len(kinds)]
				ctx, cancel := context.WithTimeout(t.Context(), 2*outage)
				j, err := asyncnats.Put(ctx, queue, limited[i%len(limited)].Call(takes(i)).Quota(quotas...))
				cancel()
				if err != nil {
					t.Errorf("put %d: %v", i, err)
					return
				}
				mu.Lock()
				p.put, p.jobs = append(p.put, limitedPut{quotas: quotas}), append(p.jobs, j)
				mu.Unlock()
			}
		}
		finish := func(patience time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for i, j := range p.jobs {
				if _, err := j.Wait(ctx); err != nil {
					t.Fatalf("job %d of %d, of %q: %v", i, len(p.jobs), p.put[i].quotas, err)
				}
			}
		}
		brief := func(int) time.Duration { return time.Millisecond }
		put(len(kinds)*len(limited), brief) // opens all lanes
		finish(time.Minute)
		time.Sleep(time.Minute)
		idle := ourGoroutines()
		for range 3 {
			// Some end before the outage, some in it, some after their leases
			// are lost.
			put(40, func(i int) time.Duration { return time.Duration(1+i*7%23) * time.Second })
			time.Sleep(3 * time.Second)
			server.Stop()
			var client sync.WaitGroup
			client.Go(func() {
				time.Sleep(outage / 2)
				put(10, brief)
			})
			time.Sleep(outage)
			server.Restart(t)
			client.Wait()
			at := time.Now()
			finish(5 * time.Minute) // those that name quota one take two and a half
			t.Logf("all was done %v after the outage", time.Since(at))
			time.Sleep(time.Minute)
			if now := ourGoroutines(); now > idle {
				t.Errorf("%d goroutines after the outage, %d before", now, idle)
			}
		}
		p.check()
	})
}

// ourGoroutines counts the goroutines that run code of this module or of the
// client library, and not of the server; but for an agent's workers without a job, of
// which a few stay.
func ourGoroutines() (n int) {
	stacks := make([]byte, 16<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		resting := strings.Contains(stack, "(*Runner).serve(") && !strings.Contains(stack, "(*Runner).serveOne(")
		if !resting && !strings.Contains(stack, "nats-server") &&
			(strings.Contains(stack, "asyncnats/asyncnats/") || strings.Contains(stack, "nats-io/nats.go")) {
			n++
		}
	}
	return n
}
