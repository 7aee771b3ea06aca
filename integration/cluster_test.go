package integration

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// cluster is three servers in this process, connected over loopback.
type cluster struct {
	options []*server.Options

	mu    sync.Mutex
	nodes []*server.Server
}

// startCluster starts a cluster in which streams can be made.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	const size = 3
	c := &cluster{}
	var routes []*url.URL
	var ports []int
	for range size {
		port := freePort(t)
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	for i := range size {
		c.options = append(c.options, &server.Options{
			ServerName: fmt.Sprintf("node%d", i), Host: "127.0.0.1", Port: freePort(t),
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]}, Routes: routes,
			JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		})
		c.nodes = append(c.nodes, nil)
		c.start(t, i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	for _, s := range c.nodes {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatalf("node %s does not start", s.Name())
		}
	}
	// Until then no stream can be made on all nodes.
	await(t, func() bool {
		return slices.ContainsFunc(c.nodes, func(s *server.Server) bool {
			return s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == size
		})
	})
	return c
}

func (c *cluster) start(t *testing.T, i int) {
	t.Helper()
	s, err := server.NewServer(c.options[i].Clone())
	if err != nil {
		t.Error(err)
		return
	}
	s.Start()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i] = s
}

func (c *cluster) stop(i int) {
	c.mu.Lock()
	s := c.nodes[i]
	c.mu.Unlock()
	s.Shutdown()
	s.WaitForShutdown()
}

func (c *cluster) urls() string {
	var urls []string
	for _, o := range c.options {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return strings.Join(urls, ",")
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The server that leads a queue of three replicas dies under load and comes
// back: every job ends, with one outcome.
func TestClusterLosesALeader(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers in real time")
	}
	const count = 2000
	c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client, err := asyncnats.Connect(ctx, c.connect(t), asyncnats.Config{})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := client.CreateQueue(ctx, job.DefaultQueue, asyncnats.QueueConfig{Replicas: 3, AckWait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int64
	work := asyncnats.Define[int, int]("cluster.work")
	for range 2 {
		c.dispatch(t, work.Handle(func(_ context.Context, n int) (int, error) {
			runs.Add(1)
			time.Sleep(20 * time.Millisecond)
			return n, nil
		}))
	}
	jobs := make([]*asyncnats.Job[int], count)
	for i := range jobs {
		if i == count/2 {
			leader := c.leader(t, "ASYNC_default")
			c.stop(leader)
			back := make(chan struct{})
			time.AfterFunc(2*time.Second, func() {
				defer close(back)
				c.start(t, leader)
			})
			defer func() { <-back }()
		}
		if jobs[i], err = asyncnats.Put(ctx, queue, work.Call(i)); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	for i, j := range jobs {
		if got, err := j.Wait(ctx); err != nil || got != i {
			t.Fatalf("job %d: %d, %v", i, got, err)
		}
	}
	t.Logf("%d jobs were started %d times", count, runs.Load())
	if n := runs.Load(); n > count+40 {
		t.Errorf("%d jobs were started %d times: more than once for each job that ran when the leader died", count, n)
	}
}

// connect connects to whichever server lives.
func (c *cluster) connect(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(c.urls(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// dispatch runs a dispatcher until the test ends.
func (c *cluster) dispatch(t *testing.T, handlers ...job.Handler) {
	t.Helper()
	d, err := dispatcher.New(c.connect(t), dispatcher.Config{
		UUID: uuid.New(), Agents: []agents.Agent{{Name: "main", Size: 10}}, Handlers: handlers, Log: quiet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// leader returns which node leads a stream.
func (c *cluster) leader(t *testing.T, stream string) int {
	t.Helper()
	js, err := jetstream.New(c.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	found, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range c.options {
		if o.ServerName == found.CachedInfo().Cluster.Leader {
			return i
		}
	}
	t.Fatal("no leader")
	return 0
}
