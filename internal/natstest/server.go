package natstest

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// readyTimeout is how long a start may take, in the time the server lives in.
const readyTimeout = 10 * time.Second

const loopback = "127.0.0.1"

var errStopped = errors.New("natstest: server is stopped")

// Server is a NATS server that lasts for one test and can be stopped and started again on the same files.
type Server struct {
	dir       string
	configure func(*server.Options) // may be nil
	listen    bool                  // real time, on a TCP port; else in a bubble
	port      int                   // chosen at the first start and kept, 0 before

	mu      sync.Mutex
	running *server.Server // nil while stopped
	log     *logger        // of running
	wires   []*Wire        // all that were laid
}

// Start runs a server in real time on a free port of 127.0.0.1 until tb ends, for benchmarks and for tests with several
// processes. Configure may be nil; see [RunWith].
func Start(tb testing.TB, configure func(*server.Options)) *Server {
	tb.Helper()
	if !clock.TryRLock() {
		tb.Fatal("natstest: Start inside or beside Run")
	}
	tb.Cleanup(clock.RUnlock)
	forgetTimers()
	s := &Server{dir: tb.TempDir(), configure: configure, listen: true}
	tb.Cleanup(s.Stop)
	s.start(tb)
	return s
}

// StoreDir is the folder of the JetStream files.
func (s *Server) StoreDir() string { return s.dir }

// ClientURL is where other processes connect. It stays the same over restarts. Only servers of [Start] have one.
func (s *Server) ClientURL() string {
	return fmt.Sprintf("nats://%s:%d", loopback, s.port)
}

// Connect opens a connection that is closed when tb ends: over TCP to a server of [Start], through a [Wire] of its own
// in a bubble. Unless opts say otherwise it tries to reconnect every 50 ms without end.
func (s *Server) Connect(tb testing.TB, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	if s.listen {
		return connect(tb, s.ClientURL(), opts)
	}
	return s.Wire(tb).Connect(tb, opts...)
}

// ConnectWire is [Server.Connect] with the wire of the connection, to break it.
func (s *Server) ConnectWire(tb testing.TB, opts ...nats.Option) (*nats.Conn, *Wire) {
	tb.Helper()
	w := s.Wire(tb)
	return w.Connect(tb, opts...), w
}

// Wire lays a wire to the server for one connection or several that break together, like those of one process.
// It is cut for good when tb ends.
func (s *Server) Wire(tb testing.TB) *Wire {
	w := newWire(s.dial)
	s.mu.Lock()
	s.wires = append(s.wires, w)
	s.mu.Unlock()
	tb.Cleanup(w.Cut)
	return w
}

// JetStream is a JetStream context on a connection of its own.
func (s *Server) JetStream(tb testing.TB, opts ...nats.Option) jetstream.JetStream {
	tb.Helper()
	js, err := jetstream.New(s.Connect(tb, opts...))
	if err != nil {
		tb.Fatalf("natstest: jetstream: %v", err)
	}
	return js
}

// Stop shuts the server down in order and waits until it is. Clients try to reconnect until [Server.Restart].
// Stopping a stopped server does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	ns, log, wires := s.running, s.log, slices.Clone(s.wires)
	s.running, s.log = nil, nil
	s.mu.Unlock()
	if ns == nil {
		return
	}
	if !s.listen {
		// A server that stops sleeps for a moment, with a lock held. A request that wanted the lock would not count as
		// waiting, and the bubble's clock would stand still. So it does what it was asked, and hears no more.
		synctest.Wait()
	}
	for _, w := range wires {
		w.hold()
		defer w.release()
	}
	ns.Shutdown()
	ns.WaitForShutdown()
	log.close()
}

// Restart stops the server if it runs and starts it on the same files and port. It returns when the server is ready;
// clients come back at their next try. A request sent before that is lost with the old connection: sleep a second in a
// bubble, or wait for the reconnect handler.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop()
	s.start(tb)
}

func (s *Server) start(tb testing.TB) {
	tb.Helper()
	ns, err := server.NewServer(s.options())
	if err != nil {
		tb.Fatalf("natstest: new server: %v", err)
	}
	log := newLogger(tb)
	log.attach(ns)
	ns.Start()
	ready := ns.ReadyForConnections(readyTimeout)
	// Not before: over TCP, too, nobody gets in until the streams are recovered.
	s.mu.Lock()
	s.running, s.log = ns, log
	s.mu.Unlock()
	if !ready {
		tb.Fatalf("natstest: server not ready after %v", readyTimeout)
	}
	if s.listen && s.port == 0 {
		s.port = ns.Addr().(*net.TCPAddr).Port
	}
}

// options are made anew for every start, because a server keeps state in the accounts it is given.
func (s *Server) options() *server.Options {
	o := &server.Options{
		ServerName: "natstest",
		JetStream:  true,
		StoreDir:   s.dir,
		NoSigs:     true, // signal.Notify would start a goroutine that never ends
		DontListen: !s.listen,
	}
	if !s.listen {
		// Synced every two minutes of fake time, files would take a third of a test's time. What is written outlives the
		// server; only a machine that loses power would notice, and no test does that.
		o.SyncInterval = 1000 * time.Hour
	}
	if s.configure != nil {
		s.configure(o)
	}
	if s.listen {
		o.Host, o.Port = loopback, s.port
		if o.Port == 0 {
			o.Port = server.RANDOM_PORT
		}
	}
	return o
}

func (s *Server) dial() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return nil, errStopped
	}
	return s.running.InProcessConn()
}

func connect(tb testing.TB, url string, opts []nats.Option) *nats.Conn {
	tb.Helper()
	defaults := []nats.Option{
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(0, 0),
	}
	nc, err := nats.Connect(url, append(defaults, opts...)...)
	if err != nil {
		tb.Fatalf("natstest: connect: %v", err)
	}
	tb.Cleanup(nc.Close)
	return nc
}
