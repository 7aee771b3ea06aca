package integration

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Every benchmark runs the bare JetStream loop with the same messages beside
// ours, against one server process, and reports both and their ratio: the
// machine's own speed cancels out.

const benchConcurrency = 64

// rig is a server process with our queue and a bare stream of the same kind.
type rig struct {
	server *process
	nc     *nats.Conn
	js     jetstream.JetStream
	queue  *asyncnats.Queue
	bare   jetstream.Stream
	kv     jetstream.KeyValue
	body   []byte
	n      int // names bare messages
}

func newRig(b *testing.B) *rig {
	server, url := startServer(b)
	nc, queue := connect(b, url, asyncnats.QueueConfig{})
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	r := &rig{server: server, nc: nc, js: js, queue: queue}
	r.bare, err = js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: "BARE", Subjects: []string{"bare.>"}, Retention: jetstream.WorkQueuePolicy,
		AllowDirect: true, AllowAtomicPublish: true, MaxConsumers: -1,
	})
	if err != nil {
		b.Fatal(err)
	}
	// The bare stream has the sentinel too: without it the comparison would
	// flatter us.
	if _, err := js.Publish(b.Context(), "bare.meta", nil); err != nil {
		b.Fatal(err)
	}
	if r.kv, err = js.CreateKeyValue(b.Context(), jetstream.KeyValueConfig{Bucket: "BARE", TTL: time.Hour}); err != nil {
		b.Fatal(err)
	}
	r.body, err = job.EncodeSpec(job.Spec{
		Version: job.SpecVersion, Nonce: job.NewNonce(), Task: noop.Name(), By: b.Name(), At: time.Now(),
	})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// message is a bare message like those of our jobs.
func (r *rig) message() *nats.Msg { return r.messageOn("job") }

// messageOn is one on a lane of that name.
func (r *rig) messageOn(lane string) *nats.Msg {
	r.n++
	// As long as a subject of ours: the server keeps each in a tree.
	msg := nats.NewMsg(fmt.Sprintf("bare.default.%s.bench=noop.%036d", lane, r.n))
	msg.Data = r.body
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	return msg
}

// fillBare stores n bare messages, on lanes in turn.
func (r *rig) fillBare(b *testing.B, n int, lanes ...string) {
	for i := range n {
		if _, err := r.js.PublishMsgAsync(r.messageOn(lanes[i%len(lanes)]), jetstream.WithStallWait(10*time.Second)); err != nil {
			b.Fatal(err)
		}
		if i == n-1 {
			<-r.js.PublishAsyncComplete()
		}
	}
}

// fillOurs puts n jobs, and leaves no garbage for what is measured next.
func (r *rig) fillOurs(b *testing.B, n int, call asyncnats.Call[asyncnats.None]) {
	calls := slices.Repeat([]asyncnats.Call[asyncnats.None]{call}, 10*stream.MaxBatch)
	for n > 0 {
		calls = calls[:min(n, len(calls))]
		if _, err := asyncnats.PutMany(b.Context(), r.queue, calls...); err != nil {
			b.Fatal(err)
		}
		n -= len(calls)
	}
	runtime.GC()
}

// spread runs work n times in concurrent goroutines and returns how often per
// second it was done.
func spread(n, goroutines int, work func()) float64 {
	began := time.Now()
	var group sync.WaitGroup
	for i := range goroutines {
		group.Go(func() {
			for range share(n, goroutines, i) {
				work()
			}
		})
	}
	group.Wait()
	return float64(n) / time.Since(began).Seconds()
}

func share(n, parts, i int) int { return n/parts + min(1, max(0, n%parts-i)) }

// report prints two rates and their ratio.
func report(b *testing.B, ours, bare float64) {
	b.ReportMetric(ours, "jobs/s")
	b.ReportMetric(bare, "bare/s")
	b.ReportMetric(ours/bare, "ratio")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkPut(b *testing.B) {
	for _, goroutines := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			r := newRig(b)
			n := max(b.N, goroutines)
			var mu sync.Mutex
			bare := spread(n, goroutines, func() {
				mu.Lock()
				msg := r.message()
				mu.Unlock()
				if _, err := r.js.PublishMsg(b.Context(), msg); err != nil {
					b.Error(err)
				}
			})
			ours := spread(n, goroutines, func() {
				if _, err := asyncnats.Put(b.Context(), r.queue, noop.Call(asyncnats.None{})); err != nil {
					b.Error(err)
				}
			})
			report(b, ours, bare)
		})
	}
}

// BenchmarkDrain performs a backlog of jobs that do nothing.
func BenchmarkDrain(b *testing.B) {
	for name, keep := range map[string]job.Keep{"kept": job.KeepDefault, "notKept": job.KeepNone} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			n := max(b.N, 1)
			r.fillBare(b, n, "job")
			var bare, ours float64
			r.perJob(b, "bare", n, func() { bare = r.drainBare(b, n, keep == job.KeepDefault, "job") })
			r.fillOurs(b, n, noop.Call(asyncnats.None{}).Keep(keep))
			r.perJob(b, "ours", n, func() { ours = r.drainOurs(b, n) })
			report(b, ours, bare)
		})
	}
}

// drainBare pulls, writes a record where wanted, and acks.
func (r *rig) drainBare(b *testing.B, n int, record bool, lanes ...string) float64 {
	messages := make(chan jetstream.Msg, 2*benchConcurrency)
	began := time.Now()
	for _, lane := range lanes {
		consumer, err := r.bare.CreateOrUpdateConsumer(b.Context(), jetstream.ConsumerConfig{
			Durable: lane, FilterSubject: "bare.default." + lane + ".*.*", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1,
		})
		if err != nil {
			b.Fatal(err)
		}
		consuming, err := consumer.Consume(func(msg jetstream.Msg) { messages <- msg },
			jetstream.PullMaxMessages(max(4, 2*benchConcurrency/len(lanes))))
		if err != nil {
			b.Fatal(err)
		}
		defer consuming.Stop()
	}
	var group sync.WaitGroup
	for i := range benchConcurrency {
		group.Go(func() {
			for range share(n, benchConcurrency, i) {
				msg := <-messages
				if record {
					if _, err := r.kv.Create(b.Context(), msg.Subject(), r.body); err != nil {
						b.Error(err)
					}
				}
				if err := msg.Ack(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
	return float64(n) / time.Since(began).Seconds()
}

// drainOurs runs a dispatcher until n jobs were performed.
func (r *rig) drainOurs(b *testing.B, n int) float64 {
	done := make(chan struct{}, n)
	began := time.Now()
	stop := r.dispatch(b, benchConcurrency, noop.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
		done <- struct{}{}
		return asyncnats.None{}, nil
	}))
	for range n {
		<-done
	}
	took := time.Since(began)
	stop()
	return float64(n) / took.Seconds()
}

// dispatch runs a dispatcher in this process until stop is called.
func (r *rig) dispatch(b *testing.B, size int, handlers ...job.Handler) (stop func()) {
	d, err := dispatcher.New(r.nc, dispatcher.Config{
		UUID: uuid.New(), Handlers: handlers, Agents: []agents.Agent{{Name: "main", Size: size}}, Log: quiet(), Grace: -1,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkIdle measures how long after its put a job is started by a
// dispatcher that waits for it, in microseconds at the 50th and 99th
// percentile.
func BenchmarkIdle(b *testing.B) {
	r := newRig(b)
	n := max(b.N, 10)

	consumer, err := r.bare.CreateConsumer(b.Context(), jetstream.ConsumerConfig{
		Durable: "idle", FilterSubject: "bare.default.job.*.*", AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		b.Fatal(err)
	}
	got := make(chan time.Time)
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		got <- time.Now()
		msg.Ack()
	})
	if err != nil {
		b.Fatal(err)
	}
	bare := latencies(n, func() time.Duration {
		began := time.Now()
		if _, err := r.js.PublishMsg(b.Context(), r.message()); err != nil {
			b.Fatal(err)
		}
		return (<-got).Sub(began)
	})
	consuming.Stop()

	stop := r.dispatch(b, 3, noop.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
		got <- time.Now()
		return asyncnats.None{}, nil
	}))
	defer stop()
	ours := latencies(n, func() time.Duration {
		began := time.Now()
		if _, err := asyncnats.Put(b.Context(), r.queue, noop.Call(asyncnats.None{})); err != nil {
			b.Fatal(err)
		}
		return (<-got).Sub(began)
	})
	for name, at := range map[string]int{"p50": 50, "p99": 99} {
		b.ReportMetric(micro(ours, at), "ours-"+name+"-µs")
		b.ReportMetric(micro(bare, at), "bare-"+name+"-µs")
		b.ReportMetric(micro(ours, at)/micro(bare, at), "ratio-"+name)
	}
	b.ReportMetric(0, "ns/op")
}

// latencies measures once to warm up and then n times, and sorts.
func latencies(n int, measure func() time.Duration) []time.Duration {
	measure()
	took := make([]time.Duration, n)
	for i := range took {
		took[i] = measure()
	}
	slices.Sort(took)
	return took
}

func micro(sorted []time.Duration, percent int) float64 {
	return float64(sorted[(len(sorted)-1)*percent/100]) / float64(time.Microsecond)
}

// BenchmarkBacklog measures a claim, from the ack of one job to the start of
// the next, with few and with a million pending jobs: the ratio says whether
// it grows with the backlog.
func BenchmarkBacklog(b *testing.B) {
	const short, long = 1_000, 1_000_000
	r := newRig(b)
	n := max(b.N, 10)
	claim := func(backlog int) []time.Duration {
		r.fillOurs(b, backlog, noop.Call(asyncnats.None{}))
		var took []time.Duration
		var last time.Time
		enough := make(chan struct{})
		stop := r.dispatch(b, 1, noop.Handle(func(ctx context.Context, _ asyncnats.None) (asyncnats.None, error) {
			if !last.IsZero() {
				took = append(took, time.Since(last))
			}
			if len(took) == n {
				close(enough)
				<-ctx.Done() // keeps the agent of size 1 full
				return asyncnats.None{}, context.Cause(ctx)
			}
			last = time.Now()
			return asyncnats.None{}, nil
		}))
		<-enough
		stop()
		slices.Sort(took)
		return took[:n]
	}
	few := claim(max(short, 2*n))
	serverBefore, clientBefore := resident(r.server.Process.Pid), resident(os.Getpid())
	r.fillOurs(b, max(long, 2*n), noop.Call(asyncnats.None{}))
	debug.FreeOSMemory()
	b.ReportMetric(resident(r.server.Process.Pid)-serverBefore, "1M-server-MB")
	b.ReportMetric(max(0, resident(os.Getpid())-clientBefore), "1M-client-MB")
	many := claim(0)
	b.ReportMetric(micro(few, 50), "1k-p50-µs")
	b.ReportMetric(micro(many, 50), "1M-p50-µs")
	b.ReportMetric(micro(many, 50)/micro(few, 50), "ratio-p50")
	b.ReportMetric(micro(many, 99)/micro(few, 99), "ratio-p99")
	b.ReportMetric(0, "ns/op")
}
