package natstest

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

var (
	errCut    = errors.New("natstest: wire is cut")
	errFrozen = errors.New("natstest: wire is frozen")
)

// pong answers the PING that ends a client's handshake.
var pong = []byte("PONG\r\n")

// Wire joins connections to the server in memory and can be broken in two ways.
//
// [Wire.Cut] is a crash or a reset: both ends learn of it at once and bytes under way are lost. [Wire.Freeze] is a
// partition or a stopped process: bytes stop and nobody learns of it until something times out.
//
// A wire has room for any number of bytes, as if socket buffers had no end, so neither side ever waits for a write. That
// is needed in a bubble: nats.go writes with its lock held, and goroutines that wait for a lock hold up fake time. It
// also means that the server sees no slow consumer behind a frozen wire; it gives the client up when pings stay
// unanswered, after some minutes.
type Wire struct {
	dial func() (net.Conn, error)

	mu      sync.Mutex
	changed *sync.Cond // on mu: any field below, or in a link or flow, has changed
	cut     bool
	frozen  bool
	held    bool    // frozen towards the server alone, see hold
	links   []*link // made since the last cut; some may have ended by themselves
}

// link is one connection over a wire. Each end is closed by the flow that leads to it, or by a break.
type link struct {
	client, server net.Conn
	broken         bool // guarded by Wire.mu
	up             bool // the client has, or is being handed, all it needs for its handshake; guarded by Wire.mu
}

// flow carries the bytes of a link in one direction, with one goroutine at either end.
type flow struct {
	*link
	from, to net.Conn
	pending  []byte // guarded by Wire.mu
	ended    bool   // pending gets no more; guarded by Wire.mu
}

func newWire(dial func() (net.Conn, error)) *Wire {
	w := &Wire{dial: dial}
	w.changed = sync.NewCond(&w.mu)
	return w
}

// Connect opens a connection over the wire, with the defaults of [Server.Connect], that is closed when tb ends.
func (w *Wire) Connect(tb testing.TB, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	return connect(tb, nats.DefaultURL, append([]nats.Option{nats.InProcessServer(w)}, opts...))
}

// InProcessConn makes a wire usable with nats.InProcessServer, for code that opens its connection itself.
// It refuses while the wire is cut or frozen. A frozen wire could let dials wait, but nats.go dials with its lock held
// and would, in a bubble, wait for a timeout that cannot come.
func (w *Wire) InProcessConn() (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, errCut
	}
	if w.frozen {
		return nil, errFrozen
	}
	far, err := w.dial()
	if err != nil {
		return nil, err
	}
	outer, near := net.Pipe()
	l := &link{client: near, server: far}
	w.links = append(w.links, l)
	for _, f := range []*flow{{link: l, from: near, to: far}, {link: l, from: far, to: near}} {
		go w.fill(f)
		go w.drain(f)
	}
	return outer, nil
}

// Cut drops every connection of the wire, and refuses new ones until [Wire.Restore].
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for _, l := range w.links {
		l.sever()
	}
	w.links = nil
	w.changed.Broadcast()
}

// Restore ends a cut. Clients come back at their next try.
func (w *Wire) Restore() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// Freeze holds back, in both directions, all bytes written from now on, the news of a closed end included, until
// [Wire.Thaw]. Connections stay open until one side gives up; new ones are refused. A connection in the middle of its
// handshake is dropped, for the reason given at [Wire.InProcessConn].
func (w *Wire) Freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = true
	for _, l := range w.links {
		if !l.up {
			l.sever()
		}
	}
	w.changed.Broadcast()
}

// Thaw lets go, in order, what [Wire.Freeze] held back.
func (w *Wire) Thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = false
	w.changed.Broadcast()
}

// hold is a [Wire.Freeze] in one direction: the server hears nothing more, and is heard until it closes its end. It is for
// a server that stops, after whatever was under way to it has arrived.
func (w *Wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = true
}

// release ends a hold.
func (w *Wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = false
	w.changed.Broadcast()
}

// sever is called with Wire.mu held, by a caller that broadcasts.
func (l *link) sever() {
	l.broken = true
	l.client.Close()
	l.server.Close()
}

// fill takes bytes from one end as they come, until that end is closed.
func (w *Wire) fill(f *flow) {
	buf := make([]byte, 32<<10)
	for ended := false; !ended; {
		n, err := f.from.Read(buf)
		ended = err != nil
		w.mu.Lock()
		f.pending = append(f.pending, buf[:n]...)
		f.ended = ended
		w.changed.Broadcast()
		w.mu.Unlock()
	}
}

// drain hands them on while the wire is not frozen, then closes the other end, which in turn ends the opposite flow.
func (w *Wire) drain(f *flow) {
	defer f.to.Close()
	for {
		p := w.next(f)
		if len(p) == 0 {
			return
		}
		if _, err := f.to.Write(p); err != nil {
			return
		}
	}
}

// next waits for bytes to hand on. None means that there will be no more. A freeze no longer stops what it has returned.
func (w *Wire) next(f *flow) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !f.broken && (w.stops(f) || len(f.pending) == 0 && !f.ended) {
		w.changed.Wait()
	}
	if f.broken {
		return nil
	}
	p := f.pending
	f.pending = nil
	if f.to == f.client && bytes.Contains(p, pong) {
		f.up = true
	}
	return p
}

// stops reports whether the wire holds back what a flow carries. It is called with Wire.mu held.
func (w *Wire) stops(f *flow) bool { return w.frozen || w.held && f.to == f.server }
