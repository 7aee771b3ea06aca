package quotas

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/asyncnats/asyncnats/job"
)

// model is a quota in the hands of writers who do anything, in any order, and
// serve before they write.
type model struct {
	*rand.Rand
	slots    Slots
	revision uint64
	tokens   job.Token
	attempts map[uint64]job.Token // of each job, the newest attempt
}

func newModel(r *rand.Rand) *model {
	return &model{Rand: r, slots: Slots{Removed: true}, attempts: make(map[uint64]job.Token)}
}

// several reports whether a job needs slots in several quotas. Every third does.
func several(sequence uint64) bool { return sequence%3 == 0 }

// do changes the quota in some way, and says how.
func (m *model) do() string {
	sequence := m.Uint64N(9)
	nonce := nonceOf(sequence)
	switch kind := m.IntN(20); kind {
	case 0:
		m.slots.Size, m.slots.Removed = m.IntN(5), false
		m.slots.serve(m.revision)
		return fmt.Sprintf("resize %d", m.slots.Size)
	case 1:
		if m.IntN(5) > 0 {
			return ""
		}
		m.slots.Size, m.slots.Removed = 0, true
		m.slots.serve(m.revision)
		return "remove"
	case 2, 3, 4, 5:
		token := m.attempts[sequence]
		if m.IntN(8) == 0 {
			token = 0 // one that is no more
		}
		m.slots.leave(nonce, token)
		m.slots.serve(m.revision)
		return fmt.Sprintf("leave %d, attempt %d", sequence, token)
	case 6:
		m.slots.expel(nonce)
		m.slots.serve(m.revision)
		return fmt.Sprintf("expel %d", sequence)
	case 7, 8:
		m.slots.serve(m.revision)
		if several(sequence) {
			m.slots.reserve(nonce)
		}
		m.slots.serve(m.revision)
		return fmt.Sprintf("reserve %d", sequence)
	case 9, 10, 11, 12:
		m.slots.serve(m.revision)
		if !several(sequence) || !m.slots.ready(nonce) {
			return ""
		}
		m.slots.admit(nonce, m.revision)
		return fmt.Sprintf("admit %d", sequence)
	default:
		c := Claim{Nonce: nonce, Sequence: sequence, Several: several(sequence)}
		if token, known := m.attempts[sequence]; known && m.IntN(3) > 0 {
			c.Token = token
		} else {
			m.tokens++
			c.Token, c.Interrupted = m.tokens, known && m.IntN(2) == 0
			m.attempts[sequence] = c.Token
		}
		m.slots.enter(c, m.revision)
		m.slots.serve(m.revision)
		return fmt.Sprintf("enter %d, attempt %d", sequence, c.Token)
	}
}

func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	seen := make(map[string]int)
	for range 1000 {
		m := newModel(r)
		var done []string
		for range 60 {
			old := m.slots.clone()
			what := m.do()
			m.revision++
			if what == "" {
				m.slots = old
				continue
			}
			done = append(done, what)
			if err := checkStep(old, m.slots); err != nil {
				t.Fatalf("after %q: %v", done, err)
			}
			m.count(old, what, seen)
		}
	}
	for _, what := range []string{"granted", "admitted", "passed", "kept free", "taken over", "more than size", "removed and created"} {
		if seen[what] < 20 {
			t.Errorf("%q happened %d times: the histories say little", what, seen[what])
		}
	}
}

// count notes what a history has come by.
func (m *model) count(old Slots, what string, seen map[string]int) {
	for name, happened := range map[string]bool{
		"granted":             len(granted(old, m.slots)) > 0,
		"admitted":            what[:3] == "adm",
		"more than size":      !m.slots.Removed && len(m.slots.Holders) > m.slots.Size,
		"removed and created": old.Removed && !m.slots.Removed && len(m.slots.Holders) > 0,
		"kept free":           len(m.slots.Waiters) > 1 && m.slots.Waiters[0].Reserves && !m.slots.Filled(),
	} {
		if happened {
			seen[name]++
		}
	}
	for _, c := range m.slots.Holders {
		if i := find(old.Holders, c.Nonce); i >= 0 && old.Holders[i].Token != c.Token {
			seen["taken over"]++
		}
	}
	for _, c := range m.slots.Waiters {
		if c.Passed > 1 {
			seen["passed"]++
		}
	}
}

// A waiter is ready where a slot would be left for it if all who come first, and
// are owed one, had theirs.
func TestReadyModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := newModel(rand.New(rand.NewPCG(seed, 0)))
	ready := 0
	for range 20_000 {
		m.do()
		m.revision++
		for i, c := range m.slots.Waiters {
			if !c.Several {
				continue
			}
			owed := len(m.slots.Holders)
			for _, w := range m.slots.Waiters[:i] {
				if !w.Several || w.Reserves {
					owed++
				}
			}
			if want := owed < m.slots.Size || m.slots.Removed; m.slots.ready(c.Nonce) != want {
				t.Fatalf("job %d: ready is %t, of %d slots %d are owed: %s", c.Sequence, !want, m.slots.Size, owed, show(m.slots))
			} else if want {
				ready++
			}
		}
	}
	if ready < 200 {
		t.Errorf("ready %d times: the history says little", ready)
	}
}
