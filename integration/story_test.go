package integration

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// story is a test of the whole in fake time: one server, a client of the
// default queue, and any number of dispatchers.
type story struct {
	*testing.T
	server *natstest.Server
	client *asyncnats.Client
	queue  *asyncnats.Queue
}

// tell runs a story. Its clock advances only when everybody waits.
func tell(t *testing.T, f func(s *story)) { tellWith(t, nil, f) }

// tellWith is tell with a server that is configured.
func tellWith(t *testing.T, configure func(*server.Options), f func(s *story)) {
	natstest.RunWith(t, configure, func(t *testing.T, server *natstest.Server) {
		s := &story{T: t, server: server}
		var err error
		if s.client, err = asyncnats.Connect(t.Context(), server.Connect(t), asyncnats.Config{Name: t.Name()}); err != nil {
			t.Fatal(err)
		}
		if s.queue, err = s.client.CreateQueue(t.Context(), job.DefaultQueue, asyncnats.QueueConfig{}); err != nil {
			t.Fatal(err)
		}
		f(s)
	})
}

// staff is a dispatcher of a story.
type staff struct {
	*dispatcher.Dispatcher
	wire *natstest.Wire
	log  *syncBuffer
	stop func()
}

// dispatch runs a dispatcher over a wire of its own until the story ends or it
// is stopped.
func (s *story) dispatch(c dispatcher.Config) *staff {
	s.Helper()
	log := &syncBuffer{}
	c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if c.UUID == uuid.Nil {
		c.UUID = uuid.New()
	}
	nc, wire := s.server.ConnectWire(s.T)
	d, err := dispatcher.New(nc, c)
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.Errorf("dispatcher %s: %v", d.UUID(), err)
		}
	})
	s.Cleanup(func() {
		stop()
		if s.Failed() {
			s.Logf("dispatcher %s wrote:\n%s", d.UUID(), log)
		}
	})
	return &staff{Dispatcher: d, wire: wire, log: log, stop: stop}
}

// put puts a call on the default queue.
func put[R any](s *story, call asyncnats.Call[R]) *asyncnats.Job[R] {
	s.Helper()
	j, err := asyncnats.Put(s.Context(), s.queue, call)
	if err != nil {
		s.Fatal(err)
	}
	return j
}

// wait waits for a job that is to succeed.
func wait[R any](s *story, j *asyncnats.Job[R]) R {
	s.Helper()
	result, err := j.Wait(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return result
}

// record returns the record of a job.
func record[R any](s *story, j *asyncnats.Job[R]) job.Record {
	s.Helper()
	status, err := j.Status(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if status.Record == nil {
		s.Fatalf("job %s has no record: %+v", j.ID(), status)
	}
	return *status.Record
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *syncBuffer) contains(words ...string) bool {
	for line := range strings.Lines(b.String()) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}
