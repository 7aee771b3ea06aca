package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// crashTurn is one step in the life of a composition, as it shows on the wire.
type crashTurn string

const (
	turnPut       crashTurn = "a part, a postprocess or a callback is put"
	turnParked    crashTurn = "a message is put where nobody is given it"
	turnWaits     crashTurn = "a whole waits: it is begun, or a part is noted"
	turnDecided   crashTurn = "an outcome is recorded, and callbacks are owed"
	turnPart      crashTurn = "the outcome of a part is recorded"
	turnCompleted crashTurn = "a whole is completed"
	turnReleased  crashTurn = "the record of a part is released"
	turnAdvanced  crashTurn = "the timer of a whole is acked"
	turnAcked     crashTurn = "a job is acked"
	turnRemoved   crashTurn = "the message of a whole is removed"
	turnPurged    crashTurn = "parts that are stored beside a whole are removed"
)

// turns are all of them, with how often each surely comes in a piece.
var turns = map[crashTurn]int{
	turnPut: 10, turnParked: 4, turnWaits: 10, turnDecided: 6, turnPart: 8, turnCompleted: 5,
	turnReleased: 12, turnAdvanced: 4, turnAcked: 12, turnRemoved: 5, turnPurged: 1,
}

// doom ends a process at its n-th turn of a kind, before or after.
type doom struct {
	Turn   crashTurn
	Nth    int
	Before bool

	mu    sync.Mutex
	count int
	final map[string]bool
}

// Dial makes a doom the dialer of its process's only connection.
func (d *doom) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return newMortalConn(conn, d), nil
}

func (d *doom) received(command) end { return never }

func (d *doom) sent(c command) end {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turn(c) != d.Turn {
		return never
	}
	if d.count++; d.count != d.Nth {
		return never
	}
	if d.Before {
		return before
	}
	return after
}

// turn says what a command does.
func (d *doom) turn(c command) crashTurn {
	switch {
	case strings.HasPrefix(c.subject, "$KV.ASYNC_JOBS."):
		return d.recordTurn(c)
	case strings.HasPrefix(c.subject, "async.default.job."):
		return turnPut
	case strings.HasPrefix(c.subject, "async.default.wait."):
		return turnParked
	case strings.HasPrefix(c.subject, "$JS.API.STREAM.MSG.DELETE."):
		return turnRemoved
	case strings.HasPrefix(c.subject, "$JS.API.STREAM.PURGE."):
		return turnPurged
	case strings.HasPrefix(c.subject, "$JS.ACK.") && strings.HasPrefix(string(c.payload), "+ACK"):
		if strings.Contains(c.subject, ".=due.") {
			return turnAdvanced
		}
		return turnAcked
	}
	return ""
}

func (d *doom) recordTurn(c command) crashTurn {
	record, err := job.DecodeRecord(c.payload)
	if err != nil {
		return ""
	}
	switch record.State {
	case job.Waiting:
		return turnWaits
	case job.Callbacks:
		return turnDecided
	case job.Completed:
		if d.final == nil {
			d.final = make(map[string]bool)
		}
		again := d.final[c.subject]
		d.final[c.subject] = true
		switch {
		case again:
			return turnReleased
		case record.Parts != nil:
			return turnCompleted
		case record.Parent.Waits():
			return turnPart
		}
	}
	return ""
}

// The tasks of a piece.
var (
	leaf   = asyncnats.Define[leafArg, int]("piece.leaf")
	outer  = asyncnats.Define[leafArg, int]("piece.outer")
	gather = asyncnats.Define[[]asyncnats.Outcome[int], int]("piece.gather")
	heard  = asyncnats.Define[asyncnats.Bound[string, int], asyncnats.None]("piece.heard")
)

// leafArg is large enough for some of them to be stored beside their whole.
type leafArg struct {
	N   int
	Pad []byte
}

func leafOf(n int) asyncnats.Call[int] { return leaf.Call(leafArg{n, make([]byte, 9_000)}) }

// piece is a composition with everything that one may have: it returns 21.
func piece() asyncnats.Call[int] {
	inner := asyncnats.Then(asyncnats.Serial(leafOf(4), leafOf(5)), gather)
	return asyncnats.Then(asyncnats.Parallel(
		leafOf(1), leafOf(2).OnSuccess(asyncnats.Bind(heard, "leaf")), leafOf(3), inner, outer.Call(leafArg{N: 6}),
	), gather).OnSuccess(asyncnats.Bind(heard, "first")).OnSuccess(asyncnats.Bind(heard, "second"))
}

// pieceJobs is how many jobs a piece is: what is performed, and what only waits.
const (
	piecePerformed = 12
	pieceWaits     = 4
)

func pieceHandlers(log string) []job.Handler {
	return []job.Handler{
		leaf.Handle(func(ctx context.Context, arg leafArg) (int, error) {
			defer note(log, ctx)()
			return arg.N, nil
		}),
		outer.HandleCall(func(ctx context.Context, arg leafArg) (asyncnats.Call[int], error) {
			defer note(log, ctx)()
			return leafOf(arg.N), nil
		}),
		gather.Handle(func(ctx context.Context, parts []asyncnats.Outcome[int]) (int, error) {
			defer note(log, ctx)()
			sum := 0
			for _, part := range parts {
				if part.Failure != nil {
					return 0, part.Failure
				}
				sum += part.Result
			}
			return sum, nil
		}),
		heard.Handle(func(ctx context.Context, _ asyncnats.Bound[string, int]) (asyncnats.None, error) {
			defer note(log, ctx)()
			return asyncnats.None{}, nil
		}),
	}
}

// composerConfig is what a process that performs pieces is to do.
type composerConfig struct {
	URL  string
	UUID uuid.UUID
	Size int
	Log  string
	Dies *doom
}

func composerProcess() int {
	var c composerConfig
	if err := json.Unmarshal([]byte(os.Getenv(configVariable)), &c); err != nil {
		return fail(err)
	}
	options := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}
	if c.Dies != nil {
		options = append(options, nats.SetCustomDialer(c.Dies))
	}
	nc, err := nats.Connect(c.URL, options...)
	if err != nil {
		return fail(err)
	}
	defer nc.Close()
	d, err := dispatcher.New(nc, dispatcher.Config{
		UUID: c.UUID, Handlers: pieceHandlers(c.Log), Agents: []agents.Agent{{Name: "main", Size: c.Size}},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
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

// A process can be killed at any moment in the life of a composition: another goes on
// with it, and there is one outcome of the whole, of each part, of the postprocess and
// of each callback; nothing is left behind.
func TestCompositionCrashMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for ack waits in real time")
	}
	for kind, most := range turns {
		for _, early := range []bool{true, false} {
			name := map[bool]string{true: "before ", false: "after "}[early] + string(kind)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for i := range *crashRounds {
					seed := uint64(rand.Uint32())
					if *crashSeed != 0 {
						seed = *crashSeed
					}
					t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
						draw := rand.New(rand.NewPCG(seed, 0))
						playPiece(t, draw, &doom{Turn: kind, Nth: 1 + draw.IntN(most), Before: early})
					})
					if t.Failed() || *crashSeed != 0 {
						t.Logf("%d rounds", i+1)
						return
					}
				}
			})
		}
	}
}

// playPiece has a piece performed by a process that dies, and then by one that lives.
func playPiece(t *testing.T, draw *rand.Rand, end *doom) {
	server := natstest.Start(t, nil)
	js := server.JetStream(t)
	if err := keepRevisions(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	ackWait := stream.MinAckWait
	if raceDetector {
		ackWait *= 3
	}
	_, queue := connect(t, server.ClientURL(), asyncnats.QueueConfig{AckWait: ackWait})
	log := filepath.Join(t.TempDir(), "log")
	hire := func(end *doom) *process {
		p := spawn(t, "composer", composerConfig{URL: server.ClientURL(), UUID: uuid.New(), Size: 1 + draw.IntN(6), Log: log, Dies: end})
		if line := p.line(t); line != "ready" {
			t.Fatalf("process says %q", line)
		}
		return p
	}
	doomed := hire(end)
	whole, err := asyncnats.Put(t.Context(), queue, piece())
	if err != nil {
		t.Fatal(err)
	}
	waitForDeath(t, doomed, end)
	hire(nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := whole.Wait(ctx); err != nil || got != 21 {
		t.Errorf("got %d, %v, want 21", got, err)
	}
	awaitEmpty(t, js)
	checkPiece(t, js, log)
}

// waitForDeath waits until a process has killed itself.
func waitForDeath(t *testing.T, doomed *process, end *doom) {
	t.Helper()
	dead := make(chan error, 1)
	go func() { dead <- doomed.Wait() }()
	select {
	case <-dead:
	case <-time.After(time.Minute):
		_ = doomed.Process.Kill()
		<-dead
		t.Fatalf("the process does not come to turn %d: %s\n%s", end.Nth, end.Turn, doomed.Log())
	}
	status, ok := doomed.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the process ended otherwise: %v\n%s", doomed.ProcessState, doomed.Log())
	}
}

// awaitEmpty waits until the default queue's stream has nothing but its meta message.
func awaitEmpty(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	queue, err := js.Stream(t.Context(), "ASYNC_default")
	if err != nil {
		t.Fatal(err)
	}
	var left map[string]uint64
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		info, err := queue.Info(t.Context(), jetstream.WithSubjectFilter("async.default.>"))
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs == 1 {
			return
		}
		left = info.State.Subjects
	}
	t.Errorf("left in the stream: %v", left)
}

// checkPiece checks every value that every record had, and what handlers did.
func checkPiece(t *testing.T, js jetstream.JetStream, log string) {
	t.Helper()
	outcomes := make(map[job.ID]job.Record)
	last := make(map[job.ID]job.Record)
	ttl := make(map[job.ID]string)
	err := readAll(t.Context(), js, recordsStream, func(msg *jetstream.RawStreamMsg) error {
		record, err := job.DecodeRecord(msg.Data)
		if err != nil {
			return err
		}
		id := job.ID(lastToken(msg.Subject))
		if old, ended := outcomes[id]; ended && (record.Outcome == nil || !old.Ended.Equal(record.Ended) || !old.Attempt.Same(record.Attempt) || string(old.Outcome.Result.Data) != string(record.Outcome.Result.Data)) {
			t.Errorf("job %s (%s) has two outcomes, or one that went:\n%+v\n%+v", id, record.Task, old, record)
		}
		if record.Outcome != nil {
			outcomes[id] = record
		}
		last[id], ttl[id] = record, msg.Header.Get("Nats-TTL")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := piecePerformed + pieceWaits; len(last) != want {
		t.Errorf("%d jobs have a record, want %d", len(last), want)
	}
	waits := 0
	for id, record := range last {
		if record.State != job.Completed || !record.Outcome.Succeeded() {
			t.Errorf("job %s (%s) is %s: %+v", id, record.Task, record.State, record.Outcome)
		}
		if ttl[id] == "" {
			t.Errorf("the record of job %s (%s) is kept for ever", id, record.Task)
		}
		if slices.Contains([]string{"then", "parallel", "serial"}, record.Task) {
			waits++
		}
	}
	if waits != pieceWaits {
		t.Errorf("%d compositions, want %d", waits, pieceWaits)
	}
	starts := make(map[job.ID]int)
	for _, e := range events(t, log) {
		if e.Event == "start" {
			starts[e.Job]++
		}
	}
	if len(starts) != piecePerformed {
		t.Errorf("%d jobs were performed, want %d", len(starts), piecePerformed)
	}
	for id, n := range starts {
		if n > 2 {
			t.Errorf("job %s (%s) was started %d times, though one process died", id, last[id].Task, n)
		}
	}
}

// Every command of a composition is taken for the turn that it is.
func TestTurns(t *testing.T) {
	encode := func(r job.Record) []byte {
		r.Version = job.RecordVersion
		data, err := job.EncodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	parts := &job.Parts{Form: job.FormParallel, Count: 1}
	done := &job.Outcome{}
	d := &doom{}
	for _, row := range []struct {
		command command
		want    crashTurn
	}{
		{command{subject: "async.default.job.a.b"}, turnPut},
		{command{subject: "async.default.wait.a.b"}, turnParked},
		{command{subject: "$KV.ASYNC_JOBS.default.a", payload: encode(job.Record{State: job.Waiting, Parts: parts})}, turnWaits},
		{command{subject: "$KV.ASYNC_JOBS.default.a", payload: encode(job.Record{State: job.Callbacks, Outcome: done})}, turnDecided},
		{command{subject: "$KV.ASYNC_JOBS.default.a", payload: encode(job.Record{State: job.Completed, Parts: parts, Outcome: done})}, turnCompleted},
		{command{subject: "$KV.ASYNC_JOBS.default.b", payload: encode(job.Record{State: job.Completed, Parent: &job.Parent{}, Outcome: done})}, turnPart},
		{command{subject: "$KV.ASYNC_JOBS.default.b", payload: encode(job.Record{State: job.Completed, Parent: &job.Parent{}, Outcome: done})}, turnReleased},
		{command{subject: "$KV.ASYNC_JOBS.default.c", payload: encode(job.Record{State: job.Active})}, ""},
		{command{subject: "$JS.ACK.ASYNC_default.=due.1.2.3.4.5", payload: []byte("+ACK")}, turnAdvanced},
		{command{subject: "$JS.ACK.ASYNC_default.a.1.2.3.4.5", payload: []byte("+ACK")}, turnAcked},
		{command{subject: "$JS.ACK.ASYNC_default.a.1.2.3.4.5", payload: []byte("+WPI")}, ""},
		{command{subject: "$JS.API.STREAM.MSG.DELETE.ASYNC_default"}, turnRemoved},
		{command{subject: "$JS.API.STREAM.PURGE.ASYNC_default"}, turnPurged},
	} {
		if got := d.turn(row.command); got != row.want {
			t.Errorf("%s %s: %q, want %q", row.command.subject, row.command.payload, got, row.want)
		}
	}
}
