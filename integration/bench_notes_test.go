package integration

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

type none = asyncnats.None

// BenchmarkNotes measures what a running job says and is told, beside what the
// connection alone takes: one annotation from outside and from its handler, one read,
// one question beside a bare request, one report in a loop.
func BenchmarkNotes(b *testing.B) {
	s := natstest.Start(b, nil)
	ctx := b.Context()
	client, err := asyncnats.Connect(ctx, s.Connect(b), asyncnats.Config{})
	if err != nil {
		b.Fatal(err)
	}
	queue, err := client.CreateQueue(ctx, job.DefaultQueue, asyncnats.QueueConfig{})
	if err != nil {
		b.Fatal(err)
	}
	task, handlers, release := asyncnats.Define[none, none]("bench.noted"), make(chan context.Context), make(chan struct{})
	d, err := dispatcher.New(s.Connect(b), dispatcher.Config{UUID: uuid.New(), Log: slog.New(slog.DiscardHandler), Handlers: []job.Handler{task.Handle(func(ctx context.Context, _ none) (none, error) {
		if _, err := asyncnats.Answer(ctx, "echo", func(_ context.Context, n int) (int, error) { return n, nil }); err != nil {
			return none{}, err
		}
		handlers <- ctx
		<-release
		return none{}, nil
	})}})
	if err != nil {
		b.Fatal(err)
	}
	running, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- d.Run(running) }()
	defer func() {
		close(release)
		stop()
		if err := <-stopped; err != nil {
			b.Error(err)
		}
	}()
	j, err := asyncnats.Put(ctx, queue, task.Call(none{}))
	if err != nil {
		b.Fatal(err)
	}
	inside := <-handlers
	self, err := asyncnats.Self(inside)
	if err != nil {
		b.Fatal(err)
	}
	bare := s.Connect(b)
	if _, err := bare.Subscribe("bare", func(msg *nats.Msg) { _ = msg.Respond(msg.Data) }); err != nil {
		b.Fatal(err)
	}
	for _, row := range []struct {
		name string
		do   func(n int) error
	}{
		{"annotate/outside", func(n int) error { return j.Annotate(ctx, "x", n) }},
		{"annotate/inside", func(n int) error { return self.Annotate(inside, "x", n) }},
		{"read", func(int) error { _, _, err := asyncnats.Annotation[int](ctx, j, "x"); return err }},
		{"ask", func(n int) error { _, err := asyncnats.Ask[int](ctx, j, "echo", n); return err }},
		{"bare request", func(int) error { _, err := bare.RequestWithContext(ctx, "bare", []byte("x")); return err }},
		{"report", func(n int) error { return asyncnats.Report(inside, asyncnats.Progress{Done: int64(n)}) }},
	} {
		b.Run(row.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				n++
				if err := row.do(n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
