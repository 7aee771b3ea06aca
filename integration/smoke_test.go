package integration

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

var shout = asyncnats.Define[string, string]("text.shout")

func TestSmoke(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		client, err := asyncnats.Connect(ctx, s.Connect(t), asyncnats.Config{})
		if err != nil {
			t.Fatal(err)
		}
		q, err := client.CreateQueue(ctx, "default", asyncnats.QueueConfig{})
		if err != nil {
			t.Fatal(err)
		}
		j, err := asyncnats.Put(ctx, q, shout.Call("hello"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := dispatcher.New(s.Connect(t), dispatcher.Config{
			Handlers: []job.Handler{shout.Handle(func(ctx context.Context, s string) (string, error) {
				return strings.ToUpper(s), nil
			})},
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		got, err := j.Wait(ctx)
		t.Log(got, err)
		if got != "HELLO" {
			t.Fatal(got, err)
		}
		st, err := j.Status(ctx)
		t.Logf("%+v %+v %v", st, st.Record, err)
		info, err := q.Info(ctx)
		t.Logf("%+v %v", info, err)
		time.Sleep(time.Minute)
		jobs := []asyncnats.Call[string]{}
		for range 2500 {
			jobs = append(jobs, shout.Call("x"))
		}
		js, err := asyncnats.PutMany(ctx, q, jobs...)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range js {
			if _, err := j.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
