package quotas

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

// epoch is a time of the server's clock.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func instant(d time.Duration) time.Time { return epoch.Add(d) }

// rateOf is a rate limit with grants of so many starts, a second after each
// other, the first at epoch.
func rateOf(size int, period time.Duration, starts ...int) Slots {
	s := Slots{Size: size, Period: Period(period)}
	for i, n := range starts {
		g := Grant{At: instant(time.Duration(i) * time.Second), N: n, First: s.Fence + 1, Last: s.Fence + uint64(n)}
		s.Fence = g.Last
		s.Grants = append(s.Grants, g)
	}
	return s
}

func TestExpire(t *testing.T) {
	for name, row := range map[string]struct {
		rate   Slots
		now    time.Time
		free   int
		next   time.Time
		vacant time.Time
	}{
		"nothing granted":             {rateOf(3, 10*time.Second), epoch, 3, time.Time{}, time.Time{}},
		"all left but one":            {rateOf(3, 10*time.Second, 1), epoch, 2, instant(10 * time.Second), instant(10 * time.Second)},
		"none left":                   {rateOf(3, 10*time.Second, 1, 2), instant(time.Second), 0, instant(10 * time.Second), instant(10 * time.Second)},
		"just before the first ends":  {rateOf(3, 10*time.Second, 1, 2), instant(10*time.Second - 1), 0, instant(10 * time.Second), instant(10 * time.Second)},
		"it ends when it is a period": {rateOf(3, 10*time.Second, 1, 2), instant(10 * time.Second), 1, instant(11 * time.Second), instant(11 * time.Second)},
		"all ended":                   {rateOf(3, 10*time.Second, 1, 2), instant(time.Hour), 3, time.Time{}, time.Time{}},
		"the time is not known":       {rateOf(3, 10*time.Second, 1, 2), time.Time{}, 0, instant(10 * time.Second), instant(10 * time.Second)},
		"it was made smaller":         {rateOf(2, 10*time.Second, 1, 2, 1), instant(3 * time.Second), -2, instant(10 * time.Second), instant(11 * time.Second)},
		"it starts nothing":           {rateOf(0, 10*time.Second, 1), epoch, -1, instant(10 * time.Second), time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := row.rate.clone()
			s.expire(row.now)
			if s.free() != row.free || !s.next().Equal(row.next) {
				t.Errorf("%d left, next %v; want %d, %v", s.free(), s.next(), row.free, row.next)
			}
			if vacant := s.vacant(); row.free <= 0 && !vacant.Equal(row.vacant) {
				t.Errorf("vacant at %v, want %v", vacant, row.vacant)
			}
			if s.Filled() != (row.free <= 0) {
				t.Errorf("filled is %t", s.Filled())
			}
		})
	}
}

// What has no date does not expire, and gets that of its revision.
func TestDate(t *testing.T) {
	s := rateOf(3, time.Second, 1)
	s.grant(2)
	s.grant(3)
	s.expire(instant(time.Hour))
	if want := []Grant{{N: 2, First: 2, Last: 3}}; !s.undated() || !cmp.Equal(s.Grants, want) {
		t.Fatalf("%+v", s.Grants)
	}
	s.date(instant(time.Hour))
	s.grant(4)
	want := []Grant{{At: instant(time.Hour), N: 2, First: 2, Last: 3}, {N: 1, First: 4, Last: 4}}
	if diff := cmp.Diff(want, s.Grants); diff != "" {
		t.Error(diff)
	}
}

// An end gives nothing back; a withdrawal does, as long as the grant counts.
func TestWithdraw(t *testing.T) {
	enter := func() Slots {
		s := Slots{Size: 2, Period: Period(time.Minute), Waiters: []Claim{claim("1"), claim("2"), claim("3")}}
		s.serve(0)
		s.date(epoch)
		return s
	}
	for name, row := range map[string]struct {
		do   func(*Slots)
		free int
	}{
		"left":               {func(s *Slots) { s.leave(nonceOf(1), 1) }, 0},
		"expelled":           {func(s *Slots) { s.expel(nonceOf(1)) }, 0},
		"withdrawn":          {func(s *Slots) { s.withdraw(nonceOf(1), 1) }, 1},
		"another attempt's":  {func(s *Slots) { s.withdraw(nonceOf(1), 2) }, 0},
		"withdrawn twice":    {func(s *Slots) { s.withdraw(nonceOf(1), 1); s.withdraw(nonceOf(1), 1) }, 1},
		"both withdrawn":     {func(s *Slots) { s.withdraw(nonceOf(1), 1); s.withdraw(nonceOf(2), 1) }, 2},
		"a waiter withdrawn": {func(s *Slots) { s.withdraw(nonceOf(3), 1) }, 0},
		"one that expired is no more": {func(s *Slots) {
			s.expire(instant(time.Minute))
			s.Waiters = []Claim{claim("4"), claim("5")}
			s.serve(0)
			s.withdraw(nonceOf(1), 1)
		}, 0},
	} {
		s := enter()
		if row.do(&s); s.free() != row.free {
			t.Errorf("%s: %d left of %+v, want %d", name, s.free(), s.Grants, row.free)
		}
	}
}

// Another attempt of a job that was granted a start waits for another, before
// those who never started, and gets a higher token.
func TestStartsAgain(t *testing.T) {
	s := Slots{Size: 1, Period: Period(time.Second), Waiters: []Claim{claim("5"), claim("7")}}
	s.serve(0)
	s.date(epoch)
	first, _ := s.holder(nonceOf(5))
	if s.enter(claim("5"), 0) {
		t.Error("the same attempt changed something")
	}
	s.enter(claim("3"), 0)
	s.enter(next("5"), 0)
	if s.serve(0); show(s) != "| 5i 3 7" {
		t.Errorf("%s", show(s))
	}
	s.expire(instant(time.Second))
	s.serve(0)
	if again, _ := s.holder(nonceOf(5)); show(s) != "5i | 3 7" || again.Fence <= first.Fence || again.Token != 2 {
		t.Errorf("%s, fence %d after %d", show(s), again.Fence, first.Fence)
	}
}

func TestBecome(t *testing.T) {
	rate := func() Slots {
		s := Slots{Size: 2, Period: Period(10 * time.Second), Waiters: []Claim{claim("1"), claim("2"), claim("3"), claim("4"), claim("5")}}
		s.serve(0)
		s.date(epoch)
		return s
	}
	for name, row := range map[string]struct {
		now    time.Time
		become func(*Slots)
		want   string
	}{
		"larger":                      {epoch, func(s *Slots) { s.become(3, 10*time.Second) }, "1 2 3 | 4 5"},
		"smaller":                     {epoch, func(s *Slots) { s.become(1, 10*time.Second) }, "1 2 | 3 4 5"},
		"nothing":                     {instant(time.Hour), func(s *Slots) { s.become(0, 10*time.Second) }, "1 2 | 3 4 5"},
		"a shorter period":            {instant(6 * time.Second), func(s *Slots) { s.become(2, 5*time.Second) }, "1 2 3 4 | 5"},
		"a longer period":             {instant(6 * time.Second), func(s *Slots) { s.become(2, time.Minute) }, "1 2 | 3 4 5"},
		"slots, which those hold":     {epoch, func(s *Slots) { s.become(3, 0) }, "1 2 3 | 4 5"},
		"and that are full":           {instant(time.Hour), func(s *Slots) { s.become(2, 0) }, "1 2 | 3 4 5"},
		"slots and a rate again":      {epoch, func(s *Slots) { s.become(2, 0); s.become(2, time.Second) }, "1 2 3 4 | 5"},
		"removed":                     {epoch, func(s *Slots) { s.Removed, s.Size = true, 0 }, "1 2 3 4 5 |"},
		"removed and there once more": {epoch, func(s *Slots) { s.Removed, s.Size = true, 0; s.become(3, 10*time.Second) }, "1 2 3 | 4 5"},
	} {
		s := rate()
		row.become(&s)
		s.expire(row.now)
		s.serve(0)
		if show(s) != row.want {
			t.Errorf("%s: %s, want %s", name, show(s), row.want)
		}
	}
	s := rate()
	s.Removed = true
	s.serve(0)
	s.date(epoch)
	if s.become(6, 10*time.Second); s.free() != 1 {
		t.Errorf("%d left of 6: what started while it was removed counts", s.free())
	}
}

// Many grants are put together: never to expire before their time, and not much
// later.
func TestLump(t *testing.T) {
	const size, period = 5000, 10 * time.Second
	r := rand.New(rand.NewPCG(1, 2))
	s := Slots{Size: size, Period: Period(period)}
	var starts []time.Duration
	now, most := time.Duration(0), 0
	for range 20_000 {
		now += time.Duration(r.Int64N(int64(4 * time.Millisecond)))
		s.expire(instant(now))
		for len(starts) > 0 && now-starts[0] >= period {
			starts = starts[1:]
		}
		if counted := s.live(); counted < len(starts) {
			t.Fatalf("at %v: %d count, %d started within %v", now, counted, len(starts), period)
		} else if kept := period * (mostGrants + 2) / mostGrants; s.Grants != nil && instant(now).Sub(s.Grants[0].At) > kept {
			t.Fatalf("at %v: one of %v is kept", now, s.Grants[0].At)
		}
		most = max(most, len(s.Grants))
		if s.free() > 0 {
			s.grant(s.nextFence(0))
			s.date(instant(now))
			starts = append(starts, now)
		}
	}
	if most > mostGrants+2 {
		t.Errorf("%d kept apart", most)
	}
	if len(starts) < size*9/10 {
		t.Errorf("%d started in the last period", len(starts))
	}
}

// writer is one of several processes that change a rate limit: it knows the
// server's time too low, by what its words took to arrive.
type writer struct{ lag time.Duration }

// TestRateModel: whoever writes, whatever the lag, no window has too much, by the
// times of the server.
func TestRateModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	granting := 0
	for range 300 {
		unstarted := make(map[job.Token]bool)
		replay := rateReplay{unstarted: func(token job.Token) bool { return unstarted[token] }}
		now, s := time.Duration(0), Slots{Removed: true}
		writers := make([]writer, 1+r.IntN(3))
		for i := range writers {
			writers[i].lag = time.Duration(r.Int64N(int64(time.Second)))
		}
		var revision, sequence uint64
		var done []string
		for range 80 {
			old := s.clone()
			now += time.Duration(r.Int64N(int64(3 * time.Second)))
			s.expire(instant(now - writers[r.IntN(len(writers))].lag))
			var what string
			switch kind := r.IntN(24); {
			case kind == 0:
				s.become(r.IntN(6), time.Duration(1+r.IntN(9))*time.Second)
				what = fmt.Sprintf("become %d per %v", s.Size, s.Period)
			case kind == 1 && r.IntN(3) == 0:
				s.become(r.IntN(4), 0)
				what = fmt.Sprintf("become %d at once", s.Size)
			case kind == 2 && r.IntN(3) == 0:
				s.Removed, s.Size = true, 0
				what = "remove"
			case kind < 6 && len(s.Holders) > 0:
				c := s.Holders[r.IntN(len(s.Holders))]
				s.leave(c.Nonce, c.Token)
				what = fmt.Sprintf("leave %d", c.Sequence)
			case kind < 9 && len(s.Holders) > 0:
				c := s.Holders[r.IntN(len(s.Holders))]
				unstarted[c.Token] = true
				s.withdraw(c.Nonce, c.Token)
				what = fmt.Sprintf("withdraw %d", c.Sequence)
			case kind < 11 && len(s.Holders) > 0:
				c := s.Holders[r.IntN(len(s.Holders))]
				revision++
				c.Token = job.Token(revision)
				s.enter(c, revision)
				what = fmt.Sprintf("again %d", c.Sequence)
			default:
				sequence++
				s.enter(Claim{Nonce: nonceOf(sequence), Sequence: sequence, Token: job.Token(1000 + sequence)}, revision)
				what = fmt.Sprintf("enter %d", sequence)
			}
			s.serve(revision)
			revision++
			done = append(done, fmt.Sprintf("%v %s", now, what))
			if err := replay.step(old, s, instant(now)); err != nil {
				t.Fatalf("%v after\n%s", err, strings.Join(done, "\n"))
			}
			if err := checkStep(old, s); err != nil {
				t.Fatalf("%v after\n%s", err, strings.Join(done, "\n"))
			}
			if s.undated() {
				granting++
			}
			s.date(instant(now))
		}
	}
	if granting < 2000 {
		t.Errorf("%d revisions granted something: the histories say little", granting)
	}
}

func TestPeriodText(t *testing.T) {
	data, err := json.Marshal(Slots{Size: 1, Period: Period(90 * time.Second)})
	if err != nil || !strings.Contains(string(data), `"period":"1m30s"`) {
		t.Errorf("%s, %v", data, err)
	}
	var read Slots
	if err := json.Unmarshal(data, &read); err != nil || read.Period != Period(90*time.Second) {
		t.Errorf("%+v, %v", read, err)
	}
}

// What a clock says has passed at the server, whatever is wrong with its rate.
func TestClock(t *testing.T) {
	local := time.Now()
	var c clock
	if !c.unset() || !c.passed(local).IsZero() {
		t.Errorf("%+v knows the time", c)
	}
	c.set(epoch, local)
	for _, passed := range []time.Duration{0, time.Microsecond, time.Second, time.Hour} {
		for _, gain := range []int64{-999, 0, 999} { // of the server's clock, parts in a million
			server := epoch.Add(passed + passed*time.Duration(gain)/1_000_000)
			knows := c.passed(local.Add(passed))
			if knows.After(server) {
				t.Errorf("after %v, at %d: %v, where it is %v", passed, gain, knows, server)
			}
			if late := server.Sub(knows); late > 2*c.slack(local.Add(passed))+time.Nanosecond {
				t.Errorf("after %v, at %d: %v behind", passed, gain, late)
			}
		}
	}
	// A clock that was set back is believed.
	if c.set(epoch.Add(-time.Hour), local); !c.passed(local).Equal(epoch.Add(-time.Hour)) {
		t.Errorf("%v", c.passed(local))
	}
}
