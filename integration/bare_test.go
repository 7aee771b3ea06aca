package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bareConfig is what a process is to do that takes messages of a stream with no
// code of ours: so many at once, each for a millisecond.
type bareConfig struct {
	URL  string
	Size int
}

// bareLimit is what JetStream does by itself where it is to run no more than
// size jobs of a millisecond at once in several processes: a consumer that has
// no more than size messages out. There is no bound across consumers, no order
// after a death and no token; but less work cannot be had. It returns jobs per
// second and the gaps between them.
func bareLimit(b *testing.B, url string, nc *nats.Conn, n, size, processes, agent int) (rate float64, gaps []time.Duration) {
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	stream, err := js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: "LIMIT", Subjects: []string{"limit.>"}, Retention: jetstream.WorkQueuePolicy,
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := range n + 1 { // the first is the sentinel
		if _, err := js.PublishAsync("limit."+strconv.Itoa(min(i, 1)), nil, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	if _, err := stream.CreateConsumer(b.Context(), jetstream.ConsumerConfig{
		Durable: "limit", FilterSubject: "limit.1", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: size,
	}); err != nil {
		b.Fatal(err)
	}
	var ticks ticks
	for range processes {
		go ticks.read(spawn(b, "bare", bareConfig{URL: url, Size: agent}))
	}
	rate, _, gaps = ticks.wait(b, n, size)
	return rate, gaps
}

func bareProcess() int {
	var c bareConfig
	if err := json.Unmarshal([]byte(os.Getenv(configVariable)), &c); err != nil {
		return fail(err)
	}
	nc, err := nats.Connect(c.URL)
	if err != nil {
		return fail(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fail(err)
	}
	consumer, err := js.Consumer(context.Background(), "LIMIT", "limit")
	if err != nil {
		return fail(err)
	}
	var out output
	failed := make(chan error)
	for range c.Size {
		go func() {
			messages, err := consumer.Messages(jetstream.PullMaxMessages(1))
			for err == nil {
				var msg jetstream.Msg
				if msg, err = messages.Next(); err == nil {
					began := time.Now()
					sleep(time.Millisecond)
					out.println(began.UnixNano(), time.Now().UnixNano())
					err = msg.Ack()
				}
			}
			failed <- err
		}()
	}
	return fail(fmt.Errorf("bare loop: %w", <-failed))
}
