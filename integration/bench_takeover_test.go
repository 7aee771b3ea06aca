package integration

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
)

// BenchmarkTakeOver kills a worker process and reports how long it takes until
// its jobs are started by another, which waits for work. That is what is left of
// their leases, which are extended each third of an ack wait: between two thirds
// of it and all of it. One process is killed, however many iterations are asked
// for.
func BenchmarkTakeOver(b *testing.B) {
	for _, ackWait := range []time.Duration{3 * time.Second, 15 * time.Second} {
		b.Run("ackwait="+ackWait.String(), func(b *testing.B) {
			took := takeOver(b, ackWait, 50)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "max-ms")
		})
	}
}

// takeOver kills a worker process that performs so many jobs, and returns how long
// after that each was started elsewhere, sorted.
func takeOver(b *testing.B, ackWait time.Duration, count int) []time.Duration {
	_, url := startServer(b)
	_, queue := connect(b, url, asyncnats.QueueConfig{AckWait: ackWait})
	log := filepath.Join(b.TempDir(), "log")
	victim := uuid.New()
	doomed := startWorker(b, workerConfig{URL: url, UUID: victim, Size: count, Log: log})
	var jobs []*asyncnats.Job[string]
	// Their leases are not to be extended all at the same time.
	for pause := time.NewTicker(ackWait * 2 / 3 / time.Duration(count)); len(jobs) < count; <-pause.C {
		j, err := asyncnats.Put(b.Context(), queue, endless.Call(victim.String()))
		if err != nil {
			b.Fatal(err)
		}
		jobs = append(jobs, j)
	}
	awaitStarts(b, log, count)
	startWorker(b, workerConfig{URL: url, Size: count, Log: log})
	doomed.signal(b, syscall.SIGKILL)
	killed := time.Now()
	waitAll(b, jobs, 2*ackWait+10*time.Second)
	var took []time.Duration
	for _, e := range events(b, log) {
		if e.Event == "start" && e.Dispatcher != victim.String() {
			took = append(took, e.At.Sub(killed))
		}
	}
	if len(took) != count {
		b.Errorf("%d jobs were started %d times elsewhere", count, len(took))
	}
	slices.Sort(took)
	return took
}
