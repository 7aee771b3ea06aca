package integration

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// batchBare stores n bare messages in atomic batches as large as ours.
func (r *rig) batchBare(b *testing.B, n int) {
	for n > 0 {
		msgs := make([]*nats.Msg, min(n, stream.MaxBatch))
		for i := range msgs {
			msgs[i] = r.message()
		}
		flow := jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: 10 * time.Second}
		if _, err := jetstreamext.PublishMsgBatch(b.Context(), r.js, msgs, flow); err != nil {
			b.Fatal(err)
		}
		n -= len(msgs)
	}
}

// BenchmarkPutMany puts jobs in bulk, beside atomic batches of as many messages.
func BenchmarkPutMany(b *testing.B) {
	r := newRig(b)
	n := max(b.N, 2)
	began := time.Now()
	r.batchBare(b, n)
	bare := float64(n) / time.Since(began).Seconds()
	calls := slices.Repeat([]asyncnats.Call[asyncnats.None]{noop.Call(asyncnats.None{})}, n)
	began = time.Now()
	if _, err := asyncnats.PutMany(b.Context(), r.queue, calls...); err != nil {
		b.Fatal(err)
	}
	report(b, float64(n)/time.Since(began).Seconds(), bare)
}

// BenchmarkPutAndDrain puts jobs in bulk while a dispatcher performs them, beside a
// bare loop that does both.
func BenchmarkPutAndDrain(b *testing.B) {
	r := newRig(b)
	n := max(b.N, 1)
	both := func(put func(n int), drain func()) float64 {
		began := time.Now()
		putting := make(chan struct{})
		go func() {
			defer close(putting)
			for left := n; left > 0; left -= stream.MaxBatch {
				put(min(left, stream.MaxBatch))
			}
		}()
		drain()
		<-putting
		return float64(n) / time.Since(began).Seconds()
	}
	bare := both(func(n int) { r.batchBare(b, n) }, func() { r.drainBare(b, n, true, "job") })
	ours := both(
		func(n int) {
			calls := slices.Repeat([]asyncnats.Call[asyncnats.None]{noop.Call(asyncnats.None{})}, n)
			if _, err := asyncnats.PutMany(b.Context(), r.queue, calls...); err != nil {
				b.Error(err)
			}
		},
		func() { r.drainOurs(b, n) },
	)
	report(b, ours, bare)
}

// BenchmarkTasks drains a backlog of jobs of several tasks by one dispatcher, beside as
// many bare consumers. to-one and bare-to-one compare with one task in the same run.
func BenchmarkTasks(b *testing.B) {
	for _, tasks := range []int{10, 100} {
		b.Run(fmt.Sprintf("tasks=%d", tasks), func(b *testing.B) {
			r := newRig(b)
			n := max(b.N, tasks)
			lanes := make([]string, tasks)
			for i := range lanes {
				lanes[i] = fmt.Sprintf("task%d", i)
			}
			r.fillBare(b, n, "job")
			bareOne := r.drainBare(b, n, true, "job")
			r.fillBare(b, n, lanes...)
			bare := r.drainBare(b, n, true, lanes...)
			r.fillOurs(b, n, noop.Call(asyncnats.None{}))
			one := r.drainOurs(b, n)

			done := make(chan struct{}, n)
			handlers := make([]job.Handler, tasks)
			calls := make([]asyncnats.Call[asyncnats.None], n)
			for i := range handlers {
				task := asyncnats.Define[asyncnats.None, asyncnats.None](fmt.Sprintf("bench.task%d", i))
				handlers[i] = task.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
					done <- struct{}{}
					return asyncnats.None{}, nil
				})
				for k := i; k < n; k += tasks {
					calls[k] = task.Call(asyncnats.None{})
				}
			}
			if _, err := asyncnats.PutMany(b.Context(), r.queue, calls...); err != nil {
				b.Fatal(err)
			}
			runtime.GC()
			began := time.Now()
			stop := r.dispatch(b, benchConcurrency, handlers...)
			for range n {
				<-done
			}
			many := float64(n) / time.Since(began).Seconds()
			stop()
			b.ReportMetric(many/one, "to-one")
			b.ReportMetric(bare/bareOne, "bare-to-one")
			report(b, many, bare)
		})
	}
}

// BenchmarkDispatchers drains a backlog by dispatchers in processes of their own. On a
// machine whose processors one dispatcher and the server fill, more of them are to cost
// nothing; with more processors they scale until the server is full.
func BenchmarkDispatchers(b *testing.B) {
	for _, dispatchers := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("dispatchers=%d", dispatchers), func(b *testing.B) {
			r := newRig(b)
			n := max(b.N, 1)
			for range dispatchers {
				startWorker(b, workerConfig{URL: r.nc.ConnectedUrl(), UUID: uuid.New(), Size: benchConcurrency})
			}
			began := time.Now()
			r.fillOurs(b, n, noop.Call(asyncnats.None{}))
			r.awaitDrained(b)
			b.ReportMetric(float64(n)/time.Since(began).Seconds(), "jobs/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// awaitDrained waits until the queue has no job.
func (r *rig) awaitDrained(b *testing.B) {
	queue, err := r.js.Stream(b.Context(), "ASYNC_default")
	if err != nil {
		b.Fatal(err)
	}
	for {
		info, err := queue.Info(b.Context(), jetstream.WithSubjectFilter("async.default.job.>"))
		if err != nil {
			b.Fatal(err)
		}
		if len(info.State.Subjects) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// BenchmarkSparse drains a lane that has one message in a thousand of a long
// backlog, for which the server scans; beside it a bare consumer of the same kind.
func BenchmarkSparse(b *testing.B) {
	const each = 1000
	r := newRig(b)
	n := min(max(b.N, 10), 300)
	sparse := asyncnats.Define[asyncnats.None, asyncnats.None]("bench.sparse")
	for range n {
		r.fillOurs(b, each-1, noop.Call(asyncnats.None{}))
		if _, err := asyncnats.Put(b.Context(), r.queue, sparse.Call(asyncnats.None{})); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan struct{}, n)
	began := time.Now()
	stop := r.dispatch(b, benchConcurrency, sparse.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
		done <- struct{}{}
		return asyncnats.None{}, nil
	}))
	defer stop()
	for range n {
		<-done
	}
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "jobs/s")
	b.ReportMetric(float64(n*each), "backlog")
	b.ReportMetric(0, "ns/op")
}

// perJob reports what the drain of n jobs costs beside time: allocations in this process,
// and the processors' time in this process and the server's, in microseconds a job. prefix
// says whose.
func (r *rig) perJob(b *testing.B, prefix string, n int, drain func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	client, server := r.used()
	drain()
	clientAfter, serverAfter := r.used()
	runtime.ReadMemStats(&after)
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(n) }
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(n), prefix+"-allocs/job")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(n), prefix+"-B/job")
	b.ReportMetric(each(clientAfter-client), prefix+"-client-µs/job")
	if serverAfter > 0 {
		b.ReportMetric(each(serverAfter-server), prefix+"-server-µs/job")
	}
}
