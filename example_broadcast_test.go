package asyncnats_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// fleet runs three dispatchers with a broadcast queue. handlers makes the handlers of
// each.
func fleet(handlers func(number int) []job.Handler) (queue *asyncnats.Queue, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	nc := connect()
	client, err := asyncnats.Connect(ctx, nc, asyncnats.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if queue, err = client.CreateQueue(ctx, "fleet", asyncnats.QueueConfig{Broadcast: true}); err != nil {
		log.Fatal(err)
	}
	var running sync.WaitGroup
	for number := range 3 {
		d, err := dispatcher.New(nc, dispatcher.Config{
			UUID:     uuid.MustParse(fmt.Sprintf("%08d-0000-4000-8000-000000000000", number)),
			Queues:   []string{"fleet"},
			Handlers: handlers(number),
			Log:      slog.New(slog.DiscardHandler),
		})
		if err != nil {
			log.Fatal(err)
		}
		running.Go(func() {
			if err := d.Run(ctx); err != nil {
				log.Fatal(err)
			}
		})
	}
	ready := asyncnats.Define[asyncnats.None, asyncnats.None]("fleet.ready")
	for all := 0; all < 3; { // a broadcast is performed by who is there when it is put
		j, err := asyncnats.Put(ctx, queue, asyncnats.ToAll(ready.Call(asyncnats.None{})))
		if err != nil {
			log.Fatal(err)
		}
		replies, err := j.Wait(ctx)
		if err != nil {
			log.Fatal(err)
		}
		all = len(replies)
	}
	return queue, func() {
		cancel()
		running.Wait()
		nc.Close()
	}
}

// readyHandler says that a dispatcher is there.
var readyHandler = asyncnats.Define[asyncnats.None, asyncnats.None]("fleet.ready").Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
	return asyncnats.None{}, nil
})

// Statistics of all processes are gathered by a task that each performs.
func ExampleToAll() {
	type stats struct {
		Requests int `json:"requests"`
	}
	gather := asyncnats.Define[asyncnats.None, stats]("stats.gather")
	queue, stop := fleet(func(number int) []job.Handler {
		return []job.Handler{readyHandler, gather.Handle(func(context.Context, asyncnats.None) (stats, error) {
			return stats{Requests: 100 * (number + 1)}, nil
		})}
	})
	defer stop()
	ctx := context.Background()

	j, err := asyncnats.Put(ctx, queue, asyncnats.ToAll(gather.Call(asyncnats.None{})))
	if err != nil {
		log.Fatal(err)
	}
	replies, err := j.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	total := 0
	for _, dispatcher := range slices.Sorted(maps.Keys(replies)) {
		reply, err := replies[dispatcher].Get()
		fmt.Println(dispatcher[:8], reply.Requests, err)
		total += reply.Requests
	}
	fmt.Println("total", total)
	// Output:
	// 00000000 100 <nil>
	// 00000001 200 <nil>
	// 00000002 300 <nil>
	// total 600
}

// Configuration is reloaded everywhere; who cannot do so says why, and who is away for
// less than the queue's grace does it when it is back.
func ExampleReplies() {
	reload := asyncnats.Define[string, string]("config.reload")
	queue, stop := fleet(func(number int) []job.Handler {
		return []job.Handler{readyHandler, reload.Handle(func(_ context.Context, version string) (string, error) {
			if number == 1 {
				return "", fmt.Errorf("version %s: no such file", version)
			}
			return version, nil
		})}
	})
	defer stop()
	ctx := context.Background()

	j, err := asyncnats.Put(ctx, queue, asyncnats.ToAll(reload.Call("v7")))
	if err != nil {
		log.Fatal(err)
	}
	for reply, err := range asyncnats.Replies(ctx, j) { // as they come
		if err != nil {
			log.Fatal(err)
		}
		version, err := reply.Get()
		fmt.Println(reply.Dispatcher[:8], version, err)
	}
	// Unordered output:
	// 00000000 v7 <nil>
	// 00000001  version v7: no such file
	// 00000002 v7 <nil>
}
