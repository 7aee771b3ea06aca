package dispatcher

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// Errors of questions about what a dispatcher did.
var (
	// ErrQuery: the question makes no sense; the message says what would.
	ErrQuery = errors.New("bad query")
	// ErrForgotten: the dispatcher never had the job or the poll, or remembers it
	// no more.
	ErrForgotten = errors.New("not remembered")
)

// DefaultPolls is how many polls are shown where the query does not say
// (FEATURES 220).
const DefaultPolls = 3

// Query narrows a question about what a dispatcher did (FEATURES 161). The zero
// value asks for all of it.
type Query struct {
	// Queue and Agent narrow it to one queue, one agent.
	Queue string `json:"queue,omitempty"`
	Agent string `json:"agent,omitempty"`
	// ID is the job that is asked for.
	ID job.ID `json:"id,omitempty"`
	// At narrows it to polls of this moment and older ones, Before to older ones.
	// Only one of them may be given (FEATURES 162).
	At     Moment `json:"at,omitzero"`
	Before Moment `json:"before,omitzero"`
	// Since narrows it to polls of this moment and newer ones.
	Since Moment `json:"since,omitzero"`
	// Count is the most polls to show, from 1 to 400; 0 means DefaultPolls.
	Count int `json:"count,omitempty"`
}

func (q Query) check() error {
	switch {
	case q.At != Moment{} && q.Before != Moment{}:
		return fmt.Errorf("%w: at and before are both given: give one of them", ErrQuery)
	case q.Count < 0 || q.Count > keptPolls:
		return fmt.Errorf("%w: count %d: must be from 1 to %d", ErrQuery, q.Count, keptPolls)
	}
	return nil
}

// given names what is set, as JSON does.
func (q Query) given() []string {
	var names []string
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"queue", q.Queue != ""}, {"agent", q.Agent != ""}, {"id", q.ID != ""}, {"at", q.At != Moment{}},
		{"before", q.Before != Moment{}}, {"since", q.Since != Moment{}}, {"count", q.Count != 0},
	} {
		if field.set {
			names = append(names, field.name)
		}
	}
	return names
}

// only refuses what a question has no use for.
func (q Query) only(takes ...string) error {
	for _, name := range q.given() {
		switch {
		case slices.Contains(takes, name):
		case len(takes) == 0:
			return fmt.Errorf("%w: %s is given: this question takes nothing", ErrQuery, name)
		default:
			return fmt.Errorf("%w: %s is given: this question takes only %s", ErrQuery, name, strings.Join(takes, ", "))
		}
	}
	return q.check()
}

// takes reports whether the query is about an agent of a queue.
func (q Query) takes(queue, agent string) bool {
	return (q.Queue == "" || q.Queue == queue) && (q.Agent == "" || q.Agent == agent)
}

// spans reports whether the query is about a poll of the given time.
func (q Query) spans(poll, now time.Time) bool {
	switch {
	case q.At != Moment{} && poll.After(q.At.on(now)),
		q.Before != Moment{} && !poll.Before(q.Before.on(now)),
		q.Since != Moment{} && poll.Before(q.Since.on(now)):
		return false
	}
	return true
}

// Moment is a point in time, or a duration that means so long ago (FEATURES 215).
// As text it is RFC 3339, or a Go duration like 1h30m. The zero value is none.
type Moment struct {
	time time.Time
	ago  time.Duration
}

// On is the moment at t.
func On(t time.Time) Moment { return Moment{time: t} }

// Ago is the moment d before it is asked for, by the dispatcher's clock.
func Ago(d time.Duration) Moment { return Moment{ago: d} }

func (m Moment) on(now time.Time) time.Time {
	if m.time.IsZero() {
		return now.Add(-m.ago)
	}
	return m.time
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Moment) UnmarshalText(text []byte) error {
	if t, err := time.Parse(time.RFC3339Nano, string(text)); err == nil {
		*m = On(t)
		return nil
	}
	ago, err := time.ParseDuration(string(text))
	if err != nil || ago <= 0 {
		return fmt.Errorf("%q: must be a time like 2026-01-02T15:04:05Z, or a duration like 1h30m that means so long ago", text)
	}
	*m = Ago(ago)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (m Moment) MarshalText() ([]byte, error) {
	if m.time.IsZero() {
		return []byte(m.ago.String()), nil
	}
	return []byte(m.time.UTC().Format(time.RFC3339Nano)), nil
}
