package integration

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// timed is put to begin at the instant that it is given.
var timed = asyncnats.Define[time.Time, asyncnats.None]("bench.timed")

// putTimed puts n jobs to begin when due says.
func (r *rig) putTimed(b *testing.B, n int, due func(i int) time.Time) {
	b.Helper()
	for from := 0; from < n; from += 1000 {
		var calls []asyncnats.Call[asyncnats.None]
		for i := from; i < min(n, from+1000); i++ {
			calls = append(calls, timed.Call(due(i)).At(due(i)).Keep(job.KeepNone))
		}
		if _, err := asyncnats.PutMany(b.Context(), r.queue, calls...); err != nil {
			b.Fatal(err)
		}
	}
}

// lateness runs a dispatcher until n such jobs have begun, and returns by how
// much each was late.
func (r *rig) lateness(b *testing.B, n int) []time.Duration {
	b.Helper()
	late := make(chan time.Duration, n)
	stop := r.dispatch(b, benchConcurrency, timed.Handle(func(_ context.Context, due time.Time) (asyncnats.None, error) {
		late <- time.Since(due)
		return asyncnats.None{}, nil
	}))
	defer stop()
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = <-late
	}
	slices.Sort(all)
	return all
}

// BenchmarkLateness measures how late jobs begin that are due one after another,
// a thousand in a second, in microseconds at the 50th and 99th percentile. Early
// ones are counted; there are none. The server fires schedules, with no code of
// ours, up to 0.27 s late.
func BenchmarkLateness(b *testing.B) {
	r := newRig(b)
	n := max(b.N, 100)
	first := time.Now().Add(3*time.Second + time.Duration(n)*20*time.Microsecond)
	r.putTimed(b, n, func(i int) time.Time { return first.Add(time.Duration(i) * time.Millisecond) })
	late := r.lateness(b, n)
	early, _ := slices.BinarySearch(late, 0)
	b.ReportMetric(float64(early), "early")
	b.ReportMetric(micro(late, 50), "late-p50-µs")
	b.ReportMetric(micro(late, 99), "late-p99-µs")
	b.ReportMetric(0, "ns/op")
}

// bareTogether has the server fire n schedules at one instant, and returns how
// long after it the last of them was pulled.
func (r *rig) bareTogether(b *testing.B, n int) time.Duration {
	b.Helper()
	stream, err := r.js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: "BAREDUE", Subjects: []string{"baredue.>"}, Retention: jetstream.WorkQueuePolicy,
		AllowDirect: true, AllowRollup: true, AllowMsgSchedules: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	due := time.Now().Add(3*time.Second + time.Duration(n)*50*time.Microsecond)
	for i := range n + 1 { // the first is the sentinel
		msg := nats.NewMsg("baredue.meta")
		if i > 0 {
			id := strconv.Itoa(i)
			msg.Subject, msg.Data = "baredue.later."+id, r.body
			msg.Header.Set("Nats-Schedule", "@at "+due.UTC().Format(time.RFC3339Nano))
			msg.Header.Set("Nats-Schedule-Target", "baredue.job."+id)
		}
		if _, err := r.js.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-r.js.PublishAsyncComplete()
	consumer, err := stream.CreateConsumer(b.Context(), jetstream.ConsumerConfig{
		Durable: "drain", FilterSubject: "baredue.job.*", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1,
	})
	if err != nil {
		b.Fatal(err)
	}
	got := make(chan struct{}, n)
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		_ = msg.Ack()
		got <- struct{}{}
	}, jetstream.PullMaxMessages(2*benchConcurrency))
	if err != nil {
		b.Fatal(err)
	}
	defer consuming.Stop()
	for range n {
		<-got
	}
	return time.Since(due)
}

// BenchmarkDueTogether measures when the last of n jobs begins that are due at
// one instant, in milliseconds after it, while as many others are scheduled for
// another day. The bare loop is the server's own schedules, pulled and acked.
func BenchmarkDueTogether(b *testing.B) {
	r := newRig(b)
	n := max(b.N, 100)
	r.putTimed(b, n, func(i int) time.Time { return time.Now().Add(24*time.Hour + time.Duration(i)*time.Millisecond) })
	due := time.Now().Add(3*time.Second + time.Duration(n)*50*time.Microsecond)
	r.putTimed(b, n, func(int) time.Time { return due })
	late := r.lateness(b, n)
	early, _ := slices.BinarySearch(late, 0)
	b.ReportMetric(float64(r.bareTogether(b, n).Milliseconds()), "bare-last-ms")
	b.ReportMetric(float64(early), "early")
	b.ReportMetric(micro(late, 50)/1000, "p50-ms")
	b.ReportMetric(float64(late[n-1].Milliseconds()), "last-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBesideScheduled measures what b.N scheduled jobs cost those that are
// not: the rate of puts and of a drain with them as a part of that without, the
// medians of five rounds.
func BenchmarkBesideScheduled(b *testing.B) {
	const n, rounds = 10_000, 5
	r := newRig(b)
	measure := func() (puts, drain float64) {
		var allPuts, allDrain []float64
		for range min(b.N, rounds) {
			allPuts = append(allPuts, spread(n, 16, func() {
				if _, err := asyncnats.Put(b.Context(), r.queue, noop.Call(asyncnats.None{}).Keep(job.KeepNone)); err != nil {
					b.Error(err)
				}
			}))
			allDrain = append(allDrain, r.drainOurs(b, n))
		}
		slices.Sort(allPuts)
		slices.Sort(allDrain)
		return allPuts[len(allPuts)/2], allDrain[len(allDrain)/2]
	}
	puts, drain := measure()
	r.putTimed(b, max(b.N, 100), func(i int) time.Time { return time.Now().Add(24*time.Hour + time.Duration(i)*time.Millisecond) })
	putsBeside, drainBeside := measure()
	b.ReportMetric(puts, "puts/s")
	b.ReportMetric(drain, "jobs/s")
	b.ReportMetric(putsBeside/puts, "puts-ratio")
	b.ReportMetric(drainBeside/drain, "jobs-ratio")
	b.ReportMetric(0, "ns/op")
}
