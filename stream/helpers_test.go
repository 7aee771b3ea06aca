package stream

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

const (
	ackWait = 15 * time.Second
	task    = "image.thumb"
)

var lane = Lane{Task: task}

// inBubble calls f in fake time with a queue of default settings.
func inBubble(t *testing.T, f func(*testing.T, *natstest.Server, *Queue)) {
	t.Helper()
	inBubbleWith(t, Config{}, f)
}

func inBubbleWith(t *testing.T, c Config, f func(*testing.T, *natstest.Server, *Queue)) {
	t.Helper()
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) { f(t, s, createQueue(t, s.Connect(t), c)) })
}

// quiet keeps the client from printing what tests do to it on purpose.
var quiet = nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})

func openNamespace(t *testing.T, nc *nats.Conn, name string) *Namespace {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := Open(t.Context(), js, name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func createQueue(t *testing.T, nc *nats.Conn, c Config) *Queue {
	t.Helper()
	q, err := openNamespace(t, nc, "").CreateQueue(t.Context(), "media", c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// wired opens the queue over a wire of its own.
func wired(t *testing.T, s *natstest.Server) (*Queue, *natstest.Wire) {
	t.Helper()
	nc, wire := s.ConnectWire(t, quiet)
	return createQueue(t, nc, Config{}), wire
}

func newEntry() Entry { return chosen("", task) }

// chosen is an entry with a chosen ID, or none for the empty one.
func chosen(id job.ID, task string) Entry {
	e := Entry{ID: id, Chosen: id != "", Spec: job.Spec{
		Version: job.SpecVersion, Nonce: job.NewNonce(), Task: task, At: time.Now(),
	}}
	if id == "" {
		e.ID = job.NewID()
	}
	return e
}

func put(t *testing.T, q *Queue, entries ...Entry) {
	t.Helper()
	for _, e := range entries {
		if err := q.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

func putNew(t *testing.T, q *Queue) Entry {
	t.Helper()
	e := newEntry()
	put(t, q, e)
	return e
}

// messages counts the queue's messages, that of meta not included.
func messages(t *testing.T, q *Queue) int {
	t.Helper()
	s, err := q.ns.js.Stream(t.Context(), q.names.stream())
	if err != nil {
		t.Fatal(err)
	}
	return int(s.CachedInfo().State.Msgs) - 1
}

func wantMessages(t *testing.T, q *Queue, want int) {
	t.Helper()
	if got := messages(t, q); got != want {
		t.Errorf("%d messages stored, want %d", got, want)
	}
}

// edit changes the queue's stream as an administrator would.
func edit(t *testing.T, q *Queue, change func(*jetstream.StreamConfig)) {
	t.Helper()
	found, err := q.ns.js.Stream(t.Context(), q.names.stream())
	if err != nil {
		t.Fatal(err)
	}
	config := found.CachedInfo().Config
	change(&config)
	if _, err := q.ns.js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

// ended is how a pull ended.
type ended struct {
	pull *Pull
	err  error
}

// collector is a sink that keeps what it is given.
type collector struct {
	leases chan *Lease
	ends   chan ended

	mu   sync.Mutex
	over map[*Pull]int
	late int // leases delivered after the end of their pull
}

func newCollector() *collector {
	return &collector{leases: make(chan *Lease, 10_000), ends: make(chan ended, 10_000), over: make(map[*Pull]int)}
}

func (c *collector) sink() Sink {
	return Sink{
		Deliver: func(p *Pull, l *Lease) {
			c.mu.Lock()
			if c.over[p] > 0 {
				c.late++
			}
			c.mu.Unlock()
			c.leases <- l
		},
		End: func(p *Pull, err error) {
			c.mu.Lock()
			c.over[p]++
			c.mu.Unlock()
			c.ends <- ended{p, err}
		},
	}
}

// tapped is a tap with a link that runs and a sink that collects.
type tapped struct {
	*collector
	*Tap
	link *Link
}

func tap(t *testing.T, q *Queue) *tapped {
	t.Helper()
	link := NewLink(q.conn(), time.Second)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	go link.Run(ctx)
	c := newCollector()
	opened, err := q.Tap(t.Context(), lane, link, c.sink())
	if err != nil {
		t.Fatal(err)
	}
	return &tapped{collector: c, Tap: opened, link: link}
}

func (c *tapped) pull(t *testing.T, n int, waiting bool) *Pull {
	t.Helper()
	p, err := c.Pull(n, waiting)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// next returns the next lease that was brought, within a minute.
func (c *collector) next(t *testing.T) *Lease {
	t.Helper()
	select {
	case l := <-c.leases:
		return l
	case <-time.After(time.Minute):
		t.Fatal("no delivery")
		return nil
	}
}

// take pulls one job.
func (c *tapped) take(t *testing.T) *Lease {
	t.Helper()
	p := c.pull(t, 1, true)
	l := c.next(t)
	c.end(t, p)
	return l
}

// end waits for the end of the pull and returns its error.
func (c *collector) end(t *testing.T, p *Pull) error {
	t.Helper()
	select {
	case e := <-c.ends:
		if e.pull != p {
			t.Fatal("another pull ended")
		}
		return e.err
	case <-time.After(2 * time.Minute):
		t.Fatal("the pull does not end")
		return nil
	}
}

// wantEndedOnce checks, much later, that each pull ended exactly once and brought nothing afterwards.
func (c *collector) wantEndedOnce(t *testing.T, pulls ...*Pull) {
	t.Helper()
	time.Sleep(2 * time.Minute)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range pulls {
		if c.over[p] != 1 {
			t.Errorf("pull %d ended %d times", i, c.over[p])
		}
	}
	if c.late > 0 {
		t.Errorf("%d deliveries after the end of their pull", c.late)
	}
}

// within runs f and checks that it took no longer than d.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > d {
		t.Errorf("%s took %v, want at most %v", what, took, d)
	}
}

// withUser gives a server one user, "u" with password "p", who may do everything but publish to the subjects denied.
func withUser(denied ...string) (configure func(*server.Options), login nats.Option) {
	return func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "u", Password: "p", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: denied},
			}},
			{Username: "admin", Password: "p"},
		}
	}, nats.UserInfo("u", "p")
}

var asAdmin = nats.UserInfo("admin", "p")
