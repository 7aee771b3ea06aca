package asyncnats

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/instance"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// Config describes a client. The zero Config is the default.
type Config struct {
	// Namespace is the system to connect to; empty means
	// stream.DefaultNamespace. One NATS account can hold several.
	Namespace string
	// Domain is the JetStream domain, where the connection's is not meant.
	Domain string
	// Name says, on every job, who put it. Empty means the instance's UUID where the
	// environment variable ASYNCNATS_UUID names its file, and else the connection's
	// name.
	Name string
}

// Client puts jobs and looks after them. It is safe for concurrent use, and
// needs no closing: the connection stays the caller's.
type Client struct {
	namespace *stream.Namespace
	name      string

	mu     sync.Mutex
	queues map[string]*Queue
}

// Connect prepares a connection for the queues of a namespace. It writes
// nothing.
//
// Errors: [ErrServer] where the server is too old or runs without JetStream,
// [ErrPermission], [ErrUnanswered].
func Connect(ctx context.Context, nc *nats.Conn, c Config) (*Client, error) {
	js, err := jetstream.New(nc)
	if c.Domain != "" {
		js, err = jetstream.NewWithDomain(nc, c.Domain)
	}
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	namespace, err := stream.Open(ctx, js, c.Namespace)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	name, err := c.name(nc)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return &Client{namespace: namespace, name: name, queues: make(map[string]*Queue)}, nil
}

// name is who is said to have put the client's jobs.
func (c Config) name(nc *nats.Conn) (string, error) {
	if c.Name != "" {
		return c.Name, nil
	}
	if os.Getenv(instance.Variable) == "" {
		return nc.Opts.Name, nil
	}
	id, err := instance.UUID()
	return id.String(), err
}

// Queue returns a queue of that name. It asks nothing of the server: whether
// the queue exists shows when it is used.
func (c *Client) Queue(name string) *Queue {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, ok := c.queues[name]
	if !ok {
		q = &Queue{client: c, name: name}
		c.queues[name] = q
	}
	return q
}

// QueueConfig describes a queue when it is created. The zero QueueConfig is
// the default.
type QueueConfig = stream.Config

// CreateQueue creates a queue, or returns the one that exists, which it never
// alters. While the server does not answer it goes on, until ctx ends or, where ctx has
// no deadline, for 30 seconds at each step. It returns a [*stream.ConfigError] where a stream of the name that it
// needs exists and cannot serve as a queue.
func (c *Client) CreateQueue(ctx context.Context, name string, config QueueConfig) (*Queue, error) {
	opened, err := c.namespace.CreateQueue(ctx, name, config)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	q := c.Queue(name)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened = opened
	return q, nil
}

// DeleteQueue removes a queue with its pending jobs and its records. It
// returns [ErrNoQueue] where there is none.
func (c *Client) DeleteQueue(ctx context.Context, name string) error {
	if err := c.namespace.DeleteQueue(ctx, name); err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.queues, name)
	return nil
}

// Queues lists the names of the namespace's queues, sorted.
func (c *Client) Queues(ctx context.Context) ([]string, error) {
	names, err := c.namespace.Queues(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return names, nil
}

// Queue is a queue as a producer sees it. It is safe for concurrent use.
type Queue struct {
	client *Client
	name   string

	mu     sync.Mutex
	opened *stream.Queue
	quotas *quotas.Set // nil until used
}

// Client returns the client that the queue is of, for its other queues.
func (q *Queue) Client() *Client { return q.client }

// Name returns the queue's name.
func (q *Queue) Name() string { return q.name }

// open opens the queue at its first use, and persists in that while the server does not
// answer, until ctx ends or, where ctx has no deadline, for 30 seconds.
func (q *Queue) open(ctx context.Context) (*stream.Queue, error) {
	q.mu.Lock()
	opened := q.opened
	q.mu.Unlock()
	if opened != nil {
		return opened, nil
	}
	opened, err := q.client.namespace.Queue(ctx, q.name)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened = opened
	return opened, nil
}

// Broadcast reports whether the queue is a broadcast queue.
func (q *Queue) Broadcast(ctx context.Context) (is bool, err error) {
	err = q.use(ctx, func(opened *stream.Queue) error {
		is = opened.Broadcast()
		return nil
	})
	return is, err
}

// QueueInfo is what is known of a queue.
type QueueInfo = stream.Info

// whoPatience is how long dispatchers have to answer.
const whoPatience = 300 * time.Millisecond

// Info returns the state of the queue: what is pending in each lane, who
// serves it, what nobody accounts for. It takes a third of a second, in which
// dispatchers answer.
func (q *Queue) Info(ctx context.Context) (QueueInfo, error) {
	opened, err := q.open(ctx)
	if err != nil {
		return QueueInfo{}, fmt.Errorf("asyncnats: %w", err)
	}
	info, err := opened.Info(ctx, whoPatience)
	if err != nil {
		return QueueInfo{}, fmt.Errorf("asyncnats: %w", err)
	}
	return info, nil
}

// spec makes the spec of a call that is put now.
func (c *Client) spec(call job.Call) job.Spec {
	now := time.Now()
	spec := call.Spec(now)
	spec.Nonce, spec.By, spec.At = job.NewNonce(), c.name, now
	return spec
}
