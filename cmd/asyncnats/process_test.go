//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

func TestServer(t *testing.T) {
	t.Parallel()
	x := newTool(t, "")
	p := x.start("out", "server", "--listen", "127.0.0.1:0", "--store", "data", "--sync", "always")
	x.env = append(x.env, "NATS_URL="+serverURL(p))
	x.ok("queue", "add", "default")
	x.ok("put", "later", "1", "--id", "kept")
	r := x.run("", "server", "--listen", "127.0.0.1:0", "--store", "data")
	if r.code != exitFailed {
		t.Errorf("second server: %+v", r)
	}
	contains(t, r.err, "another server uses it")
	if code := p.stop(syscall.SIGINT); code != exitOK {
		t.Errorf("exit %d", code)
	}
	contains(t, strings.Join(p.seen, "\n"), "put shout", "stopped")

	p = x.start("out", "server", "--listen", "127.0.0.1:0", "--store", "data")
	x.env = append(x.env, "NATS_URL="+serverURL(p))
	contains(t, x.ok("job", "show", "kept"), "state       pending")
	if code := p.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func serverURL(p *process) string {
	_, rest, _ := strings.Cut(p.line("listens on"), "listens on ")
	url, _, _ := strings.Cut(rest, ",")
	p.line("Ctrl-C")
	return url
}

// fifo makes a named pipe in the tool's folder, over which a command and the
// test wait for each other.
func (x *tool) fifo(name string) string {
	x.t.Helper()
	path := filepath.Join(x.dir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		x.t.Fatal(err)
	}
	return path
}

// gone reads a named pipe until somebody has opened it for writing and nobody
// has it open any more.
func (x *tool) gone(path string) <-chan error {
	gone := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(path)
		gone <- err
	}()
	return gone
}

// TestDispatchGrace: a command that runs when the dispatcher is told to stop
// may end.
func TestDispatchGrace(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	started, proceed := x.fifo("started"), x.fifo("proceed")
	x.ok("queue", "add", "default")
	x.ok("put", "slow", "1", "--id", "slow")
	d := x.start("err", "dispatch", "--handle", "slow=echo yes >started; read go <proceed; echo '\"done\"'")
	if err := <-x.gone(started); err != nil {
		t.Fatal(err)
	}
	x.until(`(?s)\nstate +assigned\n.*\nagent +main\n`, "job", "show", "slow")
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.line("dispatcher stops")
	if err := os.WriteFile(proceed, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := d.end(); code != exitOK {
		t.Errorf("exit %d\n%s", code, strings.Join(d.seen, "\n"))
	}
	if out := x.ok("job", "wait", "slow"); out != "\"done\"\n" {
		t.Errorf("result %s", out)
	}
}

// deaf ignores SIGTERM, and starts another that does. Both hold the pipe alive.
const deaf = `trap "" TERM; exec 3>alive; echo yes >&3; sleep 1000 & sleep 1000`

// TestDispatchLeavesNothing: nothing that a command has started outlives the
// dispatcher, whether it wants to or not.
func TestDispatchLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, grace string
		second      bool
		code        int
	}{
		{"grace over", "0s", false, exitOK},
		{"second signal", "1h", true, exitFailed},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := natstest.Start(t, nil)
			x := newTool(t, s.ClientURL())
			alive := x.fifo("alive")
			x.ok("queue", "add", "default")
			x.ok("put", "deaf")
			d := x.start("err", "dispatch", "--handle", "deaf="+deaf, "--grace", row.grace)
			pipe, err := os.Open(alive)
			if err != nil {
				t.Fatal(err)
			}
			defer pipe.Close()
			if err := d.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			d.line("dispatcher stops")
			if row.second {
				if err := d.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.ReadAll(pipe); err != nil {
				t.Fatal(err)
			}
			if code := d.end(); code != row.code {
				t.Errorf("exit %d, want %d\n%s", code, row.code, strings.Join(d.seen, "\n"))
			}
		})
	}
}

// TestDispatchTimeout: a job's timeout ends its command and all it started.
func TestDispatchTimeout(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	alive := x.fifo("alive")
	x.ok("queue", "add", "default")
	d := x.start("err", "dispatch", "--handle", "slow=exec 3>alive; echo why >&2; sleep 1000 & sleep 1000")
	d.line("dispatcher runs")
	gone := x.gone(alive)
	x.ok("put", "slow", "--timeout", "3s", "--id", "slow")
	select {
	case err := <-gone:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the command, or what it started, outlives its timeout")
	}
	r := x.run("", "job", "wait", "slow")
	if r.code != exitJobFailed {
		t.Errorf("%+v", r)
	}
	contains(t, r.err, "timeout: ran longer than its timeout of 3s: command was stopped: why")
	if code := d.stop(syscall.SIGINT); code != exitOK {
		t.Errorf("exit %d", code)
	}
}
