package stories

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/integration/internal/crew"
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

// relayed is the domain of [story.through].
const relayed = "relay"

// through is the default queue of a client that asks by way of a relay, as
// natstest.Server.Relay has it; others can, too.
func (s *story) through(take func(*nats.Msg) bool) *asyncnats.Queue {
	s.Helper()
	s.server.Relay(s.T, relayed, take)
	client, err := asyncnats.Connect(s.Context(), s.server.Connect(s.T), asyncnats.Config{Domain: relayed})
	if err != nil {
		s.Fatal(err)
	}
	return client.Queue(job.DefaultQueue)
}

// staff is a dispatcher of a story.
type staff struct {
	*dispatcher.Dispatcher
	wire *natstest.Wire
	log  *crew.Log
	stop func()
}

// dispatch runs a dispatcher over a wire of its own until the story ends or it
// is stopped.
func (s *story) dispatch(c dispatcher.Config) *staff {
	s.Helper()
	m := crew.Hire(s.T, s.server, c)
	return &staff{Dispatcher: m.Dispatcher, wire: m.Wire, log: m.Log, stop: m.Stop}
}

// edit changes a stream as an administrator would.
func (s *story) edit(name string, change func(*jetstream.StreamConfig)) {
	s.Helper()
	js := s.server.JetStream(s.T)
	found, err := js.Stream(s.Context(), name)
	if err != nil {
		s.Fatal(err)
	}
	config := found.CachedInfo().Config
	change(&config)
	if _, err := js.UpdateStream(s.Context(), config); err != nil {
		s.Fatal(err)
	}
}

// nap takes the time that it is given, as each story handles it.
var nap = asyncnats.Define[time.Duration, asyncnats.None]("story.nap")

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

// refuse has a stream not take messages on one of its subjects until again is
// called.
func (s *story) refuse(name, subject string) (again func()) {
	s.Helper()
	replace := func(old, by string) {
		s.edit(name, func(c *jetstream.StreamConfig) {
			i := slices.Index(c.Subjects, old)
			if i < 0 {
				s.Fatalf("stream %s takes %q, not %s", name, c.Subjects, old)
			}
			c.Subjects[i] = by
		})
	}
	refused := "refused." + name
	replace(subject, refused)
	return func() { replace(refused, subject) }
}
