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
	// watchAgain is how long a watch that failed is left alone.
	watchAgain = time.Second
)

// watchSiblings notices the deaths of other dispatchers until ctx ends.
func (m *Member) watchSiblings(ctx context.Context) {
	var burials sync.WaitGroup
	defer burials.Wait()
	for ctx.Err() == nil {
		alive := make(map[string]bool)
		for change, err := range m.roster.signs.Watch(ctx, signPrefix+"*") {
			sibling := strings.TrimPrefix(change.Entry.Key, signPrefix)
			switch {
			case change.Current:
				m.findDead(ctx, &burials, alive)
			case sibling == "" && err != nil:
				m.log.Warn("siblings cannot be watched, will be tried again", "err", err)
			case sibling == m.config.Dispatcher:
			case change.Deleted:
				delete(alive, sibling)
				m.bury(ctx, &burials, sibling, alive)
			default:
				alive[sibling] = true
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// findDead finds those who died before this dispatcher began to watch.
func (m *Member) findDead(ctx context.Context, burials *sync.WaitGroup, alive map[string]bool) {
	entries, err := m.roster.entries.List(ctx, entryPrefix+"*")
	if err != nil && ctx.Err() == nil {
		m.log.Warn("siblings cannot be listed", "err", err)
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
			err := m.tryBury(ctx, sibling)
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
