package integration

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Of processes each run takes an ack wait, since one of them dies.
var processCourse = course{
	dispatchers: 4, jobs: 300, edits: 60, span: 2 * time.Second,
	takes: func(r *rand.Rand) time.Duration { return time.Duration(r.IntN(20_000)) * time.Microsecond },
	faults: func(r *rand.Rand) [][]fault {
		faults := make([][]fault, 4)
		kinds := []string{"terminated", "killed", "killed"}[:2+r.IntN(2)]
		for n, i := range r.Perm(len(faults))[:len(kinds)] {
			faults[i] = []fault{{after: time.Duration(200+r.IntN(1500)) * time.Millisecond, kind: kinds[n]}}
		}
		return faults
	},
}

// What TestQuotaHistory says of dispatchers in one process holds for processes
// that are killed.
func TestQuotaHistoryOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for ack waits in real time")
	}
	t.Parallel()
	eachSeed(t, max(1, *quotaSeeds/10), func(t *testing.T, seed uint64) {
		_, url := startServer(t)
		nc, err := nats.Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		p := processCourse.draw(seed).start(t, js, time.Minute)
		crew, ids := make([]*process, len(p.agents)), make([]uuid.UUID, len(p.agents))
		hire := func(i int) {
			ids[i] = uuid.New()
			crew[i] = startWorker(t, workerConfig{URL: url, UUID: ids[i], Size: p.agents[i], Grace: -1, Log: p.log})
			t.Logf("dispatcher %d is %s", i, ids[i])
		}
		var hiring sync.WaitGroup
		for i := range crew {
			hiring.Go(func() { hire(i) })
		}
		hiring.Wait()
		p.run(func(i int, f fault) {
			signal := syscall.SIGTERM
			if f.kind == "killed" {
				signal = syscall.SIGKILL
			}
			crew[i].signal(t, signal)
			at := time.Now()
			err := crew[i].Wait()
			if f.kind == "killed" {
				appendEvent(p.log, event{Dispatcher: ids[i].String(), Event: f.kind, At: at})
			} else if err != nil {
				t.Errorf("dispatcher %d: %v", i, err)
			}
			hire(i)
		})
	})
}
