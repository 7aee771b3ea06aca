package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// The test binary runs itself again as the processes that a story needs. What
// each is to do comes in the environment.
const (
	roleVariable   = "ASYNCNATS_TEST_ROLE"
	configVariable = "ASYNCNATS_TEST_CONFIG"
	// profileVariable, set by whoever runs a benchmark, is the port at which the server's
	// process gives profiles; see docs/performance.md.
	profileVariable = "ASYNCNATS_TEST_PPROF"
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		natstest.WideParallel()
		os.Exit(m.Run())
	case "server":
		os.Exit(serverProcess())
	case "worker":
		os.Exit(workerProcess())
	case "composer":
		os.Exit(composerProcess())
	case "bare":
		os.Exit(bareProcess())
	default:
		fmt.Fprintln(os.Stderr, "unknown role", role)
		os.Exit(2)
	}
}

// process is a child process of a test. It is killed when the test ends.
type process struct {
	*exec.Cmd
	lines chan string // what it writes to standard output, line by line

	mu  sync.Mutex
	log strings.Builder // what it writes to standard error
}

// spawn starts the test binary in a role.
func spawn(tb testing.TB, role string, config any) *process {
	tb.Helper()
	encoded, err := json.Marshal(config)
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{Cmd: exec.Command(os.Args[0]), lines: make(chan string, 1000)}
	p.Env = append(os.Environ(), roleVariable+"="+role, configVariable+"="+string(encoded))
	out, err := p.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	p.Stderr = p
	// A parent that is gone must not leave children behind.
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	tb.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
		if tb.Failed() {
			tb.Logf("%s %d wrote:\n%s", role, p.Process.Pid, p.Log())
		}
	})
	return p
}

// Write takes what the process writes to standard error.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// Log returns what the process wrote to standard error so far.
func (p *process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// line waits for the next line of standard output.
func (p *process) line(tb testing.TB) string {
	tb.Helper()
	select {
	case line, open := <-p.lines:
		if !open {
			tb.Fatalf("process ended; it wrote:\n%s", p.Log())
		}
		return line
	case <-time.After(time.Minute):
		tb.Fatalf("process says nothing; it wrote:\n%s", p.Log())
	}
	return ""
}

func (p *process) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := p.Process.Signal(s); err != nil {
		tb.Fatal(err)
	}
}

// serverConfig is what a server process is to do.
type serverConfig struct {
	Store string
	Port  int // -1 for a free one
}

// startServer starts a server process and returns it with its URL.
//
// nats.go keeps timers in a pool, and one of a bubble of fake time is fatal outside
// it. A pool keeps what it holds through one collection, hence two.
func startServer(tb testing.TB) (*process, string) {
	tb.Helper()
	runtime.GC()
	runtime.GC()
	p := spawn(tb, "server", serverConfig{Store: tb.TempDir(), Port: -1})
	return p, p.line(tb)
}

func serverProcess() int {
	var c serverConfig
	if err := json.Unmarshal([]byte(os.Getenv(configVariable)), &c); err != nil {
		return fail(err)
	}
	profile, _ := strconv.Atoi(os.Getenv(profileVariable)) // 0 for none
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: c.Port, JetStream: true, StoreDir: c.Store, NoSigs: true, NoLog: true, ProfPort: profile,
	})
	if err != nil {
		return fail(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return fail(errors.New("server does not start"))
	}
	fmt.Println(s.ClientURL())
	s.WaitForShutdown()
	return 0
}

// workerConfig is what a dispatcher process is to do. It has handlers for the
// tasks of work_test.go.
type workerConfig struct {
	URL   string
	UUID  uuid.UUID
	Size  int
	Grace time.Duration
	Log   string // file that handlers write their starts and ends to

	Life  int    // which of a story's processes it is; 0 where that does not matter
	Dies  edge   // where a process with such a number ends
	Trace string // file that it writes its deeds to
}

// startWorker starts a dispatcher process and waits until it is connected.
func startWorker(tb testing.TB, c workerConfig) *process {
	tb.Helper()
	p := spawn(tb, "worker", c)
	if line := p.line(tb); line != "ready" {
		tb.Fatalf("worker says %q", line)
	}
	return p
}

func workerProcess() int {
	var c workerConfig
	if err := json.Unmarshal([]byte(os.Getenv(configVariable)), &c); err != nil {
		return fail(err)
	}
	options := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}
	onStart := func(job.ID) {}
	if c.Life > 0 {
		life := newLife(c.Life, c.UUID.String(), c.Dies, c.Trace)
		options, onStart = append(options, nats.SetCustomDialer(life)), life.started
	}
	nc, err := nats.Connect(c.URL, options...)
	if err != nil {
		return fail(err)
	}
	defer nc.Close()
	if c.UUID == uuid.Nil {
		c.UUID = uuid.New()
	}
	d, err := dispatcher.New(nc, dispatcher.Config{
		UUID: c.UUID, Handlers: append(handlers(c.Log), mortalHandler(c.Log, onStart)), Grace: c.Grace,
		Agents: []agents.Agent{{Name: "main", Size: c.Size}},
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("ready")
	if err := d.Run(ctx); err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// connect connects a client to a server process and creates the default queue.
func connect(tb testing.TB, url string, c asyncnats.QueueConfig) (*nats.Conn, *asyncnats.Queue) {
	tb.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	client, err := asyncnats.Connect(tb.Context(), nc, asyncnats.Config{Name: tb.Name()})
	if err != nil {
		tb.Fatal(err)
	}
	queue, err := client.CreateQueue(tb.Context(), job.DefaultQueue, c)
	if err != nil {
		tb.Fatal(err)
	}
	return nc, queue
}
