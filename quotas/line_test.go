package quotas

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// lineOf is a line whose value was read.
func lineOf(size int, value string, revision uint64) *line {
	l := newLine("gpu")
	l.learn(slots(size, value), revision)
	return l
}

// add adds a ticket of this process: a claim as claim reads it, in a phase.
func (l *line) add(word string, p phase) *Ticket {
	t := &Ticket{claim: claim(word), names: []string{l.name}, held: func() bool { return true }, phase: p, marks: make(map[string]mark)}
	l.tickets = append(l.tickets, t)
	return t
}

func TestPlan(t *testing.T) {
	all := func(l *line, p phase, words string) {
		for _, word := range strings.Fields(words) {
			l.add(word, p)
		}
	}
	for name, row := range map[string]struct {
		size  int
		value string
		have  func(*line)
		want  string // empty where nothing is to be written
	}{
		"nobody":                       {1, "|", func(*line) {}, ""},
		"somebody else's":              {1, "1 | 2", func(*line) {}, ""},
		"an entry gets its slot":       {1, "|", func(l *line) { all(l, waiting, "1") }, "1 |"},
		"or waits":                     {1, "1 |", func(l *line) { all(l, waiting, "2") }, "1 | 2"},
		"what stands is not repeated":  {1, "1 | 2", func(l *line) { all(l, waiting, "2"); all(l, holding, "1") }, ""},
		"all entries in one write":     {2, "|", func(l *line) { all(l, waiting, "3 1 2") }, "1 2 | 3"},
		"all exits in one write":       {3, "1 2 3 | 4", func(l *line) { all(l, leaving, "1 3 4") }, "2 |"},
		"one leaves, one enters":       {1, "1 |", func(l *line) { all(l, leaving, "1"); all(l, waiting, "2") }, "2 |"},
		"the slot is the first's":      {1, "1 | 2", func(l *line) { all(l, leaving, "1"); all(l, waiting, "3") }, "2 | 3"},
		"who is gone does nothing":     {1, "1 |", func(l *line) { all(l, gone, "1 2") }, ""},
		"an exit of a stranger's slot": {1, "1 | 2", func(l *line) { l.exits = []exit{{release: &release{nonce: nonceOf(1)}}} }, "2 |"},
		"a claim without job": {1, "1 | 2 3", func(l *line) {
			l.condemned[condemned{nonceOf(1), 1}], l.condemned[condemned{nonceOf(3), 1}] = true, true
		}, "2 |"},
		"not if the attempt is another":      {1, "1 |", func(l *line) { l.condemned[condemned{nonceOf(1), 9}] = true }, ""},
		"a slot is to be kept free":          {2, "1 | 2s+8", func(l *line) { l.reserving[nonceOf(2)] = true; all(l, waiting, "3") }, "1 | 2s+8r 3"},
		"a write that may come yet":          {1, "1 |", func(l *line) { l.unsure = true }, "1 |"},
		"a lease that is not held":           {1, "|", func(l *line) { l.add("1", waiting).held = func() bool { return false } }, ""},
		"an attempt that was replaced":       {1, "| 1", func(l *line) { c := l.add("1", waiting); c.claim.Token = 9; c.marks["gpu"] = mark{seen: true} }, "1 |"},
		"a claim that somebody took away":    {1, "1 |", func(l *line) { l.add("2", waiting).marks["gpu"] = mark{seen: true} }, "1 | 2"},
		"a slot that somebody took away":     {2, "1 |", func(l *line) { all(l, holding, "2") }, ""},
		"one that has it and waits for more": {2, "1s |", func(l *line) { l.add("1s", waiting).marks["gpu"] = mark{seen: true, holds: true} }, ""},
		"a few of many are written":          {1, "9 |", func(l *line) { all(l, waiting, "1 2 3 4 5 6") }, "9 | 1 2"},
		"those that come first":              {1, "9 | 3 4", func(l *line) { all(l, waiting, "6 5 4 3 2 1") }, "9 | 1 2 3 4"},
		"more where there are more slots":    {3, "7 8 9 |", func(l *line) { all(l, waiting, "1 2 3 4 5 6") }, "7 8 9 | 1 2 3 4"},
		"whoever needs several is written":   {1, "9 |", func(l *line) { all(l, waiting, "1 2 3 4s 5 6s") }, "9 | 1 2 4s 6s"},
		"two where there are no slots":       {0, "|", func(l *line) { all(l, waiting, "1 2 3") }, "| 1 2"},
	} {
		t.Run(name, func(t *testing.T) {
			l := lineOf(row.size, row.value, 7)
			row.have(l)
			next, _, changed := l.plan(time.Time{})
			want := row.want
			if want == "" {
				want = row.value
			}
			if show(next) != want || changed != (row.want != "") {
				t.Errorf("%s, changed: %t; want %s", show(next), changed, want)
			}
			if show(l.known) != row.value {
				t.Errorf("what is known became %s", show(l.known))
			}
		})
	}
}

// An attempt that was replaced does not come back, wherever it stood.
func TestPlanOfTheReplaced(t *testing.T) {
	for _, value := range []string{"1 |", "2 | 1"} {
		l := lineOf(1, value, 7)
		old := l.add("1", waiting)
		old.claim.Token, old.marks["gpu"] = 9, mark{seen: true}
		if next, _, changed := l.plan(time.Time{}); changed || next.has(old.is) {
			t.Errorf("%s: %+v", value, next)
		}
		// One that was not seen yet is another matter: it replaces.
		old.marks["gpu"] = mark{}
		if next, _, changed := l.plan(time.Time{}); !changed || !next.has(old.is) {
			t.Errorf("%s, new: %+v", value, next)
		}
	}
}

// While something is under way that may yet write of a job nothing is settled.
func TestSettled(t *testing.T) {
	about := func(sequence uint64) func(*line) {
		return func(l *line) {
			l.sent = []*request{{Ops: []op{{Kind: opEnter, Claim: claim("8")}}}, {Ops: []op{{Kind: opLeave, Claim: Claim{Nonce: nonceOf(sequence)}}}}}
		}
	}
	for name, row := range map[string]struct {
		change func(*line)
		want   bool
	}{
		"nothing under way":               {func(*line) {}, true},
		"a write or a reading":            {func(l *line) { l.busy = true }, false},
		"a reading that is to be made":    {func(l *line) { l.stale = true }, false},
		"a reading that somebody wants":   {func(l *line) { l.exits = []exit{{after: 1}} }, false},
		"a value that cannot be read":     {func(l *line) { l.loaded = false }, false},
		"a write that was not answered":   {func(l *line) { l.unsure = true }, false},
		"a request that was not answered": {func(l *line) { l.take = true }, false},
		"a request about the job":         {about(1), false},
		"a request about another":         {about(2), true},
	} {
		l := lineOf(1, "|", 7)
		row.change(l)
		if got := l.settled(nonceOf(1)); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A removed quota lets everybody in, however many, and writes them down.
func TestPlanRemoved(t *testing.T) {
	for _, revision := range []uint64{0, 7} {
		l := newLine("gpu")
		l.learn(Slots{Removed: true}, revision)
		for i := range 100 {
			l.add(fmt.Sprint(i), waiting)
		}
		if next, _, changed := l.plan(time.Time{}); !changed || len(next.Holders) != 100 || len(next.Waiters) != 0 || !next.Removed {
			t.Errorf("%d hold, %d wait", len(next.Holders), len(next.Waiters))
		}
	}
	// The value was removed: who has a slot is written down again.
	l := newLine("gpu")
	l.learn(Slots{Removed: true}, 0)
	l.add("1", holding)
	if next, _, changed := l.plan(time.Time{}); !changed || show(next) != "1 |" {
		t.Errorf("a holder of a lost value: %s", show(next))
	}
}

// A slot is never given away by one plan and to another by the next: what a plan
// makes of a value has nothing more to be made of it.
func TestPlanIsComplete(t *testing.T) {
	l := lineOf(2, "1 2 | 3 4", 7)
	l.add("1", leaving)
	l.add("5", waiting)
	l.add("6", waiting)
	l.exits = []exit{{release: &release{nonce: nonceOf(3)}}}
	next, _, changed := l.plan(time.Time{})
	if !changed || show(next) != "2 4 | 5 6" {
		t.Fatalf("%s, changed: %t", show(next), changed)
	}
	l.learn(next, 8)
	if again, _, changed := l.plan(time.Time{}); changed {
		t.Errorf("then %s", show(again))
	}
}
