package quotas

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"
)

// keepers lists the keepers of a quota in order, each with its term.
func (w *world) keepers(name string) []string {
	w.t.Helper()
	var all []string
	for _, r := range w.check() {
		if now := fmt.Sprint(r.slots.Keeper, " ", r.slots.Term); r.name == name && r.slots.Keeper != "" && !slices.Contains(all, now) {
			all = append(all, now)
		}
	}
	return all
}

// However many processes use a quota, one writes, and each is served as if it
// wrote itself.
func TestOneWrites(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(2, "gpu")
		p, q, r := w.start(), w.start(), w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		seats := []*seat{one}
		for sequence := uint64(2); sequence <= 9; sequence += 2 {
			seats = append(seats, q.enter(sequence, "gpu"))
			settle()
			seats = append(seats, r.enter(sequence+1, "gpu"))
			settle()
		}
		wantIn(t, seats, 1, 2)
		for _, s := range seats {
			soon(t, fmt.Sprintf("job %d", s.entry.Sequence), s.Granted())
			leave(t, s)
		}
		if got := w.keepers("gpu"); len(got) != 1 {
			t.Errorf("kept by %q", got)
		}
	})
}

// What all processes want at one time costs a few writes together.
func TestCombiningForAll(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const each = 50
		w.limit(3*each+1, "gpu")
		processes := []*process{w.start(), w.start(), w.start()}
		wantIn(t, []*seat{processes[0].enter(1000, "gpu")}, 1000)
		before := w.stream().CachedInfo().State.LastSeq
		var seats []*seat
		var mu sync.Mutex
		var entering sync.WaitGroup
		for i, p := range processes {
			entering.Go(func() {
				ours := p.crowd(uint64(i*each+1), uint64(i*each+each), "gpu")
				mu.Lock()
				defer mu.Unlock()
				seats = append(seats, ours...)
			})
		}
		entering.Wait()
		settle()
		for _, s := range seats {
			if !closed(s.Granted()) {
				t.Fatalf("job %d waits", s.entry.Sequence)
			}
			s.Leave()
		}
		settle()
		if n := w.stream().CachedInfo().State.LastSeq - before; n > 30 {
			t.Errorf("%d entries and exits took %d writes", 3*each, n)
		}
		w.wantLine("gpu", "1000 |")
		if got := w.keepers("gpu"); len(got) != 1 {
			t.Errorf("kept by %q", got)
		}
	})
}

// A keeper that has died is replaced at once, one that is silent after a moment.
func TestKeeperIsReplaced(t *testing.T) {
	for name, row := range map[string]struct {
		end    func(*process)
		within time.Duration
	}{
		"it stopped":                   {func(p *process) { p.die() }, 0},
		"it died":                      {func(p *process) { p.wire.Cut() }, 0},
		"it is silent":                 {func(p *process) { p.wire.Freeze() }, keeperPatience},
		"it is not connected any more": {func(p *process) { p.conn.Close() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(2, "gpu")
				p, q, r := w.start(), w.start(), w.start()
				wantIn(t, []*seat{p.enter(1, "gpu")}, 1)
				row.end(p)
				settle()
				begin := time.Now()
				two := q.enter(2, "gpu")
				<-two.Granted()
				if took := time.Since(begin); took > row.within {
					t.Errorf("after %v, want %v", took, row.within)
				}
				// Everybody knows the new one.
				three := r.enter(3, "gpu")
				settle()
				w.wantLine("gpu", "1 2 | 3")
				if got := w.keepers("gpu"); len(got) != 2 || w.now("gpu").Keeper != q.name {
					t.Errorf("kept by %q", got)
				}
				leave(t, two)
				wantIn(t, []*seat{three}, 3)
			})
		})
	}
}

// A keeper that was taken for silent, and is not, does nothing for those who
// gave up on it.
func TestReplacedKeeperComesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		p.wire.Freeze()
		two := q.enter(2, "gpu")
		time.Sleep(time.Second)
		w.wantLine("gpu", "1 | 2")
		leave(t, two) // and the first request may come yet
		left := one.Leave()
		three := p.enter(3, "gpu")
		settle()
		p.wire.Thaw()
		soon(t, "the replaced one's own job leaves", left)
		wantIn(t, []*seat{three}, 3)
		time.Sleep(10 * ackWait)
		w.wantLine("gpu", "3 |")
		w.check()
	})
}

// One who leaves before its request is answered has left when that one was, and
// what it asked for was undone.
func TestLeaveWhileAsking(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		wantIn(t, []*seat{p.enter(1, "gpu")}, 1)
		p.wire.Freeze()
		two := q.enter(2, "gpu")
		settle()
		left := two.Leave()
		settle()
		if closed(left) {
			t.Error("left while its request is on its way")
		}
		p.wire.Thaw() // before anybody has lost patience
		soon(t, "left", left)
		time.Sleep(10 * ackWait)
		w.wantLine("gpu", "1 |")
		if got := w.keepers("gpu"); len(got) != 1 {
			t.Errorf("kept by %q", got)
		}
	})
}

// Nobody is let in by what the keeper means to write: here it is refused, for the
// size was changed behind its back.
func TestGrantedWhenWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		leave(t, one)
		now := w.now("gpu")
		now.Size = 0
		data, err := codec.Encode(now)
		if err != nil {
			t.Fatal(err)
		}
		w.put("gpu", data)
		wantIn(t, []*seat{q.enter(2, "gpu")})
		w.wantLine("gpu", "| 2")
		w.check()
	})
}

// ask sends a request to a process as another would, and returns the answer.
func (w *world) ask(p *process, r request) (answer news, answered bool) {
	w.t.Helper()
	data, err := msgpack.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	msg, err := w.js.Conn().Request(subject+"."+p.name, data, time.Second)
	if err != nil {
		return news{}, false
	}
	if err := msgpack.Unmarshal(msg.Data, &answer); err != nil {
		w.t.Fatal(err)
	}
	return answer, true
}

// A request is carried out by the keeper, in its term, and refused otherwise.
func TestRequestsAreOfATerm(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(5, "gpu", "db")
		p, q := w.start(), w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		term := w.now("gpu").Term
		c := claim("7")
		c.Dispatcher = "stranger"
		enter := request{Quota: "gpu", Term: term, From: "stranger", Ops: []op{{Kind: opEnter, Claim: c}}}
		for name, row := range map[string]struct {
			process *process
			change  func(*request)
		}{
			"a term that is over":       {p, func(r *request) { r.Term-- }},
			"a term that is to come":    {p, func(r *request) { r.Term++ }},
			"of another process":        {q, func(*request) {}},
			"a quota that nobody keeps": {p, func(r *request) { r.Quota = "db" }},
			"a quota that is missing":   {p, func(r *request) { r.Quota = "none" }},
		} {
			r := enter
			row.change(&r)
			if answer, answered := w.ask(row.process, r); !answered || answer.Revision != 0 {
				t.Errorf("%s: %+v, %t; want a refusal", name, answer, answered)
			}
		}
		w.wantLine("gpu", "1 |")
		answer, answered := w.ask(p, enter)
		now, err := codec.Decode(answer.Value)
		if !answered || err != nil || show(now) != "1 7 |" || answer.Quota != "gpu" {
			t.Fatalf("carried out: %s, %+v, %v", show(now), answer, err)
		}
		if diff := cmp.Diff(w.now("gpu"), now); diff != "" {
			t.Errorf("answered before it was written (-written +answered):\n%s", diff)
		}
		// Once more changes nothing, and is answered.
		if again, answered := w.ask(p, enter); !answered || again.Revision != answer.Revision {
			t.Errorf("once more: %+v, %t", again, answered)
		}
		leaving := request{Quota: "gpu", Term: term, From: "stranger", Ops: []op{{Kind: opLeave, Claim: Claim{Nonce: c.Nonce, Token: 9}}, {Kind: opExpel, Claim: Claim{Nonce: nonceOf(1)}}, {Kind: "dance", Claim: c}}}
		w.ask(p, leaving)
		w.wantLine("gpu", "7 |")
		soon(t, "the keeper's own job is lost", one.Lost())
		w.check()
	})
}

// What a process asked for that died since may come late: when its job is over,
// no slot is claimed for it.
func TestRequestComesWhenItsJobIsOver(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q, r := w.start(), w.start(), w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		q.wire.Freeze()
		two := q.enter(2, "gpu")
		synctest.Wait()
		q.die()
		again := r.again(two)
		settle()
		w.wantLine("gpu", "1 | 2i")
		leave(t, one)
		wantIn(t, []*seat{again}, 2)
		leave(t, again)
		q.wire.Thaw()
		settle()
		w.wantLine("gpu", "|")
	})
}

// What is no request, or no news, is ignored.
func TestStrayMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		old, err := msgpack.Marshal(news{Quota: "gpu", Revision: 1, Value: []byte("rubbish")})
		if err != nil {
			t.Fatal(err)
		}
		nc := w.js.Conn()
		for _, to := range []string{subject, subject + "." + p.name, p.inbox + ".1", p.inbox + ".x"} {
			for _, data := range [][]byte{nil, []byte("rubbish"), []byte(`{"quota":"gpu"}`), old} {
				if err := nc.Publish(to, data); err != nil {
					t.Fatal(err)
				}
				if err := nc.PublishRequest(to, "nobody", data); err != nil {
					t.Fatal(err)
				}
			}
		}
		settle()
		two := p.enter(2, "gpu")
		settle()
		w.wantLine("gpu", "1 | 2")
		leave(t, one)
		wantIn(t, []*seat{two}, 2)
		if log := p.logged(); log != "" {
			t.Errorf("logged %q", log)
		}
	})
}

// Whoever was away when it was let in finds out by reading: at once where it is
// told that it was away, else within an ack wait.
func TestLostNews(t *testing.T) {
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("told %t", told), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "gpu")
				p, q := w.start(), w.start()
				one := p.enter(1, "gpu")
				settle()
				two := q.enter(2, "gpu")
				settle()
				q.wire.Cut()
				leave(t, one)
				w.wantLine("gpu", "2 |")
				q.wire.Restore()
				time.Sleep(time.Second)
				if closed(two.Granted()) {
					t.Fatal("it was not away")
				}
				if told {
					q.Reset()
				} else {
					time.Sleep(ackWait)
				}
				wantIn(t, []*seat{two}, 2)
			})
		})
	}
}

// A slot that is handed over by a write whose answer is lost is told of when it is
// known that it was written, be it read or refused when it is repeated.
func TestNewsOfAWriteWithoutAnswer(t *testing.T) {
	for _, read := range []bool{true, false} {
		t.Run(fmt.Sprintf("read %t", read), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "gpu")
				p, q := w.start(), w.start()
				one := p.enter(1, "gpu")
				settle()
				two := q.enter(2, "gpu")
				wantIn(t, []*seat{one, two}, 1)
				time.Sleep(ackWait / 3) // q has just read how it stands
				p.wire.Freeze()
				left := one.Leave()
				time.Sleep(tryPatience + tryPause/2)
				p.wire.Thaw()
				if !read { // as if a reading had shown what was before
					p.work.Do(func() { p.line("gpu").busy, p.line("gpu").dirty = false, true })
				}
				soon(t, "the slot is handed over", two.Granted())
				soon(t, "left", left)
				w.wantLine("gpu", "2 |")
				w.check()
			})
		})
	}
}

// A keeper that was not told of a change reads it when it is asked for what rests
// on that.
func TestKeeperIsBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		one.Abandon()
		two := q.enter(2, "gpu")
		settle()
		now := w.now("gpu")
		now.Size = 2
		data, err := codec.Encode(now)
		if err != nil {
			t.Fatal(err)
		}
		w.put("gpu", data)
		asked, err := w.js.Conn().SubscribeSync(subject + "." + p.name)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(ackWait / 3)
		wantIn(t, []*seat{two}, 2)
		if n, _, err := asked.Pending(); err != nil || n != 1 {
			t.Errorf("asked %d times, %v", n, err)
		}
		if now := w.now("gpu"); now.Keeper != p.name {
			t.Errorf("kept by %s", now.Keeper)
		}
	})
}

// All are told of a size that changes.
func TestNewsOfSizes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		processes := []*process{w.start(), w.start()}
		settle()
		for _, p := range processes {
			p.told()
		}
		w.limit(2, "gpu")
		if err := w.set.Remove(t.Context(), "gpu"); err != nil {
			t.Fatal(err)
		}
		settle()
		for _, p := range processes {
			if got := p.told(); !slices.Equal(got, []string{"gpu 2", "gpu -1"}) {
				t.Errorf("told %q", got)
			}
		}
	})
}

// Those are told of a write whose claims it has changed.
func TestConcerned(t *testing.T) {
	line := func(text string, token func(*Claim)) Slots {
		s := slots(3, text)
		for _, claims := range [][]Claim{s.Holders, s.Waiters} {
			for i := range claims {
				claims[i].Dispatcher = fmt.Sprint("d", claims[i].Sequence)
				if token != nil {
					token(&claims[i])
				}
			}
		}
		return s
	}
	renewed := func(c *Claim) {
		if c.Sequence == 2 {
			c.Token, c.Dispatcher = 2, "new"
		}
	}
	for name, row := range map[string]struct {
		was, now Slots
		want     []string
	}{
		"nothing":                      {line("1 | 2", nil), line("1 | 2", nil), nil},
		"one was let in":               {line("1 | 2 3", nil), line("1 2 | 3", nil), []string{"d2"}},
		"one has left":                 {line("1 2 | 3", nil), line("1 | 3", nil), []string{"d2"}},
		"one has left, one was let in": {line("1 | 2 3", nil), line("2 | 3", nil), []string{"d1", "d2"}},
		"one waits":                    {line("1 |", nil), line("1 | 2", nil), nil},
		"one waits no more":            {line("1 | 2", nil), line("1 |", nil), []string{"d2"}},
		"one has been passed":          {line("1 | 2s+6 3", nil), line("3 | 2s+7", nil), []string{"d1", "d3"}},
		"one has been passed by eight": {line("1 | 2s+7 3", nil), line("3 | 2s+8", nil), []string{"d1", "d2", "d3"}},
		"one is passed once more":      {line("1 | 2s+8 3", nil), line("3 | 2s+9", nil), []string{"d1", "d3"}},
		"a slot was taken over":        {line("1 2 |", nil), line("1 2 |", renewed), []string{"d2", "new"}},
		"a place was taken over":       {line("1 | 2", nil), line("1 | 2", renewed), []string{"d2"}},
	} {
		got := slices.Sorted(maps.Keys(changed(row.was, row.now)))
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
