package quotas

import (
	"testing"
	"time"
)

func TestLeave(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		seats := p.crowd(1, 4, "gpu")
		wantIn(t, seats, 1)
		// A waiter, one who waits in the process only, and a holder, who gives its slot on.
		leave(t, seats[1], seats[3])
		w.wantLine("gpu", "1 | 3")
		leave(t, seats[0])
		wantIn(t, seats[2:3], 3)
		w.wantLine("gpu", "3 |")
		leave(t, seats[2])
		for _, s := range seats {
			if closed(s.Lost()) || !closed(s.Leave()) {
				t.Errorf("job %d: lost %t; to leave once more is no different", s.entry.Sequence, closed(s.Lost()))
			}
		}
		// One who leaves before it has entered.
		leave(t, p.enter(5, "gpu"))
		p.wire.Freeze()
		early := p.enter(6, "gpu")
		settle()
		left := early.Leave()
		settle()
		if closed(left) {
			t.Error("left while it is not known whether it stands")
		}
		p.wire.Thaw()
		soon(t, "left", left)
		w.wantLine("gpu", "|")
		w.check()
	})
}

// Slots that are abandoned stay written, whatever the process does.
func TestAbandon(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		seats := p.crowd(1, 3, "gpu")
		wantIn(t, seats, 1)
		seats[0].Abandon()
		seats[1].Abandon()
		time.Sleep(10 * ackWait)
		wantIn(t, seats, 1)
		w.wantLine("gpu", "1 | 2 3")
		select {
		case <-seats[0].Leave():
			t.Error("one who has abandoned its slot gave it back")
		case <-time.After(time.Minute):
		}
		w.wantLine("gpu", "1 | 2 3")
		if closed(seats[0].Lost()) {
			t.Error("abandoned, and lost as well")
		}
	})
}

// A new attempt takes over the slot of the one before it, whose ticket is lost
// and does nothing any more.
func TestInheritSlot(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		one, waiter := p.enter(1, "gpu"), p.enter(2, "gpu")
		wantIn(t, []*seat{one, waiter}, 1)
		again := q.again(one)
		wantIn(t, []*seat{again, waiter}, 1)
		soon(t, "the old attempt is lost", one.Lost())
		w.wantLine("gpu", "1i | 2")
		if old, now := one.Fences()["gpu"], again.Fences()["gpu"]; now <= old {
			t.Errorf("fence %d, of the attempt before it %d", now, old)
		}
		leave(t, one) // it has nothing to give back
		time.Sleep(ackWait)
		w.wantLine("gpu", "1i | 2")
		if closed(again.Lost()) || closed(waiter.Granted()) {
			t.Error("the new attempt lost the slot")
		}
		leave(t, again)
		wantIn(t, []*seat{waiter}, 2)
		w.check()
	})
}

// A claim says since when its job waits and then, since when it has the slot,
// whichever attempt has it.
func TestSince(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		begun := time.Now()
		since := func(name string, sequence uint64, want time.Duration) {
			t.Helper()
			settle()
			now := w.now("gpu")
			c, holds := now.holder(nonceOf(sequence))
			if !holds {
				c, _ = now.waiter(nonceOf(sequence))
			}
			if got := c.Since.Sub(begun); got < want || got > want+time.Second {
				t.Errorf("%s: since %v, want %v", name, got, want)
			}
		}
		one := p.enter(1, "gpu")
		time.Sleep(time.Minute)
		two := p.enter(2, "gpu")
		since("has it", 1, 0)
		since("waits", 2, time.Minute)
		time.Sleep(time.Minute)
		one, two = q.again(one), q.again(two)
		since("has it, another attempt", 1, 0)
		since("waits, another attempt", 2, time.Minute)
		time.Sleep(time.Minute)
		leave(t, one)
		since("was let in", 2, 3*time.Minute)
		if closed(two.Lost()) {
			t.Error("lost")
		}
	})
}

func TestInheritPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		seats := p.crowd(1, 3, "gpu")
		wantIn(t, seats, 1)
		again := q.enterAs(seats[1].entry) // it was not interrupted: it has the old place
		wantIn(t, []*seat{again})
		soon(t, "the old attempt is lost", seats[1].Lost())
		w.wantLine("gpu", "1 | 2 3")
		leave(t, seats[0])
		wantIn(t, []*seat{again, seats[2]}, 2)
		if closed(seats[1].Granted()) {
			t.Error("the old attempt was let in")
		}
		time.Sleep(ackWait)
		w.wantLine("gpu", "2 | 3")
		leave(t, again)
		w.wantLine("gpu", "3 |")
		w.check()
	})
}

// Two attempts of one job do not take the slot from each other again and again.
func TestInheritIsFinal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		processes := []*process{w.start(), w.start(), w.start()}
		last := processes[0].enter(1, "gpu")
		wantIn(t, []*seat{last}, 1)
		for i := range 6 {
			last = processes[i%3].again(last)
			wantIn(t, []*seat{last}, 1)
		}
		before := w.stream().CachedInfo().State.LastSeq
		time.Sleep(10 * ackWait)
		if now := w.stream().CachedInfo().State.LastSeq; now != before || closed(last.Lost()) {
			t.Errorf("%d writes later, the last attempt is lost: %t", now-before, closed(last.Lost()))
		}
		w.check()
	})
}

// Whoever is let in before it hears that its lease is gone has lost it all the
// same when the next attempt enters.
func TestInheritFromTheDead(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		seats := p.crowd(1, 2, "gpu")
		wantIn(t, seats, 1)
		other := q.enter(3, "gpu")
		settle()
		p.die()
		p.wire.Cut()
		settle()
		again := q.again(seats[0])
		wantIn(t, []*seat{again, other}, 1)
		leave(t, again)
		w.wantLine("gpu", "2 | 3") // a dead waiter's slot is its job's
		again = q.again(seats[1])
		wantIn(t, []*seat{again, other}, 2)
		leave(t, again)
		wantIn(t, []*seat{other}, 3)
		w.check()
	})
}

// An attempt whose lease is not held asks for nothing, and has nothing taken
// from others.
func TestLeaseNotHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu", "db")
		p, q := w.start(), w.start()
		settle()
		late := []*seat{p.enterHeld(entryOf(1, "gpu"), false), p.enterHeld(entryOf(2, "db", "gpu"), false)}
		settle()
		w.wantLine("gpu", "|")
		w.wantLine("db", "|")
		// Another attempt has it: the old one does not come back.
		again := q.again(late[0])
		wantIn(t, []*seat{again}, 1)
		time.Sleep(ackWait)
		wantIn(t, []*seat{again}, 1)
		for _, s := range late {
			if closed(s.Granted()) {
				t.Errorf("job %d was let in", s.entry.Sequence)
			}
			leave(t, s)
		}
		leave(t, again)
		w.check()
	})
}

func TestExpel(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu", "db")
		p, q := w.start(), w.start()
		seats := p.crowd(1, 3, "db", "gpu")
		wantIn(t, seats, 1)
		waiter := q.enter(4, "gpu")
		settle()
		p.die()
		// A holder, a waiter, a stranger, and one of another quota.
		soon(t, "a holder", q.Expel(nonceOf(1), []string{"db", "gpu"}))
		w.wantLine("db", "| 2s 3s")
		soon(t, "a waiter", q.Expel(nonceOf(2), []string{"db", "gpu"}))
		w.wantLine("db", "| 3s")
		soon(t, "a stranger", q.Expel(nonceOf(99), []string{"db", "gpu"}))
		soon(t, "in a quota that does not exist", q.Expel(nonceOf(3), []string{"none"}))
		wantIn(t, []*seat{waiter}, 4)
		w.wantLine("gpu", "4 | 3s+1")
		w.check()
	})
}

// Expel does not rely on what was heard: a claim that is newer is expelled too.
func TestExpelIsSure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		settle()
		q.wire.Freeze()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		done := q.Expel(nonceOf(1), []string{"gpu"})
		settle()
		if closed(done) {
			t.Fatal("expelled unseen")
		}
		q.wire.Thaw()
		soon(t, "expelled", done)
		w.wantLine("gpu", "|")
		soon(t, "the attempt that had the slot", one.Lost())
	})
}

// Whoever expels while its gate is writing waits for no more than that and a
// reading, though the answer to the write says how the quota stood.
func TestExpelDuringWrite(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(2, "gpu")
		p := w.start()
		first := p.enter(1, "gpu")
		wantIn(t, []*seat{first}, 1)
		p.wire.Freeze()
		second := p.enter(2, "gpu")
		settle()
		done := p.Expel(nonceOf(99), []string{"gpu"})
		settle()
		p.wire.Thaw()
		wantIn(t, []*seat{second}, 2)
		soon(t, "expelled", done)
		w.wantLine("gpu", "1 2 |")
	})
}

// Whoever expels is not kept waiting by others who come to expel, one after the other,
// while the quota is being read.
func TestExpelDuringReading(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		stranger, holder := q.Expel(nonceOf(99), []string{"gpu"}), q.Expel(nonceOf(1), []string{"gpu"})
		for n := range uint64(10) {
			q.work.Do(func() {
				settle() // what was under way is answered, and waits for this to end
				q.Expel(nonceOf(100+n), []string{"gpu"})
			})
		}
		if !closed(stranger) || !closed(holder) {
			t.Errorf("expelled: a stranger %t, a holder %t", closed(stranger), closed(holder))
		}
		w.wantLine("gpu", "|")
	})
}
