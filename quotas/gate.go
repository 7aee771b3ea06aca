package quotas

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats/internal/mailbox"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// tryPatience is how long one exchange with the server may take.
	tryPatience = 3 * time.Second
	// tryPause lies between an exchange that failed and the next.
	tryPause = 100 * time.Millisecond
	// loadAgain lies between readings of all quotas that fail, or cannot be tried.
	loadAgain = time.Second
	// loadEvery lies between those that succeed: news may be lost.
	loadEvery = time.Minute
	// warnEvery is how often it is said that a quota cannot be written.
	warnEvery = time.Minute
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
			l.exits, l.dirty = append(l.exits, exit{release: r, after: l.asked + 1}), true
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
	var loading sync.WaitGroup
	defer loading.Wait()
	loading.Go(func() { g.load(ctx) })
	refresh := time.NewTicker(g.config.AckWait / 3)
	defer refresh.Stop()
	sweep := time.NewTicker(g.config.AckWait)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
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

// load reads all quotas of the queue, one time after the other until ctx ends.
// While there is no connection it asks for nothing: the client would keep each
// request, and send them all when it is back.
func (g *Gate) load(ctx context.Context) {
	for ctx.Err() == nil {
		pause := loadAgain
		if g.set.conn.IsConnected() && g.loadOnce(ctx) {
			pause = loadEvery
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// loadOnce reports whether it has read all quotas.
func (g *Gate) loadOnce(ctx context.Context) (current bool) {
	// Not by a deadline: the client would wait that long for one answer.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(loadEvery, cancel).Stop()
	for change, err := range g.set.bucket.Watch(ctx, g.set.key("*")) {
		g.work.Do(func() { g.loaded(change, err) })
		if change.Current {
			return true
		}
	}
	return false
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
	l.loaded, l.stale, l.refused, l.dirty = false, false, true, true
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
		if (l.loaded || l.refused) && l.behind() && !l.busy {
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
			g.spread(l)
			g.watch(l, next)
			if l.owed() && !l.busy {
				g.read(l)
			}
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

// refresh has what tickets rest on read again where nothing was heard of it for
// a while, lest news was lost.
func (g *Gate) refresh() {
	for _, l := range g.lines {
		if len(l.tickets)+len(l.exits) > 0 && time.Since(l.told) > g.config.AckWait/4 {
			l.stale, l.dirty = true, true
		}
	}
}
