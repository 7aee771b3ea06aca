package integration

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// BenchmarkQuota performs a backlog of jobs of one millisecond that name one
// quota, in worker processes. Beside the jobs per second it reports how long a
// job really takes on average, and how long a slot is empty between two jobs at
// the 50th and 99th percentile, in microseconds. The bare loop is
// compare-and-set on one key by one writer; the bare limit is a consumer that
// gives out no more messages than the quota has slots, in as many processes.
func BenchmarkQuota(b *testing.B) {
	for _, c := range []struct{ size, processes, agent int }{{5, 4, 4}, {1, 4, 2}, {1, 1, 3}} {
		b.Run(fmt.Sprintf("size=%d/processes=%d", c.size, c.processes), func(b *testing.B) {
			_, url := startServer(b)
			nc, queue := connect(b, url, asyncnats.QueueConfig{})
			n := max(b.N, 10*c.size)
			bare := bareSwaps(b, nc, n)
			limit, least := bareLimit(b, url, nc, n, c.size, c.processes, c.agent)
			b.ReportMetric(limit, "bare-limit/s")
			b.ReportMetric(micro(least, 50), "bare-gap-p50-µs")
			b.ReportMetric(micro(least, 99), "bare-gap-p99-µs")
			if err := queue.CreateQuota(b.Context(), "limit", c.size); err != nil {
				b.Fatal(err)
			}
			var ticks ticks
			for range c.processes {
				worker := startWorker(b, workerConfig{URL: url, UUID: uuid.New(), Size: c.agent})
				go ticks.read(worker)
			}
			calls := slices.Repeat([]asyncnats.Call[asyncnats.None]{
				tick.Call(asyncnats.None{}).Quota("limit").Keep(job.KeepNone),
			}, n)
			if _, err := asyncnats.PutMany(b.Context(), queue, calls...); err != nil {
				b.Fatal(err)
			}
			rate, took, gaps := ticks.wait(b, n, c.size)
			b.ReportMetric(float64(took.Microseconds()), "job-µs")
			b.ReportMetric(micro(gaps, 50), "gap-p50-µs")
			b.ReportMetric(micro(gaps, 99), "gap-p99-µs")
			report(b, rate, bare)
		})
	}
}

// bareSwaps returns how often per second one writer changes one key by
// compare-and-set.
func bareSwaps(b *testing.B, nc *nats.Conn, n int) float64 {
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	bucket, err := js.CreateKeyValue(b.Context(), jetstream.KeyValueConfig{Bucket: "BARE"})
	if err != nil {
		b.Fatal(err)
	}
	revision, value := uint64(0), make([]byte, 300)
	return spread(n, 1, func() {
		if revision, err = bucket.Update(b.Context(), "key", value, revision); err != nil {
			b.Error(err)
		}
	})
}

// ticks collects when jobs ran.
type ticks struct {
	mu     sync.Mutex
	starts []time.Time
	ends   []time.Time
}

func (t *ticks) read(worker *process) {
	for line := range worker.lines {
		var began, ended int64
		if _, err := fmt.Sscan(line, &began, &ended); err != nil {
			continue
		}
		t.mu.Lock()
		t.starts = append(t.starts, time.Unix(0, began))
		t.ends = append(t.ends, time.Unix(0, ended))
		t.mu.Unlock()
	}
}

// wait waits for n jobs, and returns how many there were per second, how long
// one took on average, and how long each slot of a quota of that size was empty before its next job.
func (t *ticks) wait(b *testing.B, n, size int) (rate float64, took time.Duration, gaps []time.Duration) {
	for done := 0; done < n; {
		time.Sleep(10 * time.Millisecond)
		t.mu.Lock()
		done = len(t.ends)
		t.mu.Unlock()
		if b.Context().Err() != nil {
			b.Fatal("not all jobs ran")
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range n {
		took += t.ends[i].Sub(t.starts[i]) / time.Duration(n)
	}
	slices.SortFunc(t.starts, time.Time.Compare)
	slices.SortFunc(t.ends, time.Time.Compare)
	for i := range n - size {
		gaps = append(gaps, t.starts[i+size].Sub(t.ends[i]))
	}
	slices.Sort(gaps)
	return float64(n) / t.ends[n-1].Sub(t.starts[0]).Seconds(), took, gaps
}
