package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/asyncnats/asyncnats"
)

func TestZZTrace(t *testing.T) {
	_, url := startServer(t)
	nc, queue := connect(t, url, asyncnats.QueueConfig{})
	for range 1 {
		startWorker(t, workerConfig{URL: url, Size: 16})
	}
	whole, _ := asyncnats.Put(t.Context(), queue, asyncnats.Serial(slices.Repeat([]asyncnats.Call[asyncnats.None]{noop.Call(asyncnats.None{})}, 20)...))
	whole.Wait(t.Context())
	var lines []string
	begin := time.Now()
	nc.Subscribe(">", func(m *nats.Msg) {
		lines = append(lines, fmt.Sprintf("%8.3f %s -> %s %d", float64(time.Since(begin).Microseconds())/1000, m.Subject, m.Reply, len(m.Data)))
	})
	nc.Flush()
	whole, _ = asyncnats.Put(t.Context(), queue, asyncnats.Serial(slices.Repeat([]asyncnats.Call[asyncnats.None]{noop.Call(asyncnats.None{})}, 20)...))
	whole.Wait(t.Context())
	for _, l := range lines {
		fmt.Println(l)
	}
}
