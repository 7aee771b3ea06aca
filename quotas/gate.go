package quotas

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/internal/mailbox"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// tryPatience is how long one exchange with the server may take.
	tryPatience = 3 * time.Second
	// tryPause lies between an exchange that failed and the next.
	tryPause = 100 * time.Millisecond
	// loadAgain lies between readings of all quotas that fail.
	loadAgain = time.Second
	// loadEvery is how often all quotas are read, lest news was lost.
	loadEvery = time.Minute
)

// GateConfig is what a Gate works with. Every field but Resized and Log is
// required.
type GateConfig struct {
	Dispatcher string        // UUID
	AckWait    time.Duration // of the queue
	// Gone reports whether no message of a job is left in the queue.
	Gone func(context.Context, job.ID, job.Nonce) (bool, error)
	// Resized is told how many jobs that name a quota can run at once, -1 for any
	// number: a quota that is removed, or a rate limit, unless that starts none.
	// It is told when that is first known and whenever it changes, and must not
	// block.
	Resized func(name string, size int)
	Log     *slog.Logger
}

// Gate is a process's way into the quotas of one queue: it takes the claims of
// all its attempts, and combines those on one quota into one write.
//
// Its state is touched by its work alone, which is done while [Gate.Run] runs.
type Gate struct {
	set    *Set
	config GateConfig
	log    *slog.Logger
	work   *mailbox.Combiner

	// owned by the work
	ctx       context.Context
	lines     map[string]*line
	exchanges map[int]exchange // by number
	number    int              // of the last exchange
	inbox     string           // for answers
	current   bool             // what there was is known
	silent    bool             // it cannot be read, which was logged
	dead      []string         // dispatchers that died since it began
	sweeping  bool
	suspects  map[suspect]time.Time // since when their jobs are gone
	clock     clock
	asking    bool // the server is being asked for the time
}

// NewGate returns a gate. It starts nothing.
func NewGate(set *Set, c GateConfig) *Gate {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Resized == nil {
		c.Resized = func(string, int) {}
	}
	return &Gate{
		set: set, config: c, log: c.Log.With("queue", set.queue), work: mailbox.NewCombiner(),
		lines: make(map[string]*line), exchanges: make(map[int]exchange), suspects: make(map[suspect]time.Time),
	}
}

// Entry is a job that asks to be let in.
type Entry struct {
	ID          job.ID
	Nonce       job.Nonce
	Token       job.Token // of the attempt
	Sequence    uint64
	Interrupted bool
	Quotas      []string
	// Held reports whether the attempt's lease is held. A ticket whose lease
	// is not held asks for nothing.
	Held func() bool
}

// Enter asks for a slot in each of the quotas that a job names. A quota that
// does not exist, or was removed, lets everybody in (FEATURES 34).
func (g *Gate) Enter(e Entry) *Ticket {
	t := &Ticket{
		gate: g, names: e.Quotas, held: e.Held,
		claim: Claim{
			ID: e.ID, Nonce: e.Nonce, Token: e.Token, Dispatcher: g.config.Dispatcher,
			Sequence: e.Sequence, Interrupted: e.Interrupted, Since: time.Now().UTC(), Several: len(e.Quotas) > 1,
		},
		known: make(chan struct{}), granted: make(chan struct{}), lost: make(chan struct{}), left: make(chan struct{}),
		fences: make(map[string]uint64, len(e.Quotas)), marks: make(map[string]mark, len(e.Quotas)),
	}
	g.work.Do(func() {
		for _, name := range t.names {
			l := g.line(name)
			l.tickets, l.dirty = append(l.tickets, t), true
		}
	})
	return t
}

// Expel gives back what slots a job has in these quotas, whichever attempt took
// them: for a job that is over and whose attempt died before it gave them back.
// done is closed once that is written.
func (g *Gate) Expel(nonce job.Nonce, names []string) (done <-chan struct{}) {
	r := &release{nonce: nonce, left: len(names), done: make(chan struct{})}
	g.work.Do(func() {
		for _, name := range names {
			l := g.line(name)
			// What is known may be behind.
			l.exits = append(l.exits, exit{release: r, after: l.asked + 1})
			l.stale, l.dirty = true, true
		}
	})
	return r.done
}

// Reset has everything read again. To be called after a reconnect, for news
// may have been missed.
func (g *Gate) Reset() {
	g.work.Do(func() {
		for _, l := range g.lines {
			l.stale, l.dirty = true, true
		}
	})
}

// Run keeps the gate until ctx ends. The error is of a connection that is
// closed.
func (g *Gate) Run(ctx context.Context) error {
	g.ctx = ctx
	stop, err := g.listen()
	if err != nil {
		return fmt.Errorf("quotas of queue %s: %w", g.set.queue, err)
	}
	defer stop()
	g.work.Open(g.step)
	defer g.work.Close()
	var loads sync.WaitGroup
	defer loads.Wait()
	loads.Go(func() { g.load(ctx) })
	reload := time.NewTicker(loadEvery)
	defer reload.Stop()
	refresh := time.NewTicker(g.config.AckWait / 3)
	defer refresh.Stop()
	sweep := time.NewTicker(g.config.AckWait)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reload.C:
			loads.Go(func() { g.load(ctx) })
		case <-refresh.C:
			g.work.Do(g.refresh)
		case <-sweep.C:
			g.work.Do(g.sweep)
		}
	}
}

// line returns what is known of a quota.
func (g *Gate) line(name string) *line {
	l, ok := g.lines[name]
	if !ok {
		l = newLine(name)
		l.dead = slices.Clone(g.dead)
		g.lines[name] = l
		if g.current {
			l.learn(Slots{Removed: true}, 0)
			g.config.Resized(name, -1)
		}
	}
	return l
}

// load reads all quotas of the queue, again and again until it succeeds.
func (g *Gate) load(ctx context.Context) {
	for ctx.Err() == nil {
		for change, err := range g.set.bucket.Watch(ctx, g.set.key("*")) {
			g.work.Do(func() { g.loaded(change, err) })
			if change.Current {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(loadAgain):
		}
	}
}

// loaded takes a quota that was read, or word that all were.
func (g *Gate) loaded(change kv.Change[Slots], err error) {
	switch {
	case change.Current:
		if g.silent {
			g.log.Info("quotas can be read again")
		}
		g.current, g.silent = true, false
		for _, l := range g.lines {
			if !l.loaded && !l.refused {
				l.learn(Slots{Removed: true}, 0)
				g.config.Resized(l.name, -1)
			}
		}
	case change.Entry.Key == "":
		if !g.silent {
			g.log.Error("quotas cannot be read, will be tried again", "err", err)
		}
		g.silent = true
	case err != nil:
		g.refuse(g.line(g.set.nameOf(change.Entry.Key)), err)
	default:
		l := g.line(g.set.nameOf(change.Entry.Key))
		if change.Entry.Revision <= l.newest {
			return
		}
		if change.Deleted {
			l.newest = change.Entry.Revision
			g.learn(l, Slots{Removed: true}, 0)
			return
		}
		change.Entry.Value.date(change.Entry.Written)
		g.learn(l, change.Entry.Value, change.Entry.Revision)
	}
}

// refuse takes that a quota's value cannot be read: nobody may enter.
func (g *Gate) refuse(l *line, err error) {
	if !l.refused {
		g.log.Error("quota cannot be used, its jobs wait", "quota", l.name, "err", err)
	}
	l.loaded, l.refused, l.dirty = false, true, true
}

// learn takes what was read or written, and tells the size where it is another.
func (g *Gate) learn(l *line, now Slots, revision uint64) {
	first, before := !l.loaded, l.known
	if now.Keeper == g.config.Dispatcher {
		l.left.note(before, now, revision)
	}
	l.learn(now, revision)
	if size := now.places(); first || before.places() != size {
		g.config.Resized(l.name, size)
	}
}

// step tells the tickets how they stand, and writes what is to be written.
func (g *Gate) step() {
	for _, l := range g.lines {
		if !l.dirty {
			continue
		}
		if l.loaded && l.stale && !l.busy {
			g.read(l)
		}
		if l.learnt || !l.busy {
			g.observe(l)
			l.learnt = false
		}
		if l.idle() {
			g.dismiss(l)
			l.succeed()
		}
	}
	blocked := g.stepSeveral()
	for _, l := range g.lines {
		if !l.dirty || blocked[l] {
			continue
		}
		l.dirty = false
		if l.refused {
			for _, t := range l.tickets {
				t.tell()
			}
		}
		if !l.idle() {
			continue // its end will make it dirty again
		}
		next, ours, changed := l.plan(g.passedFor(l))
		switch {
		case !changed:
			l.included = len(l.guests)
			g.spread(l, l.known)
			g.watch(l, next)
		case g.keeps(l) && l.known.undated():
			g.read(l)
		case g.keeps(l):
			g.write(l, next)
		default:
			g.ask(l, ours)
		}
		for _, t := range l.tickets {
			if _, holds := next.holder(t.claim.Nonce); !holds && t.phase == waiting {
				t.tell()
			}
		}
	}
}

// observe tells a line's tickets and releases what its slots say of them.
func (g *Gate) observe(l *line) {
	if !l.loaded {
		return
	}
	for _, t := range slices.Clone(l.tickets) {
		g.observeTicket(l, t)
	}
	l.exits = slices.DeleteFunc(l.exits, func(e exit) bool {
		if l.answered < e.after || !l.settled(e.nonce) || l.known.has(func(c Claim) bool { return c.Nonce == e.nonce }) {
			return false
		}
		if e.left--; e.left == 0 {
			close(e.done)
		}
		return true
	})
	maps.DeleteFunc(l.condemned, func(gone condemned, _ bool) bool {
		return !l.known.has(func(c Claim) bool { return c.Nonce == gone.nonce && c.Token == gone.token })
	})
}

func (g *Gate) observeTicket(l *line, t *Ticket) {
	c, holds, found := l.claimOf(t)
	ours, m := found && t.is(c), t.marks[l.name]
	switch t.phase {
	case waiting:
		switch {
		case ours:
			m.seen, m.holds = true, holds
			if holds {
				t.fences[l.name] = c.Fence
			}
		case found && m.seen:
			g.lose(t)
			return
		default:
			m.holds = false
		}
		t.marks[l.name] = m
		if g.holdsAll(t) {
			t.phase = holding
			close(t.granted)
			t.tell()
		}
	case holding:
		if !ours && (l.revision != 0 || found) {
			g.lose(t)
		}
	case leaving:
		if !ours && l.settled(t.claim.Nonce) {
			m.out = true
			t.marks[l.name] = m
			g.out(t)
		}
	}
}

func (g *Gate) holdsAll(t *Ticket) bool {
	return !slices.ContainsFunc(t.names, func(name string) bool { return !t.marks[name].holds })
}

// tell closes known, once.
func (t *Ticket) tell() {
	if !t.told {
		t.told = true
		close(t.known)
	}
}

// lose ends a ticket that others have ended.
func (g *Gate) lose(t *Ticket) {
	close(t.lost)
	g.drop(t)
}

// drop forgets a ticket; what it has stays written.
func (g *Gate) drop(t *Ticket) {
	t.phase = gone
	for _, name := range t.names {
		l := g.line(name)
		l.tickets = slices.DeleteFunc(l.tickets, func(other *Ticket) bool { return other == t })
		l.dirty = true
		delete(l.reserving, t.claim.Nonce)
	}
	t.tell()
}

// leave has a ticket give back what it has.
func (g *Gate) leave(t *Ticket) {
	if t.phase == gone { // others have ended it
		close(t.left)
		return
	}
	t.phase = leaving
	for _, name := range t.names {
		g.line(name).dirty = true
	}
}

// out ends a ticket that has left all its quotas.
func (g *Gate) out(t *Ticket) {
	for _, name := range t.names {
		if !t.marks[name].out {
			return
		}
	}
	g.drop(t)
	close(t.left)
}

// read reads a quota again.
func (g *Gate) read(l *line) {
	l.busy = true
	l.asked++
	reading := l.asked
	go func() {
		ctx, cancel := context.WithTimeout(g.ctx, tryPatience)
		defer cancel()
		now, revision, stored, err := g.set.read(ctx, l.name)
		g.work.Do(func() {
			l.busy, l.dirty = false, true
			if err == nil {
				l.answered = reading
			}
			if err == nil && revision != 0 && revision == l.wrote && now.limitsRate() {
				g.clock.set(stored, l.wroteAt)
			}
			switch {
			case err != nil:
				g.failed(l, "quota cannot be read, will be tried again", err)
			case revision == 0 || revision >= l.newest:
				g.learn(l, now, revision)
			default:
				l.stale = false // more was told meanwhile
			}
		})
	}()
}

// write writes a quota.
func (g *Gate) write(l *line, next Slots) {
	l.begin()
	l.stamp(&next, time.Now())
	base := l.revision
	if next.Keeper != g.config.Dispatcher {
		// Terms rise even where the quota's value was removed in between.
		next.Keeper, next.Term = g.config.Dispatcher, max(next.Term, base)+1
	}
	if base == 0 {
		go func() {
			ctx, cancel := context.WithTimeout(g.ctx, tryPatience)
			defer cancel()
			revision, err := g.set.write(ctx, l.name, next, base)
			g.work.Do(func() { g.written(l, next, base, revision, err) })
		}()
		return
	}
	reply, number := g.expect(tryPatience, func(answer *nats.Msg) {
		if answer == nil {
			g.written(l, next, base, 0, context.DeadlineExceeded)
			return
		}
		revision, err := kv.Answered(answer)
		g.written(l, next, base, revision, err)
	})
	if err := g.set.bucket.Send(g.set.key(l.name), next, base, kv.Forever, reply); err != nil {
		g.forget(number)
		g.written(l, next, base, 0, err)
	}
}

// begin notes that a write is under way, for all guests there are.
func (l *line) begin() { l.busy, l.included = true, len(l.guests) }

// written takes how a write ended.
func (g *Gate) written(l *line, next Slots, base, revision uint64, err error) {
	l.busy, l.dirty = false, true
	switch {
	case err == nil:
		l.unsure, l.take = false, false
		l.wrote, l.wroteAt = revision, time.Now()
		if revision >= l.newest {
			was := l.known
			g.learn(l, next, revision)
			g.spread(l, was)
			l.stale = next.undated()
		}
	case errors.Is(err, kv.ErrConflict):
		// Refused for what it was based on; whatever of ours was under way
		// before was based on the same, or older.
		l.unsure = false
		l.stale = l.stale || l.revision == base
	default:
		l.unsure = true
		g.failed(l, "quota cannot be written, will be tried again", err)
	}
}

// failed has a line read again after a while.
func (g *Gate) failed(l *line, message string, err error) {
	if g.ctx.Err() != nil {
		return
	}
	g.log.Debug(message, "quota", l.name, "err", err)
	l.busy = true
	time.AfterFunc(tryPause, func() {
		g.work.Do(func() { l.busy, l.stale, l.dirty = false, true, true })
	})
}

// refresh has what tickets rest on read again where nothing was heard of it for
// a while, lest news was lost.
func (g *Gate) refresh() {
	for _, l := range g.lines {
		if len(l.tickets)+len(l.exits) > 0 && time.Since(l.told) > g.config.AckWait/4 {
			l.stale, l.dirty = true, true
		}
	}
}
