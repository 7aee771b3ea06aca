package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
)

// As many whatever -benchtime says.
const (
	composeParts     = 10_000
	composeSteps     = 1_000
	composeProcesses = 4
	composeRounds    = 3
)

// BenchmarkParallel has four dispatcher processes perform plain jobs, and as many as
// the parts of one parallel, in turn. Both end when nothing is left in the queue: the
// parallel's outcome is there before, its parts' records are released then.
func BenchmarkParallel(b *testing.B) {
	r := newRig(b)
	composers(b, r)
	var plain, joined, whole []time.Duration
	for range composeRounds {
		plain = append(plain, r.plain(b, composeParts))
		outcome, all := r.parallel(b, composeParts)
		joined, whole = append(joined, outcome), append(whole, all)
	}
	b.ReportMetric(perPart(plain), "plain-µs/job")
	b.ReportMetric(perPart(joined), "joined-µs/part")
	b.ReportMetric(perPart(whole), "all-µs/part")
	b.ReportMetric(perPart(joined)/perPart(plain), "joined-ratio")
	b.ReportMetric(perPart(whole)/perPart(plain), "all-ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSerial has the same processes perform a serial, and as many plain jobs of
// which a client puts each when the one before is completed.
func BenchmarkSerial(b *testing.B) {
	r := newRig(b)
	composers(b, r)
	var plain, serial []time.Duration
	for range composeRounds {
		began := time.Now()
		for range composeSteps {
			j, err := asyncnats.Put(b.Context(), r.queue, noop.Call(asyncnats.None{}))
			if err == nil {
				_, err = j.Wait(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		plain = append(plain, time.Since(began))
		began = time.Now()
		r.compose(b, asyncnats.Serial(slices.Repeat([]asyncnats.Call[asyncnats.None]{noop.Call(asyncnats.None{})}, composeSteps)...))
		serial = append(serial, time.Since(began))
	}
	b.ReportMetric(float64(median(plain).Microseconds())/composeSteps, "plain-µs/job")
	b.ReportMetric(float64(median(serial).Microseconds())/composeSteps, "serial-µs/step")
	b.ReportMetric(float64(median(serial))/float64(median(plain)), "ratio")
	b.ReportMetric(0, "ns/op")
}

func perPart(rounds []time.Duration) float64 {
	return float64(median(rounds).Microseconds()) / composeParts
}

func median(rounds []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(rounds))
	return sorted[len(sorted)/2]
}

// composers starts the dispatcher processes, and has them ready.
func composers(b *testing.B, r *rig) {
	for range composeProcesses {
		startWorker(b, workerConfig{URL: r.nc.ConnectedUrl(), Size: benchConcurrency / composeProcesses})
	}
	await(b, func() bool {
		info, err := r.queue.Info(b.Context())
		return err == nil && len(info.Dispatchers) == composeProcesses
	})
	r.plain(b, 100)
}

// plain puts n jobs and waits until none is left.
func (r *rig) plain(b *testing.B, n int) time.Duration {
	began := time.Now()
	r.fillOurs(b, n, noop.Call(asyncnats.None{}))
	r.awaitEmpty(b)
	return time.Since(began)
}

// parallel puts a parallel of n parts, and returns when it has its outcome and when
// nothing is left.
func (r *rig) parallel(b *testing.B, n int) (outcome, all time.Duration) {
	began := time.Now()
	r.compose(b, asyncnats.Parallel(slices.Repeat([]asyncnats.Call[asyncnats.None]{noop.Call(asyncnats.None{})}, n)...))
	outcome = time.Since(began)
	r.awaitEmpty(b)
	return outcome, time.Since(began)
}

func (r *rig) compose(b *testing.B, call asyncnats.Call[[]asyncnats.Outcome[asyncnats.None]]) {
	whole, err := asyncnats.Put(b.Context(), r.queue, call)
	if err != nil {
		b.Fatal(err)
	}
	parts, err := whole.Wait(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, part := range parts {
		if part.Failure != nil {
			b.Fatal(part.Failure)
		}
	}
}

func (r *rig) awaitEmpty(b *testing.B) {
	queue, err := r.js.Stream(b.Context(), "ASYNC_default")
	if err != nil {
		b.Fatal(err)
	}
	for {
		info, err := queue.Info(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if info.State.Msgs == 1 { // the meta message
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
