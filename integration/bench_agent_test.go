package integration

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
)

// BenchmarkAgentIsResized measures how long after its agent's size was changed a
// dispatcher in another process starts one job more, in microseconds at the median
// and at the most. It is measured some ten times at least, and a hundred at most.
func BenchmarkAgentIsResized(b *testing.B) {
	_, url := startServer(b)
	_, queue := connect(b, url, asyncnats.QueueConfig{})
	log := filepath.Join(b.TempDir(), "log")
	id := uuid.New()
	startWorker(b, workerConfig{URL: url, UUID: id, Size: 1, Grace: -1, Log: log})
	n := min(max(b.N, 10), 100)
	for range n + 1 {
		if _, err := asyncnats.Put(b.Context(), queue, endless.Call(id.String())); err != nil {
			b.Fatal(err)
		}
	}
	awaitStarts(b, log, 1)
	var took []time.Duration
	for i := range n {
		changed := time.Now()
		err := queue.ChangeAgent(b.Context(), id.String(), "main", func(a *asyncnats.Agent) { a.Size = i + 2 })
		if err != nil {
			b.Fatal(err)
		}
		awaitStarts(b, log, i+2)
		all := events(b, log)
		took = append(took, all[len(all)-1].At.Sub(changed))
	}
	slices.Sort(took)
	b.ReportMetric(micro(took, 50), "p50-µs")
	b.ReportMetric(micro(took, 100), "max-µs")
	b.ReportMetric(0, "ns/op")
}
