package roster

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// turn is how much longer each sibling waits than the one before it, until it
	// takes it on itself to say that a dispatcher died.
	turn = 100 * time.Millisecond
	// watchFor is how long a watch lasts, and watchAgain the time between the
	// beginnings of two where one fails.
	watchFor   = time.Minute
	watchAgain = time.Second
)

// watchSiblings notices the deaths of other dispatchers until ctx ends.
func (m *Member) watchSiblings(ctx context.Context) {
	for ctx.Err() == nil {
		again := time.After(watchAgain)
		m.watch(ctx)
		select {
		case <-ctx.Done():
		case <-again:
		}
	}
}

// watch notices deaths for a while, and those before it. It is not made once and for
// all: while the connection is away for longer than the markers of what expired are
// kept, and from a server that lost what it had written, a watch misses deaths.
func (m *Member) watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var burials sync.WaitGroup
	defer burials.Wait()
	defer cancel()
	defer time.AfterFunc(watchFor, cancel).Stop()
	alive, current := make(map[string]bool), false
	for change, err := range m.roster.signs.Watch(ctx, signPrefix+"*") {
		sibling := strings.TrimPrefix(change.Entry.Key, signPrefix)
		switch {
		case change.Current:
			current = true
			m.findDead(ctx, &burials, alive)
		case sibling == "" && err != nil:
			m.log.Warn("siblings cannot be watched, will be tried again", "err", err)
		case sibling == m.config.Dispatcher:
		case change.Deleted:
			delete(alive, sibling)
			if current {
				m.bury(ctx, &burials, sibling, alive)
			}
		default:
			alive[sibling] = true
		}
	}
}

// findDead finds those who died before the watch began.
func (m *Member) findDead(ctx context.Context, burials *sync.WaitGroup, alive map[string]bool) {
	list, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	entries, err := m.roster.entries.List(list, entryPrefix+"*")
	if err != nil && ctx.Err() == nil {
		m.log.Warn("siblings cannot be listed, will be tried again", "err", err)
	}
	for _, e := range entries {
		if id := e.Value.Dispatcher; e.Value.State == Active && id != m.config.Dispatcher && !alive[id] {
			m.bury(ctx, burials, id, alive)
		}
	}
}

// bury says that a sibling died, if it did and nobody said so before, when it is
// this dispatcher's turn among those alive.
func (m *Member) bury(ctx context.Context, burials *sync.WaitGroup, sibling string, alive map[string]bool) {
	wait := turnOf(m.config.Dispatcher, sibling, alive)
	burials.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		for ctx.Err() == nil {
			err := m.tryBury(context.WithoutCancel(ctx), sibling) // what is written is told
			if err == nil {
				return
			}
			m.log.Debug("sibling cannot be deactivated, will be tried again", "sibling", sibling, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(watchAgain):
			}
		}
	})
}

// turnOf is how long a dispatcher waits until it deactivates a sibling that died:
// the next by UUID does it at once (FEATURES 146).
func turnOf(dispatcher, dead string, alive map[string]bool) time.Duration {
	order := []string{dispatcher}
	for id := range alive {
		order = append(order, id)
	}
	slices.SortFunc(order, func(a, b string) int {
		if (a > dead) != (b > dead) { // those after it come first
			return strings.Compare(b, a)
		}
		return strings.Compare(a, b)
	})
	return time.Duration(slices.Index(order, dispatcher)) * turn
}

func (m *Member) tryBury(ctx context.Context, sibling string) error {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	_, after, changed, err := m.roster.change(ctx, sibling, func(e *Entry) (bool, error) {
		if e.State != Active {
			return false, nil
		}
		// After the entry was read: one that is back writes that once its sign is there.
		alive, err := m.roster.alive(ctx, sibling)
		e.State, e.Deactivated = Dead, time.Now().UTC()
		return !alive, err
	})
	if err != nil || !changed {
		return err
	}
	m.log.Warn("dispatcher died", "sibling", sibling, "host", after.Host, "pid", after.PID)
	m.tell(Deactivated, after, Died, m.config.Dispatcher)
	return nil
}
