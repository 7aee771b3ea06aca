package quotas

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	bucketName = "ASYNC_QUOTAS"
	queueName  = "media"
	subject    = "async.media.ctl.quota"
	ackWait    = 15 * time.Second
)

// world is a server with a bucket of quotas that keeps all revisions.
type world struct {
	t      *testing.T
	server *natstest.Server
	js     jetstream.JetStream
	set    *Set // an administrator's

	mu        sync.Mutex
	names     map[job.Nonce][]string // the quotas of each job that entered
	token     job.Token              // the last that was given
	unstarted map[job.Token]bool     // attempts that withdrew
	processes int                    // that were started
}

// inBubble calls f in fake time.
func inBubble(t *testing.T, f func(*testing.T, *world)) {
	t.Helper()
	natstest.Run(t, func(t *testing.T, s *natstest.Server) { f(t, newWorld(t, s)) })
}

func newWorld(t *testing.T, s *natstest.Server) *world {
	t.Helper()
	js := s.JetStream(t)
	if err := kv.Make(t.Context(), js, kv.Config{Bucket: bucketName, Atomic: true}); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, server: s, js: js, names: make(map[job.Nonce][]string), unstarted: make(map[job.Token]bool)}
	config := w.stream().CachedInfo().Config
	config.MaxMsgsPerSubject = 1_000_000
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	w.set = w.open(js)
	return w
}

func (w *world) open(js jetstream.JetStream) *Set {
	w.t.Helper()
	set, err := Open(w.t.Context(), js, bucketName, queueName, subject)
	if err != nil {
		w.t.Fatal(err)
	}
	return set
}

func (w *world) stream() jetstream.Stream {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), "KV_"+bucketName)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// limit creates or resizes quotas.
func (w *world) limit(size int, names ...string) {
	w.t.Helper()
	for _, name := range names {
		if err := w.set.Limit(w.t.Context(), name, size); err != nil {
			w.t.Fatal(err)
		}
	}
}

// limitRate creates rate limits, or changes quotas to that.
func (w *world) limitRate(size int, period time.Duration, names ...string) {
	w.t.Helper()
	for _, name := range names {
		if err := w.set.LimitRate(w.t.Context(), name, size, period); err != nil {
			w.t.Fatal(err)
		}
	}
}

// isUnstarted reports whether an attempt withdrew.
func (w *world) isUnstarted(token job.Token) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unstarted[token]
}

// now is a quota's value; that of a removed one where it has none.
func (w *world) now(name string) Slots {
	w.t.Helper()
	now, _, _, err := w.set.read(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return now
}

// wantLine checks who holds and who waits: sequences, holders before a bar.
func (w *world) wantLine(name, want string) {
	w.t.Helper()
	if got := show(w.now(name)); got != want {
		w.t.Errorf("quota %s: %q, want %q", name, got, want)
	}
}

// show writes who holds and, behind a bar, who waits: each by its sequence, with
// an i if it was interrupted, an s if it needs several slots, +n if n have passed
// it, and an r if it reserves one.
func show(s Slots) string {
	var words []string
	for _, c := range s.Holders {
		words = append(words, showClaim(c))
	}
	words = append(words, "|")
	for _, c := range s.Waiters {
		words = append(words, showClaim(c))
	}
	return strings.Join(words, " ")
}

func showClaim(c Claim) string {
	word := fmt.Sprint(c.Sequence)
	if c.Interrupted {
		word += "i"
	}
	if c.Several {
		word += "s"
	}
	if c.Passed > 0 {
		word += fmt.Sprintf("+%d", c.Passed)
	}
	if c.Reserves {
		word += "r"
	}
	return word
}

// put writes a quota's value as nobody should.
func (w *world) put(name string, data []byte) {
	w.t.Helper()
	if _, err := w.js.Publish(w.t.Context(), "$KV."+bucketName+"."+queueName+"."+name, data); err != nil {
		w.t.Fatal(err)
	}
}

// process is a dispatcher's gate on a connection of its own.
type process struct {
	*Gate
	w    *world
	wire *natstest.Wire
	conn *nats.Conn
	name string // of its dispatcher
	die  func() // ends the gate at once and leaves behind what it has

	mu    sync.Mutex
	lines bytes.Buffer // the log
	sizes []string     // what Resized was told
}

// start starts a gate; change may set fields of its config.
func (w *world) start(change ...func(*GateConfig)) *process {
	w.t.Helper()
	quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	nc, wire := w.server.ConnectWire(w.t, quiet)
	js, err := jetstream.New(nc)
	if err != nil {
		w.t.Fatal(err)
	}
	w.processes++
	p := &process{w: w, wire: wire, conn: nc, name: fmt.Sprint("d", w.processes)}
	config := GateConfig{
		Dispatcher: p.name, AckWait: ackWait,
		Gone: func(context.Context, job.ID, job.Nonce) (bool, error) { return false, nil },
		Resized: func(name string, size int) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.sizes = append(p.sizes, fmt.Sprintf("%s %d", name, size))
		},
		Log: slog.New(slog.NewTextHandler(p, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(&config)
	}
	p.Gate = NewGate(w.open(js), config)
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := p.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	p.die = func() {
		cancel()
		<-ended
	}
	w.t.Cleanup(p.die)
	return p
}

// Write implements io.Writer for the log.
func (p *process) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines.Write(line)
}

// logged is what was logged as a warning or an error, and told is what Resized
// was told, since the last call.
func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.lines.Reset()
	return p.lines.String()
}

func (p *process) told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.sizes = nil }()
	return p.sizes
}

// seat is an attempt of a job with its ticket.
type seat struct {
	*Ticket
	w     *world
	entry Entry
	held  atomic.Bool // the lease
}

func nonceOf(sequence uint64) (nonce job.Nonce) {
	binary.BigEndian.PutUint64(nonce[:], sequence)
	return nonce
}

// enter has the job of that sequence enter for the first time.
func (p *process) enter(sequence uint64, names ...string) *seat {
	return p.enterAs(entryOf(sequence, names...))
}

func entryOf(sequence uint64, names ...string) Entry {
	return Entry{ID: job.ID(fmt.Sprintf("job-%d", sequence)), Nonce: nonceOf(sequence), Sequence: sequence, Quotas: names}
}

// again has another attempt of an interrupted job enter.
func (p *process) again(s *seat) *seat {
	entry := s.entry
	entry.Interrupted = true
	return p.enterAs(entry)
}

func (p *process) enterAs(e Entry) *seat { return p.enterHeld(e, true) }

// enterHeld has a job enter whose lease is held, or is not.
func (p *process) enterHeld(e Entry, held bool) *seat {
	s := &seat{w: p.w}
	s.held.Store(held)
	p.w.mu.Lock()
	p.w.token++
	e.Token, e.Held = p.w.token, s.held.Load
	p.w.names[e.Nonce] = e.Quotas
	p.w.mu.Unlock()
	s.entry = e
	s.Ticket = p.Enter(e)
	return s
}

// withdraw has a job withdraw that was not started.
func (s *seat) withdraw() <-chan struct{} {
	s.w.mu.Lock()
	s.w.unstarted[s.entry.Token] = true
	s.w.mu.Unlock()
	return s.Withdraw()
}

// crowd has jobs of consecutive sequences enter, from first to last.
func (p *process) crowd(first, last uint64, names ...string) []*seat {
	var seats []*seat
	for sequence := first; sequence <= last; sequence++ {
		seats = append(seats, p.enter(sequence, names...))
	}
	return seats
}

// settle lets pass what happens now and in the next moment. In fake time only.
func settle() { time.Sleep(50 * time.Millisecond) }

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// soon waits a second for a channel to be closed.
func soon(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	if !within(time.Second, ch) {
		t.Fatalf("%s: not within a second", what)
	}
}

// within waits for a channel to be closed, and reports whether it was.
func within(d time.Duration, ch <-chan struct{}) bool {
	patience := time.NewTimer(d)
	defer patience.Stop()
	select {
	case <-ch:
		return true
	case <-patience.C:
		return false
	}
}

// turn has a job wait for its slots, use them and leave.
func (s *seat) turn(t *testing.T, d time.Duration, use func()) {
	if !within(d, s.Granted()) {
		t.Errorf("job %d with %v is stuck", s.entry.Sequence, s.names)
		return
	}
	use()
	if !within(d, s.Leave()) {
		t.Errorf("job %d with %v cannot leave", s.entry.Sequence, s.names)
	}
}

// wantIn checks which seats are granted, by their sequences. In fake time only.
func wantIn(t *testing.T, seats []*seat, want ...uint64) {
	t.Helper()
	settle()
	wanted := make(map[uint64]bool)
	for _, sequence := range want {
		wanted[sequence] = true
	}
	for _, s := range seats {
		if in := closed(s.Granted()); in != wanted[s.entry.Sequence] {
			t.Errorf("job %d: granted is %t", s.entry.Sequence, in)
		}
		if !closed(s.Known()) {
			t.Errorf("job %d: it is not known how it stands", s.entry.Sequence)
		}
		delete(wanted, s.entry.Sequence)
	}
	if len(wanted) > 0 {
		t.Errorf("no seats of %v", wanted)
	}
}

// leave has seats leave, and waits until that is written.
func leave(t *testing.T, seats ...*seat) {
	t.Helper()
	for _, s := range seats {
		soon(t, fmt.Sprintf("job %d leaves", s.entry.Sequence), s.Leave())
	}
}
