package quotas

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

var claimPattern = regexp.MustCompile(`^(\d+)(i?)(s?)(?:\+(\d+))?(r?)$`)

// claim reads what showClaim writes. All claims are of attempt 1.
func claim(word string) Claim {
	parts := claimPattern.FindStringSubmatch(word)
	if parts == nil {
		panic("no claim: " + word)
	}
	sequence, _ := strconv.ParseUint(parts[1], 10, 64)
	passed, _ := strconv.Atoi(parts[4])
	return Claim{
		ID: job.ID("job-" + parts[1]), Nonce: nonceOf(sequence), Token: 1, Sequence: sequence,
		Interrupted: parts[2] != "", Several: parts[3] != "", Passed: passed, Reserves: parts[5] != "",
	}
}

// slots reads what show writes. The holders' fencing tokens count from 1.
func slots(size int, line string) Slots {
	s := Slots{Size: size}
	holders, waiters, _ := strings.Cut(line, "|")
	for _, word := range strings.Fields(holders) {
		s.hold(claim(word), 0)
	}
	for _, word := range strings.Fields(waiters) {
		s.Waiters = append(s.Waiters, claim(word))
	}
	return s
}

// next is another attempt's claim.
func next(word string) Claim {
	c := claim(word)
	c.Token = 2
	return c
}

func TestSlots(t *testing.T) {
	enter := func(c Claim) func(*Slots) bool { return func(s *Slots) bool { return s.enter(c, 0) } }
	leave := func(sequence uint64, token job.Token) func(*Slots) bool {
		return func(s *Slots) bool { return s.leave(nonceOf(sequence), token) }
	}
	expel := func(sequence uint64) func(*Slots) bool {
		return func(s *Slots) bool { return s.expel(nonceOf(sequence)) }
	}
	reserve := func(sequence uint64) func(*Slots) bool {
		return func(s *Slots) bool { return s.reserve(nonceOf(sequence)) }
	}
	admit := func(sequence uint64) func(*Slots) bool {
		return func(s *Slots) bool { s.admit(nonceOf(sequence), 0); return true }
	}
	serve := func(s *Slots) bool { return s.serve(0) }
	remove := func(s *Slots) bool { s.Removed, s.Size = true, 0; return s.serve(0) }

	for name, row := range map[string]struct {
		size  int
		start string
		do    func(*Slots) bool
		want  string // empty where nothing is to change
	}{
		"enter: the first":                            {1, "|", enter(claim("1")), "| 1"},
		"enter: in the order of the queue":            {1, "| 1 3", enter(claim("2")), "| 1 2 3"},
		"enter: behind the last":                      {1, "| 1 3", enter(claim("4")), "| 1 3 4"},
		"enter: interrupted ones come first":          {1, "| 1 2", enter(claim("3i")), "| 3i 1 2"},
		"enter: interrupted ones in order":            {1, "| 2i 4i 1", enter(claim("3i")), "| 2i 3i 4i 1"},
		"enter: others behind interrupted ones":       {1, "| 9i 3", enter(claim("1")), "| 9i 1 3"},
		"enter: a holder once more":                   {2, "1 2 |", enter(claim("1")), ""},
		"enter: a waiter once more":                   {1, "1 | 2 3", enter(claim("2")), ""},
		"enter: another attempt of a holder":          {2, "1 2 3 |", enter(next("2i")), "1 2i 3 |"},
		"enter: another attempt of one too many":      {1, "1 2 3 | 4", enter(next("3i")), "1 2 3i | 4"},
		"enter: another attempt of a waiter":          {1, "1 | 2 3 4", enter(next("3")), "1 | 2 3 4"},
		"enter: another attempt that was interrupted": {1, "1 | 2 3 4", enter(next("4i")), "1 | 4i 2 3"},
		"enter: who was passed stays passed":          {1, "1 | 2s+3r 3", enter(next("2s")), "1 | 2s+3r 3"},

		"leave: a holder":               {2, "1 2 3 |", leave(2, 1), "1 3 |"},
		"leave: a waiter":               {1, "1 | 2 3", leave(2, 1), "1 | 3"},
		"leave: a holder's old attempt": {2, "1 2 |", leave(2, 3), ""},
		"leave: a waiter's old attempt": {1, "1 | 2", leave(2, 3), ""},
		"leave: a stranger":             {1, "1 | 2", leave(3, 1), ""},

		"expel: a holder":   {2, "1 2 |", expel(1), "2 |"},
		"expel: a waiter":   {1, "1 | 2 3", expel(3), "1 | 2"},
		"expel: a stranger": {1, "1 | 2", expel(3), ""},

		"serve: nobody": {1, "|", serve, ""},
		"serve: in order, as long as slots are free": {3, "1 | 2 3 4", serve, "1 2 3 | 4"},
		"serve: no slot is free":                     {1, "1 | 2", serve, ""},
		"serve: more holders than slots":             {1, "1 2 | 3", serve, ""},
		"serve: no slots at all":                     {0, "| 1", serve, ""},
		"serve: one that needs several waits":        {2, "| 1s", serve, ""},
		"serve: it is passed":                        {2, "| 1s 2", serve, "2 | 1s+1"},
		"serve: it is passed by two":                 {3, "| 1 2s+4 3 4", serve, "1 3 4 | 2s+6"},
		"serve: not by those before it":              {3, "| 1 2 3s", serve, "1 2 | 3s"},
		"serve: its slot is kept free":               {2, "| 1s+8r 2 3", serve, "2 | 1s+9r 3"},
		"serve: its slot is kept free, the last":     {1, "| 1s+8r 2", serve, ""},
		"serve: not from those before it":            {1, "| 1 2s+8r 3", serve, "1 | 2s+8r 3"},
		"serve: two slots are kept free":             {2, "| 1sr 2sr 3", serve, ""},

		"remove: singles get in":    {0, "1 | 2 3s 4s+8r 5", remove, "1 2 5 | 3s+1 4s+9r"},
		"reserve":                   {1, "1 | 2s 3", reserve(2), "1 | 2sr 3"},
		"reserve: again":            {1, "1 | 2sr 3", reserve(2), ""},
		"reserve: a holder":         {1, "1 | 2s", reserve(1), ""},
		"reserve: a stranger":       {1, "1 | 2s", reserve(3), ""},
		"admit":                     {2, "1 | 2s+8r 3", admit(2), "1 2s | 3"},
		"admit: others are passed":  {2, "| 1s 2s+3r 4s+2 5s", admit(4), "4s | 1s+1 2s+4r 5s"},
		"admit: not those behind":   {1, "| 1s 2s", admit(1), "1s | 2s"},
		"admit: singles count none": {3, "1 2 3 | 4 5s", admit(5), "1 2 3 5s | 4"},
	} {
		t.Run(name, func(t *testing.T) {
			s := slots(row.size, row.start)
			old := s.clone()
			changed := row.do(&s)
			want := row.want
			if want == "" {
				want = row.start
				if diff := cmp.Diff(old, s); diff != "" {
					t.Errorf("changed (-old +new):\n%s", diff)
				}
			}
			if changed != (row.want != "") || show(s) != want {
				t.Errorf("%s, changed: %t; want %s", show(s), changed, want)
			}
		})
	}
}

// One that needs several slots is let in only past those who need several too
// and have none kept free.
func TestReady(t *testing.T) {
	for name, row := range map[string]struct {
		size int
		line string
		want bool // of job 5
	}{
		"alone":                             {1, "| 5s", true},
		"all taken":                         {1, "1 | 5s", false},
		"one free beside others":            {3, "1 2 | 5s", true},
		"more holders than slots":           {1, "1 2 | 5s", false},
		"no slots":                          {0, "| 5s", false},
		"the slot is for one before it":     {1, "| 1 5s", false},
		"there is one for both":             {2, "| 1 5s", true},
		"the one before it needs several":   {1, "| 1s 5s", true},
		"a slot is kept for one before it":  {1, "| 1s+8r 5s", false},
		"one is kept, there are two":        {2, "| 1s+8r 5s", true},
		"those behind do not count":         {1, "| 5s 6 7s+8r", true},
		"an interrupted one is before it":   {1, "| 9i 5s", false},
		"it has reserved the slot itself":   {1, "| 5s+8r 6", true},
		"it has reserved one that is taken": {1, "1 | 5s+8r 6", false},
		"it does not wait":                  {2, "5s |", false},
		"it is unknown":                     {2, "| 1s", false},
	} {
		if got := slots(row.size, row.line).ready(nonceOf(5)); got != row.want {
			t.Errorf("%s: ready is %t", name, got)
		}
	}
	removed := slots(0, "1 | 2 5s")
	removed.Removed = true
	if !removed.ready(nonceOf(5)) || removed.Filled() {
		t.Error("a removed quota has slots for all")
	}
}

func TestFilled(t *testing.T) {
	for name, row := range map[string]struct {
		slots Slots
		want  bool
	}{
		"empty": {slots(1, "|"), false}, "one of two": {slots(2, "1 |"), false}, "full": {slots(1, "1 |"), true},
		"more than full": {slots(1, "1 2 |"), true}, "size 0": {slots(0, "|"), true}, "removed": {Slots{Removed: true}, false},
	} {
		if got := row.slots.Filled(); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Fencing tokens rise with each slot that is given or taken over, and lie above
// the revision that the value had.
func TestFences(t *testing.T) {
	s := slots(4, "| 1 2 3s 4")
	last := uint64(10)
	higher := func(what string, sequence uint64) {
		t.Helper()
		c, _ := s.holder(nonceOf(sequence))
		if c.Fence <= last || c.Fence != s.Fence && what != "served first" && what != "served second" {
			t.Errorf("%s: fence %d of job %d, the last was %d", what, c.Fence, sequence, last)
		}
		last = c.Fence
	}
	s.serve(10)
	higher("served first", 1)
	higher("served second", 2)
	higher("served third", 4)
	s.admit(nonceOf(3), 10)
	higher("admitted", 3)
	s.enter(next("1"), 11)
	higher("taken over", 1)
	s.expel(nonceOf(1))
	s.enter(claim("1"), 11)
	s.serve(11)
	higher("given again", 1)
	last = 400
	s.enter(next("2"), 400)
	higher("taken over at revision 400", 2)
	s = slots(1, "| 1")
	last = 500
	s.serve(500)
	higher("after the value was lost at revision 500", 1)
}

// What is worked out from a value leaves that value as it was.
func TestClone(t *testing.T) {
	s := slots(1, "1 | 2s 3")
	old := s.clone()
	c := s.clone()
	c.enter(next("1"), 0)
	c.reserve(nonceOf(2))
	c.Size = 3
	c.enter(claim("0"), 0)
	c.serve(0)
	c.expel(nonceOf(3))
	if diff := cmp.Diff(old, s); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}
