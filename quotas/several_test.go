package quotas

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// A job that names several quotas has slots in all of them at once, or none.
func TestAllOrNone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b", "c")
		p, q := w.start(), w.start()
		one := p.enter(1, "b")
		settle()
		three := q.enter(2, "a", "b", "c")
		wantIn(t, []*seat{one, three}, 1)
		w.wantLine("a", "| 2s")
		w.wantLine("b", "1 | 2s")
		// While it waits its slots are others'.
		other := p.enter(3, "a")
		wantIn(t, []*seat{other}, 3)
		leave(t, one)
		wantIn(t, []*seat{three})
		leave(t, other)
		time.Sleep(ackWait)
		wantIn(t, []*seat{three}, 2)
		late := p.crowd(4, 5, "c")
		wantIn(t, late)
		leave(t, three)
		wantIn(t, late, 4)
		w.wantLine("a", "|")
		w.check()
	})
}

// Free slots in all its quotas are had by a single write, without waiting.
func TestSeveralAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(5, "a", "b")
		p := w.start()
		zero := p.enter(0, "a", "b") // which makes it the keeper
		wantIn(t, []*seat{zero}, 0)
		leave(t, zero)
		before := w.stream().CachedInfo().State.LastSeq
		one := p.enter(1, "a", "b")
		wantIn(t, []*seat{one}, 1)
		if n := w.stream().CachedInfo().State.LastSeq - before; n != 2 {
			t.Errorf("%d messages, want one for each quota", n)
		}
		wantIn(t, p.crowd(2, 7, "a", "b"), 2, 3, 4, 5)
		w.wantLine("a", "1s 2s 3s 4s 5s | 6s 7s")
		w.check()
	})
}

// One whose lease is lost while it waits is not let in, and does not keep others
// out.
func TestSeveralLoseTheirLease(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		p := w.start()
		one := p.enter(1, "a")
		settle()
		both, other := p.enter(2, "a", "b"), p.enter(3, "a")
		wantIn(t, []*seat{one, both, other}, 1)
		both.held.Store(false)
		leave(t, one)
		wantIn(t, []*seat{both, other}, 3)
		leave(t, other)
		time.Sleep(ackWait)
		wantIn(t, []*seat{both, other}, 3)
		w.wantLine("b", "| 2s")
		again := w.start().again(both)
		time.Sleep(ackWait)
		wantIn(t, []*seat{again}, 2)
		w.check()
	})
}

// A removed quota holds up nobody who needs another as well; nor does one that
// does not exist.
func TestSeveralAndRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		p := w.start()
		seats := p.crowd(1, 4, "a", "b", "none")
		wantIn(t, seats, 1)
		if err := w.set.Remove(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		wantIn(t, seats, 1)
		w.wantLine("a", "1s | 2s 3s 4s") // all or none, also here
		w.wantLine("b", "1s | 2s 3s 4s")
		leave(t, seats[0])
		wantIn(t, seats[1:], 2)
		if err := w.set.Remove(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		wantIn(t, seats[1:], 2, 3, 4)
		leave(t, seats...)
		w.wantLine("a", "|")
		w.wantLine("none", "|")
		w.check()
	})
}

func TestSeveralLeave(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		p, q := w.start(), w.start()
		seats := p.crowd(1, 2, "a", "b")
		wantIn(t, seats, 1)
		leave(t, seats[1])
		w.wantLine("a", "1s |")
		w.wantLine("b", "1s |")
		again := q.again(seats[0])
		wantIn(t, []*seat{again}, 1)
		soon(t, "the old attempt is lost", seats[0].Lost())
		leave(t, seats[0])
		w.wantLine("b", "1is |")
		leave(t, again)
		wantIn(t, p.crowd(3, 3, "a", "b"), 3)
		w.check()
	})
}

// Jobs that want the same quotas, named in whatever order, all get through,
// beside others that want one.
func TestNoDeadlock(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		w.limit(2, "c")
		processes := []*process{w.start(), w.start(), w.start()}
		wants := [][]string{{"a", "b"}, {"b", "a"}, {"a", "b", "c"}, {"c", "b"}, {"c", "a"}, {"a"}, {"b"}, {"c"}}
		var all sync.WaitGroup
		for i := range 45 {
			s := processes[i%3].enter(uint64(i+1), wants[rand.IntN(len(wants))]...)
			stay := time.Duration(rand.IntN(3)) * time.Second
			all.Go(func() { s.turn(t, 10*time.Hour, func() { time.Sleep(stay) }) })
		}
		all.Wait()
		for _, name := range []string{"a", "b", "c"} {
			w.wantLine(name, "|")
		}
		w.check()
	})
}

// traffic has single jobs come to a quota without end: always one that has the
// slot, for a time, and one that waits for it.
func (w *world) traffic(p *process, name string, first uint64, stay time.Duration, stop <-chan struct{}) {
	now, next := p.enter(first, name), p.enter(first+1, name)
	go func() {
		for sequence := first + 2; !closed(stop); sequence++ {
			<-now.Granted()
			time.Sleep(stay)
			<-now.Leave()
			now, next = next, p.enter(sequence, name)
		}
		<-now.Granted()
		<-now.Leave()
		<-next.Granted()
		<-next.Leave()
	}()
}

// However many others keep coming, one that needs several slots is let in: they
// are kept free for it, in the first quota when others have passed it a number
// of times in any, and in the second when it could have the first.
func TestPatience(t *testing.T) {
	for _, row := range []struct{ a, b time.Duration }{
		{time.Second, 1100 * time.Millisecond}, {1300 * time.Millisecond, time.Second}, {time.Second, 7 * time.Second}, {7 * time.Second, time.Second},
	} {
		t.Run(fmt.Sprint(row.a, " and ", row.b), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "a", "b")
				p := w.start()
				stop := make(chan struct{})
				w.traffic(p, "a", 1000, row.a, stop)
				w.traffic(p, "b", 2000, row.b, stop)
				settle()
				both := p.enter(1, "a", "b")
				select {
				case <-both.Granted():
				case <-time.After(time.Hour):
					t.Error("starved")
				}
				close(stop)
				leave(t, both)
				time.Sleep(time.Minute)
				passed := map[string]int{}
				for _, r := range w.check() {
					if c, waits := r.slots.waiter(both.entry.Nonce); waits {
						passed[r.name] = c.Passed
					}
				}
				// Meanwhile the first one's holder has to end.
				if a, b := passed["a"], passed["b"]; max(a, b) < patience || a > patience+1 || b > patience+2+int(row.a/row.b) {
					t.Errorf("passed %v", passed)
				}
			})
		})
	}
}

// Slots are kept free in one quota after the other, so that a slot stands idle
// only for those that follow. One which there are none of idles nothing.
func TestNoSlotsInTheFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(0, "a")
		w.limit(1, "b")
		p := w.start()
		both := p.enter(1, "a", "b")
		singles := p.crowd(2, 40, "b")
		for _, s := range singles {
			soon(t, fmt.Sprintf("job %d", s.entry.Sequence), s.Granted())
			leave(t, s)
		}
		if closed(both.Granted()) {
			t.Error("let in by a quota of size 0")
		}
		w.limit(1, "a")
		wantIn(t, []*seat{both}, 1)
		w.check()
	})
}

// When eight have passed one that needs several slots, the next that is free is
// kept for it, and goes on when it has had its turn. It makes no difference whether
// its gate is the keeper.
func TestReservation(t *testing.T) {
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprint("at the keeper: ", same), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "a", "b")
				p, q := w.start(), w.start()
				keeper, holder := p.enter(100, "a"), p.enter(1, "b")
				settle()
				leave(t, keeper)
				at := p
				if !same {
					at = q
				}
				first := at.enter(2, "a", "b")
				settle()
				second := q.enter(3, "a", "b")
				settle()
				singles := p.crowd(4, 30, "a")
				served := 0
				for settle(); served < len(singles) && closed(singles[served].Granted()); served++ {
					leave(t, singles[served])
					settle()
				}
				// The ninth may be let in while it is learned that eight have passed.
				if served < patience || served > patience+1 {
					t.Errorf("%d passed, want %d", served, patience)
				}
				if c, _ := w.now("a").waiter(first.entry.Nonce); !c.Reserves {
					t.Errorf("no slot is kept free: %s", show(w.now("a")))
				}
				leave(t, holder)
				wantIn(t, []*seat{first, second}, 2)
				leave(t, first)
				settle()
				// Then all others are, in some order: the second was passed as well.
				var others sync.WaitGroup
				for _, s := range append(singles[served:], second) {
					others.Go(func() { s.turn(t, time.Hour, func() {}) })
				}
				others.Wait()
				w.check()
			})
		})
	}
}
