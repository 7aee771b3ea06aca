package roster

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// stand makes the dispatcher's entry an active one, unless that was done since its
// sign was claimed.
func (m *Member) stand(ctx context.Context) (done bool) {
	m.mu.Lock()
	entered := m.entered
	m.mu.Unlock()
	return entered || m.enter(ctx, Reactivated) == nil
}

// enter makes the dispatcher's entry an active one.
func (m *Member) enter(ctx context.Context, kind EventKind) error {
	for {
		before, after, _, err := m.roster.change(ctx, m.config.Dispatcher, func(e *Entry) (bool, error) {
			now := time.Now().UTC()
			registered := e.Registered
			if registered.IsZero() {
				registered = now
			}
			*e = Entry{
				Dispatcher: m.config.Dispatcher, Host: m.sign.Host, PID: m.sign.PID, Queues: m.served(), State: Active,
				Incarnation: m.sign.Incarnation, Registered: registered, Activated: now, Deactivated: e.Deactivated, revision: e.revision,
			}
			return true, nil
		})
		if err == nil {
			m.mu.Lock()
			m.entered = true
			m.mu.Unlock()
			m.tellEntered(before, after, kind)
			return nil
		}
		m.log.Warn("dispatcher cannot be registered, will be tried again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(m.config.Ping / 5):
		}
	}
}

func (m *Member) tellEntered(before, after Entry, kind EventKind) {
	if before.Registered.IsZero() {
		m.log.Info("dispatcher registered", "queues", after.Queues)
		m.tell(Registered, after, "", "")
	}
	if before.State == Active && kind == Activated && before.Incarnation != m.sign.Incarnation {
		// It had no sibling that noticed.
		m.log.Warn("dispatcher died before, without a word", "host", before.Host, "pid", before.PID)
		m.tell(Deactivated, before, Died, "")
	}
	switch {
	case kind == Activated:
		m.log.Info("dispatcher activated", "queues", after.Queues)
	case before.State == Active: // its sign expired, and nobody had noticed
		m.log.Info("dispatcher shows again that it is alive")
		return
	default:
		m.log.Error("this dispatcher lives and was taken for dead: its pings came too late. Is the machine overloaded, or was it suspended?")
	}
	m.tell(kind, after, "", "")
}

// Serve has the dispatcher serve these queues, sorted, and no others. Where there is an
// error it serves those of before.
func (m *Member) Serve(ctx context.Context, queues []string) error {
	before := m.serve(queues)
	if slices.Equal(before, queues) {
		return nil
	}
	_, after, changed, err := m.roster.change(ctx, m.config.Dispatcher, func(e *Entry) (bool, error) {
		e.Queues = m.served()
		return e.Incarnation == m.sign.Incarnation, nil
	})
	if err != nil {
		m.serve(before)
		return fmt.Errorf("register dispatcher with queues %q: %w", queues, err)
	}
	if changed {
		after.Queues = slices.DeleteFunc(slices.Clone(queues), func(queue string) bool { return slices.Contains(before, queue) })
		m.tell(Activated, after, "", "")
	}
	return nil
}

func (m *Member) serve(queues []string) (before []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, m.queues = m.queues, slices.Clone(queues)
	return before
}

func (m *Member) served() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queues
}
