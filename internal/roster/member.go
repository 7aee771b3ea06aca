package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/kv"
)

// Config describes one dispatcher's membership. All fields are required.
type Config struct {
	Dispatcher string // UUID
	// Ping is how often it shows that it is alive, Death after what silence it is
	// taken for dead: whole seconds.
	Ping, Death time.Duration
	// Event is told of events of this dispatcher and of those that it found dead,
	// one after another.
	Event func(Event)
	// Suspend is called with true when the dispatcher may be taken for dead, or
	// another has its UUID, and must take no jobs; with false when it may again.
	Suspend func(bool)
	Log     *slog.Logger
}

// Member is a dispatcher that is alive, or waits to be.
type Member struct {
	roster *Roster
	config Config
	log    *slog.Logger
	sign   sign

	mu       sync.Mutex
	revision uint64    // of the sign, as last written
	proven   time.Time // before the last write of the sign
	queues   []string  // that it serves, sorted; replaced, not altered
	// entered says that the entry was made an active one since the sign was claimed,
	// displaced that another process has the UUID.
	entered, displaced, suspended bool

	telling sync.Mutex // events are told one after another
	heard   *nats.Subscription
}

// margin is how much earlier than the others a dispatcher takes itself for dead.
const margin = time.Second

// Join makes a member. It writes nothing before [Member.Activate].
func (r *Roster) Join(c Config) *Member {
	host, _ := os.Hostname()
	return &Member{
		roster: r, config: c, log: c.Log, sign: sign{Incarnation: uuid.NewString(), Host: host, PID: os.Getpid()},
	}
}

func (m *Member) key() string { return signPrefix + m.config.Dispatcher }

// Activate activates the dispatcher. While another process has its UUID it says
// so and waits. The error is ctx's, or of a connection that is closed.
func (m *Member) Activate(ctx context.Context, queues []string) error {
	// Before the sign is there, lest others find nobody behind it.
	var err error
	if m.heard, err = m.roster.nc.Subscribe(m.subject(m.sign), func(msg *nats.Msg) { _ = msg.Respond(nil) }); err != nil {
		return fmt.Errorf("activate dispatcher %s: %w", m.config.Dispatcher, err)
	}
	if err := m.claim(ctx); err != nil {
		_ = m.heard.Unsubscribe()
		return err
	}
	m.serve(queues)
	return m.enter(ctx, Activated)
}

// claim writes the sign of life, as soon as nobody else's is there.
func (m *Member) claim(ctx context.Context) error {
	warned := false
	for {
		sent := time.Now()
		other, err := m.tryClaim(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			m.log.Warn("dispatcher cannot be activated, will be tried again", "err", err)
		case other == sign{}:
			m.mu.Lock()
			m.proven = sent
			m.mu.Unlock()
			return nil
		case !warned:
			warned = true
			m.log.Error("this UUID is active already: another process, with a copy of the same UUID file? No jobs are taken until it is gone",
				"host", other.Host, "pid", other.PID)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(m.config.Ping):
		}
	}
}

// tryClaim tries once. other is who has the UUID.
func (m *Member) tryClaim(ctx context.Context) (other sign, err error) {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	for {
		revision, err := m.roster.signs.Create(ctx, m.key(), m.sign, m.config.Death)
		if err == nil {
			m.wrote(revision)
			return sign{}, nil
		}
		if !errors.Is(err, kv.ErrConflict) {
			return sign{}, err
		}
		found, err := m.roster.signs.Latest(ctx, m.key())
		switch {
		case errors.Is(err, kv.ErrNotFound):
			continue // gone in between
		case err != nil:
			return sign{}, err
		case found.Value == m.sign: // the answer was lost
			m.wrote(found.Revision)
			return sign{}, nil
		case m.listens(ctx, found.Value):
			return found.Value, nil
		}
		revision, err = m.roster.signs.Update(ctx, m.key(), m.sign, found.Revision, m.config.Death)
		if err == nil {
			m.wrote(revision)
			m.log.Info("the process that had this UUID is gone", "host", found.Value.Host, "pid", found.Value.PID)
			return sign{}, nil
		}
		if !errors.Is(err, kv.ErrConflict) {
			return sign{}, err
		}
	}
}

// listens reports whether the process of a sign may be alive.
func (m *Member) listens(ctx context.Context, other sign) bool {
	ctx, cancel := context.WithTimeout(ctx, exchange/3)
	defer cancel()
	_, err := m.roster.nc.RequestWithContext(ctx, m.subject(other), nil)
	return !errors.Is(err, nats.ErrNoResponders)
}

// subject is where an incarnation answers that it is there.
func (m *Member) subject(s sign) string {
	return m.roster.ns.ToDispatcher(m.config.Dispatcher, "alive."+s.Incarnation)
}

func (m *Member) wrote(revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = revision
}

func (m *Member) tell(kind EventKind, e Entry, reason, by string) {
	m.telling.Lock()
	defer m.telling.Unlock()
	for _, event := range m.roster.tell(kind, e, reason, by) {
		m.config.Event(event)
	}
}

// Run pings, and watches the siblings, until ctx ends. To be called when the
// member is active.
func (m *Member) Run(ctx context.Context) {
	var siblings sync.WaitGroup
	defer siblings.Wait()
	siblings.Go(func() { m.watchSiblings(ctx) })
	for {
		pause := m.config.Ping
		if !m.ping(ctx) {
			pause = m.config.Ping / 5
		}
		m.judge()
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(pause, m.patience())):
		}
	}
}

// patience is how long the dispatcher has until it must take itself for dead.
func (m *Member) patience() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.suspended {
		return m.config.Ping
	}
	return max(time.Millisecond, time.Until(m.proven.Add(m.config.Death-margin)))
}

// judge suspends the dispatcher, or ends that.
func (m *Member) judge() {
	m.mu.Lock()
	suspended := m.displaced || time.Since(m.proven) >= m.config.Death-margin
	changed := suspended != m.suspended
	m.suspended = suspended
	m.mu.Unlock()
	if !changed {
		return
	}
	if suspended {
		m.log.Warn("dispatcher takes no jobs: it cannot show that it is alive")
	} else {
		m.log.Info("dispatcher takes jobs again")
	}
	m.config.Suspend(suspended)
}

// ping writes the sign of life anew.
func (m *Member) ping(ctx context.Context) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, min(exchange, m.config.Ping, m.patience()))
	defer cancel()
	m.mu.Lock()
	revision := m.revision
	m.mu.Unlock()
	sent := time.Now()
	revision, err := m.roster.signs.Update(ctx, m.key(), m.sign, revision, m.config.Death)
	if err == nil {
		m.pinged(revision, sent)
		return m.stand(ctx)
	}
	if !errors.Is(err, kv.ErrConflict) {
		m.log.Debug("ping failed", "err", err)
		return false
	}
	found, err := m.roster.signs.Latest(ctx, m.key())
	switch {
	case err == nil && found.Value == m.sign: // an answer was lost
		m.wrote(found.Revision)
		return false
	case err != nil && !errors.Is(err, kv.ErrNotFound):
		m.log.Debug("ping failed", "err", err)
		return false
	}
	return m.again(ctx, sent)
}

func (m *Member) pinged(revision uint64, sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision, m.proven, m.displaced = revision, sent, false
}

// again activates a dispatcher that was taken for dead, unless another process
// has its UUID now.
func (m *Member) again(ctx context.Context, sent time.Time) (done bool) {
	m.mu.Lock()
	m.entered = false // before the sign is there, whose answer may be lost
	m.mu.Unlock()
	other, err := m.tryClaim(ctx)
	if err != nil {
		m.log.Debug("ping failed", "err", err)
		return false
	}
	m.mu.Lock()
	news := other != sign{} && !m.displaced
	m.displaced = other != sign{}
	if !m.displaced {
		m.proven = sent
	}
	displaced := m.displaced
	m.mu.Unlock()
	if news {
		m.log.Error("this UUID is another process's now: with a copy of the same UUID file? No jobs are taken until it is gone",
			"host", other.Host, "pid", other.PID)
	}
	if displaced {
		return true
	}
	return m.stand(ctx)
}

// Leave deactivates the dispatcher. Its sign goes last: while it is there nobody
// takes the dispatcher for dead.
func (m *Member) Leave(ctx context.Context) error {
	defer m.heard.Unsubscribe()
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	_, after, changed, err := m.roster.change(ctx, m.config.Dispatcher, func(e *Entry) (bool, error) {
		if e.Incarnation != m.sign.Incarnation || e.State != Active {
			return false, nil
		}
		e.State, e.Deactivated = Dormant, time.Now().UTC()
		return true, nil
	})
	if err == nil && changed {
		m.tell(Deactivated, after, Stopped, "")
	}
	m.mu.Lock()
	revision := m.revision
	m.mu.Unlock()
	if err == nil {
		err = m.roster.signs.Delete(ctx, m.key(), revision)
	}
	if err != nil && !errors.Is(err, kv.ErrConflict) {
		return fmt.Errorf("deactivate dispatcher %s: %w", m.config.Dispatcher, err)
	}
	return nil
}
