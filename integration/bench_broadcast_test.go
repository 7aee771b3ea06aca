package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
)

const (
	broadcastListeners = 8
	broadcastRounds    = 1000
)

// BenchmarkBroadcast measures how long it takes until the last of eight dispatcher
// processes has replied to a broadcast, one after another, against a bare request by
// core NATS that as many subscribers in one process answer: that stores nothing.
func BenchmarkBroadcast(b *testing.B) {
	r := newRig(b)
	fleet, err := r.queue.Client().CreateQueue(b.Context(), "fleet", asyncnats.QueueConfig{Broadcast: true})
	if err != nil {
		b.Fatal(err)
	}
	for range broadcastListeners {
		startWorker(b, workerConfig{URL: r.nc.ConnectedUrl(), UUID: uuid.New(), Size: 3})
	}
	call := asyncnats.ToAll(noop.Call(asyncnats.None{}))
	for all := 0; all < broadcastListeners; {
		all = len(r.broadcast(b, fleet, call))
	}
	bare := r.scatter(b, broadcastRounds)
	ours := make([]time.Duration, broadcastRounds)
	for i := range ours {
		began := time.Now()
		if replies := r.broadcast(b, fleet, call); len(replies) != broadcastListeners {
			b.Fatalf("%d replies, want %d", len(replies), broadcastListeners)
		}
		ours[i] = time.Since(began)
	}
	slices.Sort(ours)
	slices.Sort(bare)
	for name, at := range map[string]int{"p50": len(ours) / 2, "p99": len(ours) * 99 / 100} {
		b.ReportMetric(float64(ours[at].Microseconds()), name+"-µs")
		b.ReportMetric(float64(bare[at].Microseconds()), name+"-bare-µs")
	}
	b.ReportMetric(0, "ns/op")
}

// broadcast has all dispatchers perform a call.
func (r *rig) broadcast(b *testing.B, q *asyncnats.Queue, call asyncnats.Call[map[string]asyncnats.Outcome[asyncnats.None]]) map[string]asyncnats.Outcome[asyncnats.None] {
	j, err := asyncnats.Put(b.Context(), q, call)
	if err != nil {
		b.Fatal(err)
	}
	replies, err := j.Wait(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return replies
}

// scatter asks eight subscribers, again and again, and waits for all.
func (r *rig) scatter(b *testing.B, rounds int) []time.Duration {
	nc, err := nats.Connect(r.nc.ConnectedUrl())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	for range broadcastListeners {
		if _, err := nc.Subscribe("scatter.ask", func(msg *nats.Msg) { _ = msg.Respond(r.body) }); err != nil {
			b.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	inbox := r.nc.NewInbox()
	sub, err := r.nc.SubscribeSync(inbox)
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Unsubscribe()
	took := make([]time.Duration, rounds)
	for i := range took {
		began := time.Now()
		if err := r.nc.PublishRequest("scatter.ask", inbox, r.body); err != nil {
			b.Fatal(err)
		}
		for range broadcastListeners {
			if _, err := sub.NextMsg(5 * time.Second); err != nil {
				b.Fatal(err)
			}
		}
		took[i] = time.Since(began)
	}
	return took
}
