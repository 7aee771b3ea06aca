package roster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/kv"
	"github.com/asyncnats/asyncnats/stream"
)

// State is what a dispatcher's entry says of it.
type State string

// States of a dispatcher.
const (
	Active  State = "active"
	Dormant State = "stopped"
	Dead    State = "dead"
)

// Entry is a dispatcher as it is registered.
type Entry struct {
	Dispatcher string   `json:"dispatcher"` // UUID
	Host       string   `json:"host"`
	PID        int      `json:"pid"`
	Queues     []string `json:"queues"` // that it serves, sorted
	State      State    `json:"state"`
	// Incarnation is another for each time that a process was activated.
	Incarnation string    `json:"incarnation"`
	Registered  time.Time `json:"registered"`
	Activated   time.Time `json:"activated"`
	// Deactivated is when it last stopped, or was found dead.
	Deactivated time.Time `json:"deactivated,omitzero"`

	revision uint64
	written  time.Time // by the server's clock
}

// sign is the value of alive.<uuid>.
type sign struct {
	Incarnation string `json:"incarnation"`
	Host        string `json:"host"`
	PID         int    `json:"pid"`
}

// Errors of a Roster.
var (
	ErrNoDispatcher = errors.New("no such dispatcher")
	ErrActive       = errors.New("dispatcher is active")
)

// Roster is the dispatchers of a namespace.
type Roster struct {
	ns      *stream.Namespace
	nc      *nats.Conn
	entries *kv.Bucket[Entry]
	signs   *kv.Bucket[sign]
}

const (
	entryPrefix = "dispatcher."
	signPrefix  = "alive."
	// exchange is how long one exchange with the server may take.
	exchange = 3 * time.Second
)

// Open opens the roster of a namespace, which must have a queue.
func Open(ctx context.Context, ns *stream.Namespace) (*Roster, error) {
	entries, err := kv.Open(ctx, ns.JetStream(), ns.Dispatchers(), kv.JSON[Entry]())
	if err != nil {
		return nil, fmt.Errorf("open dispatchers: %w", err)
	}
	signs := kv.View(entries, kv.JSON[sign]())
	return &Roster{ns: ns, nc: ns.JetStream().Conn(), entries: entries, signs: signs}, nil
}

// List lists the registered dispatchers, sorted by UUID. One whose sign of life
// is gone is shown as dead, whether or not a sibling has noticed.
func (r *Roster) List(ctx context.Context) ([]Entry, error) {
	found, err := r.entries.List(ctx, entryPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("list dispatchers: %w", err)
	}
	signs, err := r.signs.List(ctx, signPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("list dispatchers: %w", err)
	}
	alive := make(map[string]bool)
	for _, s := range signs {
		alive[strings.TrimPrefix(s.Key, signPrefix)] = true
	}
	list := make([]Entry, 0, len(found))
	for _, each := range found {
		e := each.Value
		e.revision = each.Revision
		if e.State == Active && !alive[e.Dispatcher] {
			e.State = Dead
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Dispatcher, b.Dispatcher) })
	return list, nil
}

// Get reads a dispatcher's entry. The error is [ErrNoDispatcher] where there is
// none.
func (r *Roster) Get(ctx context.Context, dispatcher string) (Entry, error) {
	e, err := r.entry(ctx, dispatcher)
	if err != nil {
		return e, fmt.Errorf("dispatcher %s: %w", dispatcher, err)
	}
	if e.State == Active {
		alive, err := r.alive(ctx, dispatcher)
		if err != nil {
			return e, fmt.Errorf("dispatcher %s: %w", dispatcher, err)
		}
		if !alive {
			e.State = Dead
		}
	}
	return e, nil
}

// Away says, by the server's clock, since when a dispatcher is stopped or found dead;
// the zero time for one that is neither. One that was removed is away for ever.
func (r *Roster) Away(ctx context.Context, dispatcher string) (since time.Time, err error) {
	e, err := r.entry(ctx, dispatcher)
	switch {
	case errors.Is(err, ErrNoDispatcher):
		return time.Unix(1, 0), nil
	case err != nil:
		return time.Time{}, fmt.Errorf("dispatcher %s: %w", dispatcher, err)
	case e.State == Active:
		return time.Time{}, nil
	}
	return e.written, nil // nothing is written after that
}

func (r *Roster) entry(ctx context.Context, dispatcher string) (Entry, error) {
	if err := checkUUID(dispatcher); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrNoDispatcher, err)
	}
	found, err := r.entries.Latest(ctx, entryPrefix+dispatcher)
	if errors.Is(err, kv.ErrNotFound) {
		return Entry{}, fmt.Errorf("%w (asyncnats dispatcher ls lists those there are)", ErrNoDispatcher)
	}
	if err != nil {
		return Entry{}, err
	}
	found.Value.revision, found.Value.written = found.Revision, found.Written
	return found.Value, nil
}

func (r *Roster) alive(ctx context.Context, dispatcher string) (bool, error) {
	_, err := r.signs.Latest(ctx, signPrefix+dispatcher)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Remove unregisters a dispatcher, with its agents. The error is [ErrActive]
// where it is alive (FEATURES 140).
func (r *Roster) Remove(ctx context.Context, dispatcher string) error {
	for {
		e, err := r.entry(ctx, dispatcher)
		if err != nil {
			return fmt.Errorf("remove dispatcher %s: %w", dispatcher, err)
		}
		alive, err := r.alive(ctx, dispatcher)
		if err == nil && alive {
			err = fmt.Errorf("%w on host %s, PID %d: stop it first", ErrActive, e.Host, e.PID)
		}
		if err == nil {
			err = forgetAgents(ctx, r.ns, dispatcher)
		}
		if err == nil {
			err = r.entries.Delete(ctx, entryPrefix+dispatcher, e.revision)
		}
		if errors.Is(err, kv.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("remove dispatcher %s: %w", dispatcher, err)
		}
		r.tell(Unregistered, e, "", "")
		return nil
	}
}

// change changes a dispatcher's entry by compare-and-set until change reports
// that there is nothing to do, or an error. before is the entry as it was; zero
// where there was none.
func (r *Roster) change(ctx context.Context, dispatcher string, change func(e *Entry) (do bool, err error)) (before, after Entry, changed bool, err error) {
	for {
		before, err = r.entry(ctx, dispatcher)
		if err != nil && !errors.Is(err, ErrNoDispatcher) {
			return before, after, false, err
		}
		after = before
		do, err := change(&after)
		if err != nil || !do {
			return before, after, false, err
		}
		after.revision, err = write(ctx, r.entries, entryPrefix+dispatcher, after, before.revision, kv.Forever)
		if errors.Is(err, kv.ErrConflict) {
			continue
		}
		return before, after, err == nil, err
	}
}

// write writes a key at the revision that was read, 0 where it had no value.
func write[T any](ctx context.Context, bucket *kv.Bucket[T], key string, value T, revision uint64, ttl time.Duration) (uint64, error) {
	if revision == 0 {
		return bucket.Create(ctx, key, value, ttl)
	}
	return bucket.Update(ctx, key, value, revision, ttl)
}
