package agents

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// A lane that fails is trouble while jobs are to be taken from it.
func TestTrouble(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		queue, link := newQueue(t, s)
		js := s.JetStream(t)
		handlers := make(map[string]job.Handler)
		for _, task := range []string{"a", "b"} {
			handlers[task] = job.Handler{}
		}
		agent := Agent{Name: "main", Size: 1}
		r := NewRunner(Config{Agent: agent, Queue: queue, Link: link, Handlers: handlers})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.Run(ctx, ctx)
		}()
		defer func() {
			cancel()
			<-ended
		}()
		for task := range handlers {
			r.AddLane(stream.Lane{Task: task})
		}
		want := func(what, lane string) {
			t.Helper()
			time.Sleep(time.Minute)
			if got := r.Trouble(); (got == "") != (lane == "") || !strings.HasPrefix(got, lane) {
				t.Errorf("%s: %q, want that of lane %q", what, got, lane)
			}
		}
		want("at first", "")
		create := spoil(t, js)
		want("the queue is gone", "lane ")
		r.Set(Order{Agent: agent, Tasks: []string{"a"}})
		want("a is paused", "lane b")
		r.Set(Order{Agent: agent, Paused: true})
		want("all are paused", "")
		r.Set(Order{Agent: agent})
		want("none is", "lane ")
		create()
		want("the queue is back", "")
	})
}

// spoil deletes the stream of the queue; again makes it anew.
func spoil(t *testing.T, js jetstream.JetStream) (again func()) {
	t.Helper()
	found, err := js.Stream(t.Context(), "ASYNC_media")
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "ASYNC_media"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := js.CreateStream(t.Context(), found.CachedInfo().Config); err != nil {
			t.Error(err)
		}
	}
}
