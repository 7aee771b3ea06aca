package asyncnats_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// The task is what producers and workers share.
var shout = asyncnats.Define[string, string]("text.shout")

// A job goes round: it is put on a queue, a dispatcher performs it, and its
// result comes back. Producer and dispatcher are usually two processes.
func Example() {
	nc := connect()
	defer nc.Close()
	ctx, cancel := context.WithCancel(context.Background())

	// The producer.
	client, err := asyncnats.Connect(ctx, nc, asyncnats.Config{})
	if err != nil {
		log.Fatal(err)
	}
	queue, err := client.CreateQueue(ctx, "words", asyncnats.QueueConfig{})
	if err != nil {
		log.Fatal(err)
	}
	greeting, err := asyncnats.Put(ctx, queue, shout.Call("hello"))
	if err != nil {
		log.Fatal(err)
	}

	// The dispatcher.
	d, err := dispatcher.New(nc, dispatcher.Config{
		UUID:   uuid.New(), // else that of the instance, in a file
		Queues: []string{"words"},
		Handlers: []job.Handler{shout.Handle(func(_ context.Context, text string) (string, error) {
			return strings.ToUpper(text) + "!", nil
		})},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	stopped := make(chan error)
	go func() { stopped <- d.Run(ctx) }()

	text, err := greeting.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)

	cancel()
	fmt.Println(<-stopped)
	// Output:
	// HELLO!
	// <nil>
}

// A job that failed says why.
func ExampleJob_Wait() {
	open := asyncnats.Define[string, int]("file.size")
	queue, stop := dispatch(open.Handle(func(_ context.Context, name string) (int, error) {
		info, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		return int(info.Size()), nil
	}))
	defer stop()

	missing, err := asyncnats.Put(context.Background(), queue, open.Call("/no/such/file"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = missing.Wait(context.Background())
	if failure, failed := errors.AsType[*job.Failure](err); failed {
		fmt.Println(failure.Kind, failure.Attempt, failure.Message)
	}
	// Output: error 1 stat /no/such/file: no such file or directory
}

// An ID chosen by the caller makes a job unique until it is completed.
func ExampleCall_ID() {
	release := make(chan struct{})
	report := asyncnats.Define[int, string]("report.monthly")
	queue, stop := dispatch(report.Handle(func(_ context.Context, month int) (string, error) {
		<-release
		return fmt.Sprintf("report of month %d", month), nil
	}))
	defer stop()
	ctx := context.Background()

	_, err := asyncnats.Put(ctx, queue, report.Call(7).ID("report-7"))
	fmt.Println(err)
	// Somebody asks for the same report: the handle is that of the job that
	// exists.
	same, err := asyncnats.Put(ctx, queue, report.Call(7).ID("report-7"))
	fmt.Println(errors.Is(err, asyncnats.ErrExists))
	close(release)
	fmt.Println(same.Wait(ctx))
	// Output:
	// <nil>
	// true
	// report of month 7 <nil>
}

// Many jobs are put much faster together than one by one.
func ExamplePutMany() {
	queue, stop := dispatch(shout.Handle(func(_ context.Context, text string) (string, error) {
		return strings.ToUpper(text), nil
	}))
	defer stop()
	ctx := context.Background()

	jobs, err := asyncnats.PutMany(ctx, queue, shout.Call("one"), shout.Call("two"), shout.Call("three"))
	if err != nil {
		log.Fatal(err)
	}
	for _, j := range jobs {
		fmt.Println(j.Wait(ctx))
	}
	// Output:
	// ONE <nil>
	// TWO <nil>
	// THREE <nil>
}

// A job's timeout ends the context of its handler.
func ExampleTask_Timeout() {
	slow := asyncnats.Define[asyncnats.None, asyncnats.None]("slow").Timeout(50 * time.Millisecond)
	queue, stop := dispatch(slow.Handle(func(ctx context.Context, _ asyncnats.None) (asyncnats.None, error) {
		<-ctx.Done()
		return asyncnats.None{}, context.Cause(ctx)
	}))
	defer stop()

	late, err := asyncnats.Put(context.Background(), queue, slow.Call(asyncnats.None{}))
	if err != nil {
		log.Fatal(err)
	}
	_, err = late.Wait(context.Background())
	fmt.Println(errors.Is(err, job.ErrTimeout), err)
	// Output: true timeout: ran longer than its timeout of 50ms: job timed out
}

// Another process finds a job by its ID.
func ExampleLookup() {
	queue, stop := dispatch(shout.Handle(func(_ context.Context, text string) (string, error) {
		return strings.ToUpper(text), nil
	}))
	defer stop()
	ctx := context.Background()
	if _, err := asyncnats.Put(ctx, queue, shout.Call("hello").ID("greeting/1")); err != nil {
		log.Fatal(err)
	}

	found, err := asyncnats.Lookup[string](ctx, queue, "greeting/1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.Wait(ctx))
	// Output: HELLO <nil>
}

// connect connects to a server in this process that stores into a temporary
// folder. Yours is more likely at nats://….
func connect() *nats.Conn {
	store, err := os.MkdirTemp("", "asyncnats-example-")
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: store, NoLog: true, NoSigs: true})
	if err != nil {
		log.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		log.Fatal("server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.ClosedHandler(func(*nats.Conn) {
		s.Shutdown()
		os.RemoveAll(store)
	}))
	if err != nil {
		log.Fatal(err)
	}
	return nc
}

// dispatch makes a queue and runs a dispatcher for it.
func dispatch(handlers ...job.Handler) (queue *asyncnats.Queue, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	nc := connect()
	client, err := asyncnats.Connect(ctx, nc, asyncnats.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if queue, err = client.CreateQueue(ctx, job.DefaultQueue, asyncnats.QueueConfig{}); err != nil {
		log.Fatal(err)
	}
	d, err := dispatcher.New(nc, dispatcher.Config{UUID: uuid.New(), Handlers: handlers, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	stopped := make(chan error)
	go func() { stopped <- d.Run(ctx) }()
	return queue, func() {
		cancel()
		if err := <-stopped; err != nil {
			log.Fatal(err)
		}
		nc.Close()
	}
}
