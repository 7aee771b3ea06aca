package kv_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

// More batches than a stream takes at a time are stored all the same.
func TestPublishAllWhileOthersDo(t *testing.T) {
	one := func(o *server.Options) { o.JetStreamLimits.MaxBatchInflightPerStream = 1 }
	natstest.RunWith(t, one, func(t *testing.T, s *natstest.Server) {
		buckets := make([]*kv.Bucket[string], 20)
		for i := range buckets {
			buckets[i] = open(t, s.JetStream(t), kv.Config{Bucket: "b", Atomic: true})
		}
		var writers sync.WaitGroup
		for i, b := range buckets {
			writers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				writes := []kv.Write[string]{{Key: fmt.Sprint("one-", i), Value: "1"}, {Key: fmt.Sprint("two-", i), Value: "2"}}
				if _, err := b.UpdateAll(ctx, writes); err != nil {
					t.Errorf("write %d: %v", i, err)
				}
			})
		}
		writers.Wait()
		for i, b := range buckets {
			wantValue(t, b, fmt.Sprint("one-", i), "1")
		}
	})
}

// A batch that the server has lost, or has no place for, is published again as long as
// there is time; one that is refused for what it is is not.
func TestPublishAllAgain(t *testing.T) {
	const stored = `{"stream":"S","seq":7,"batch":%q,"count":2}`
	fails := func(code int) string {
		return fmt.Sprintf(`{"error":{"code":400,"err_code":%d,"description":"no"}}`, code)
	}
	for name, row := range map[string]struct {
		answers []string // of the last message of each try, and then the last
		tries   int      // 0 for many
		code    jetstream.ErrorCode
	}{
		"it was lost":   {[]string{fails(10176), fails(10176), stored}, 3, 0},
		"no place":      {[]string{fails(10210), stored}, 2, 0},
		"never a place": {[]string{fails(10210)}, 0, 10210},
		"a conflict":    {[]string{fails(10071)}, 1, 10071},
	} {
		natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
			nc, tries := s.Connect(t), 0
			if _, err := nc.Subscribe("stream", func(msg *nats.Msg) {
				if msg.Header.Get("Nats-Batch-Commit") == "" {
					_ = msg.Respond(nil)
					return
				}
				answer := row.answers[min(tries, len(row.answers)-1)]
				if tries++; answer == stored {
					answer = fmt.Sprintf(stored, msg.Header.Get("Nats-Batch-Id"))
				}
				_ = msg.Respond([]byte(answer))
			}); err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			sequence, err := kv.PublishAll(ctx, s.JetStream(t), []*nats.Msg{nats.NewMsg("stream"), nats.NewMsg("stream")}, time.Second)
			var refused *jetstream.APIError
			switch {
			case row.code == 0 && (err != nil || sequence != 7):
				t.Errorf("%s: stored as %d, %v", name, sequence, err)
			case row.code != 0 && (!errors.As(err, &refused) || refused.ErrorCode != row.code):
				t.Errorf("%s: %v", name, err)
			case row.tries != tries && (row.tries > 0 || tries < 20):
				t.Errorf("%s: tried %d times", name, tries)
			}
		})
	}
}
