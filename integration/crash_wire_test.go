package integration

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// mortalConn is a process's connection to the server. It reads the protocol
// that goes over it, tells a life of it, and where that says so it cuts the
// stream at the edge of a command and kills the process.
//
// What was written before is known to have reached the server: before it kills
// it waits for the answer to a ping. What arrives meanwhile the process does not
// see any more.
type mortalConn struct {
	net.Conn
	life   fate
	dying  atomic.Bool
	pongs  atomic.Int64
	last   atomic.Int64  // the pong that is the last to wait for; 0 for none
	silent chan struct{} // closed when it is there

	mu    sync.Mutex // held for good by who kills the process
	pings int64
	out   []byte // the beginning of a command

	inMu    sync.Mutex
	arrived *sync.Cond // on inMu
	in      []byte     // whole commands that the process may read
	err     error
}

// fate sees what a process and the server say to each other, and says whether the
// process ends by it.
type fate interface {
	sent(command) end
	received(command) end
}

func newMortalConn(conn net.Conn, l fate) *mortalConn {
	c := &mortalConn{Conn: conn, life: l, silent: make(chan struct{})}
	c.arrived = sync.NewCond(&c.inMu)
	go c.receive()
	return c
}

// Write writes whole commands, and keeps the rest until it is whole.
func (c *mortalConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, p...)
	whole := 0
	for {
		next, ok := nextCommand(c.out[whole:])
		if !ok {
			break
		}
		if next.verb == "PING" {
			c.pings++
		}
		end := c.life.sent(next)
		if end != before {
			whole += len(next.raw)
		}
		if end != never {
			c.dying.Store(true) // before it is written: the answer is not for the process
			if _, err := c.Conn.Write(c.out[:whole]); err == nil {
				c.die()
			}
		}
	}
	if _, err := c.Conn.Write(c.out[:whole]); err != nil {
		return 0, err
	}
	c.out = append(c.out[:0], c.out[whole:]...)
	return len(p), nil
}

// kill kills the process between two commands.
func (c *mortalConn) kill() {
	c.mu.Lock()
	c.die()
}

// die is called with mu held.
func (c *mortalConn) die() {
	c.dying.Store(true)
	c.pings++
	c.last.Store(c.pings)
	if _, err := c.Conn.Write([]byte("PING\r\n")); err == nil {
		select {
		case <-c.silent:
		case <-time.After(5 * time.Second):
		}
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// receive takes what the server sends, command by command.
func (c *mortalConn) receive() {
	var pending []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Conn.Read(buf)
		pending = append(pending, buf[:n]...)
		for {
			next, ok := nextCommand(pending)
			if !ok {
				break
			}
			c.take(next)
			pending = pending[len(next.raw):]
		}
		if err != nil {
			c.inMu.Lock()
			c.err = err
			c.arrived.Broadcast()
			c.inMu.Unlock()
			return
		}
	}
}

func (c *mortalConn) take(next command) {
	if next.verb == "PONG" && c.pongs.Add(1) == c.last.Load() {
		close(c.silent)
	}
	if c.dying.Load() {
		return
	}
	if c.life.received(next) != never {
		c.dying.Store(true) // at once: what follows is not for the process
		go c.kill()
		return
	}
	c.inMu.Lock()
	defer c.inMu.Unlock()
	c.in = append(c.in, next.raw...)
	c.arrived.Broadcast()
}

// Read yields what arrived.
func (c *mortalConn) Read(p []byte) (int, error) {
	c.inMu.Lock()
	defer c.inMu.Unlock()
	for len(c.in) == 0 && c.err == nil {
		c.arrived.Wait()
	}
	if len(c.in) == 0 {
		return 0, c.err
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// Deadlines are those of writing: reading is not this caller's.
func (c *mortalConn) SetDeadline(t time.Time) error { return c.SetWriteDeadline(t) }

// SetReadDeadline does nothing.
func (c *mortalConn) SetReadDeadline(time.Time) error { return nil }
