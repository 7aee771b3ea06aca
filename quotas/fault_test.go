package quotas

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

// A value that cannot be read lets nobody in, is reported once, and is waited
// for.
func TestUnreadable(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(2, "gpu", "db")
		p := w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		good := w.now("gpu")
		w.put("gpu", []byte("rubbish"))
		two, both := p.enter(2, "gpu"), p.enter(3, "db", "gpu")
		soon(t, "it is known that it waits", two.Known())
		time.Sleep(10 * ackWait)
		w.put("gpu", []byte("more rubbish"))
		time.Sleep(10 * ackWait)
		if closed(two.Granted()) || closed(both.Granted()) || closed(one.Lost()) {
			t.Errorf("let in %t, %t; lost %t", closed(two.Granted()), closed(both.Granted()), closed(one.Lost()))
		}
		if log := p.logged(); strings.Count(log, "\n") != 1 || !strings.Contains(log, `level=ERROR msg="quota cannot be used, its jobs wait" queue=media quota=gpu`) {
			t.Errorf("logged %q, want one error", log)
		}
		other := p.enter(4, "db")
		wantIn(t, []*seat{other}, 4)
		leave(t, other)
		data, err := codec.Encode(good)
		if err != nil {
			t.Fatal(err)
		}
		w.put("gpu", data)
		time.Sleep(loadEvery)
		wantIn(t, []*seat{one, two}, 1, 2)
		leave(t, one)
		wantIn(t, []*seat{both}, 3)
		leave(t, two, both)
		// It may be spoiled when a gate starts, and be mended by a purge, of which
		// nobody is told.
		w.put("gpu", []byte("rubbish"))
		q := w.start()
		late := q.enter(5, "gpu")
		settle()
		if closed(late.Granted()) || !strings.Contains(q.logged(), "quota cannot be used") {
			t.Error("let in")
		}
		w.purge("gpu")
		time.Sleep(ackWait)
		wantIn(t, []*seat{late}, 5)
	})
}

// delete deletes a quota's value as an administrator would.
func (w *world) delete(name string) {
	w.t.Helper()
	store, err := w.js.KeyValue(w.t.Context(), bucketName)
	if err == nil {
		err = store.Delete(w.t.Context(), w.set.key(name))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) purge(name string) {
	w.t.Helper()
	if err := kv.PurgeAll(w.t.Context(), w.js, bucketName, w.set.key(name)); err != nil {
		w.t.Fatal(err)
	}
}

// Where the value is lost, its jobs go on, are written down again, and nothing
// blocks.
func TestLostValue(t *testing.T) {
	for what, lose := range map[string]func(*world, string){"deleted": (*world).delete, "purged": (*world).purge} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(2, "gpu")
				p := w.start()
				seats := p.crowd(1, 4, "gpu")
				wantIn(t, seats, 1, 2)
				lose(w, "gpu")
				time.Sleep(ackWait)
				wantIn(t, seats, 1, 2, 3, 4) // there is no limit now
				w.wantLine("gpu", "1 2 3 4 |")
				leave(t, seats[3])
				// They count when there is one again.
				w.limit(2, "gpu")
				late := p.enter(5, "gpu")
				wantIn(t, []*seat{late})
				leave(t, seats[0], seats[1])
				wantIn(t, []*seat{late}, 5)
				for _, s := range seats {
					if closed(s.Lost()) {
						t.Errorf("job %d was lost", s.entry.Sequence)
					}
				}
				w.check()
			})
		})
	}
}

// Where one value of several is lost, who has slots in all counts as before.
func TestLostValueOfSeveral(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		p := w.start()
		one := p.enter(1, "a", "b")
		wantIn(t, []*seat{one}, 1)
		w.delete("a")
		time.Sleep(ackWait)
		w.wantLine("a", "1 |")
		w.limit(1, "a")
		two := p.enter(2, "a")
		wantIn(t, []*seat{one, two}, 1)
		w.wantLine("a", "1 | 2")
		if closed(one.Lost()) {
			t.Error("lost")
		}
		leave(t, one)
		wantIn(t, []*seat{two}, 2)
	})
}

// A quota that is created while a gate finds that there is none is not taken for
// missing when word of it comes first.
func TestCreatedDuringReading(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start()
		settle()
		p.work.Do(func() {
			p.read(p.line("gpu"))
			settle() // the answer is here, and waits for this to end
			p.told()
			w.limit(1, "gpu")
			now, revision, _, err := w.set.read(t.Context(), "gpu")
			if err != nil {
				t.Fatal(err)
			}
			p.learn(p.line("gpu"), now, revision)
		})
		settle()
		if got := p.told(); !slices.Equal(got, []string{"gpu 1"}) {
			t.Errorf("told %q", got)
		}
	})
}

// restore makes the bucket anew, with an older value of a quota.
func (w *world) restore(name string, older Slots) {
	w.t.Helper()
	err := w.js.DeleteKeyValue(w.t.Context(), bucketName)
	if err == nil {
		err = kv.Make(w.t.Context(), w.js, kv.Config{Bucket: bucketName, Atomic: true})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := codec.Encode(older)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(name, data)
}

// Where the bucket went back, what it has is used when that has lasted, and whoever
// has no slot in it has lost it. Until then nobody is let in, and the server is left
// in peace.
func TestBucketGoesBack(t *testing.T) {
	for what, when := range map[string]int{"before it was used": 0, "before the slot was given": 1} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "gpu")
				older := []Slots{w.now("gpu")}
				p, q := w.start(), w.start()
				one := p.enter(1, "gpu")
				settle()
				two := p.enter(2, "gpu")
				settle()
				older = append(older, w.now("gpu"))
				leave(t, one)
				three := p.enter(3, "gpu")
				wantIn(t, []*seat{two, three}, 2)
				w.restore("gpu", older[when])
				sent := p.conn.Stats().OutMsgs
				four := q.enter(4, "gpu")
				time.Sleep(ackWait - time.Second)
				if closed(two.Lost()) || closed(three.Granted()) || closed(four.Granted()) {
					t.Error("an older value was used at once")
				}
				if n := p.conn.Stats().OutMsgs - sent; n > uint64(2*ackWait/tryPause) {
					t.Errorf("%d messages", n)
				}
				time.Sleep(ackWait)
				soon(t, "whose slot is not written has lost it", two.Lost())
				for _, gone := range []uint64{1, 2} {
					soon(t, "expelled", q.Expel(nonceOf(gone), []string{"gpu"}))
				}
				wantIn(t, []*seat{three, four}, 3)
				leave(t, three)
				wantIn(t, []*seat{four}, 4)
				for _, log := range []string{p.logged(), q.logged()} {
					if strings.Count(log, "\n") != 1 || !strings.Contains(log, `level=ERROR msg="quota is older than it was, `) {
						t.Errorf("logged %q, want one error", log)
					}
				}
				leave(t, four)
				w.wantLine("gpu", "|")
			})
		})
	}
}

// One who leaves right after the value was lost has left.
func TestLeaveLostValue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(2, "gpu")
		p := w.start()
		one := p.enter(1, "gpu")
		wantIn(t, []*seat{one}, 1)
		w.purge("gpu")
		soon(t, "left", one.Leave())
		w.wantLine("gpu", "|")
		two := p.enter(2, "gpu")
		wantIn(t, []*seat{two}, 2)
	})
}

// breakage breaks a wire in some way, and mends it.
type breakage func(*natstest.Wire)

var breakages = map[string]breakage{
	"cut":               func(w *natstest.Wire) { w.Cut(); time.Sleep(time.Second); w.Restore() },
	"long cut":          func(w *natstest.Wire) { w.Cut(); time.Sleep(time.Minute); w.Restore() },
	"short freeze":      func(w *natstest.Wire) { w.Freeze(); time.Sleep(time.Second); w.Thaw() },
	"longer than a try": func(w *natstest.Wire) { w.Freeze(); time.Sleep(tryPatience + time.Second); w.Thaw() },
	"freeze, then cut":  func(w *natstest.Wire) { w.Freeze(); time.Sleep(time.Second); w.Cut(); w.Thaw(); w.Restore() },
	"freeze, cut, freeze": func(w *natstest.Wire) {
		w.Freeze()
		time.Sleep(5 * time.Second)
		w.Cut()
		time.Sleep(5 * time.Second)
		w.Restore()
		w.Thaw()
	},
}

// A request may be lost, or come much later than it was given up; nothing is
// granted twice, and all goes on.
func TestBrokenRequests(t *testing.T) {
	for what, breakIt := range breakages {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(2, "gpu", "db")
				p, q := w.start(), w.start()
				a := p.crowd(1, 3, "gpu")
				settle()
				b := q.crowd(4, 6, "gpu")
				wantIn(t, slices.Concat(a, b), 1, 2)
				var broken sync.WaitGroup
				broken.Go(func() { breakIt(p.wire) })
				settle()
				// Written in vain, or late.
				gone := p.enter(7, "db")
				both := p.enter(8, "db", "gpu")
				a[0].Leave()
				settle()
				a[2].Leave()
				gone.Leave()
				settle()
				c := q.enter(9, "db") // a race for what it had
				time.Sleep(2 * time.Second)
				c.Leave()
				broken.Wait()
				for _, s := range append(slices.Concat(a, b), both) {
					select {
					case <-s.left:
					case <-s.Granted():
					case <-time.After(time.Minute):
						t.Fatalf("job %d is stuck: %s, %s", s.entry.Sequence, show(w.now("gpu")), show(w.now("db")))
					}
					s.Leave()
				}
				time.Sleep(time.Minute)
				w.wantLine("gpu", "|")
				w.wantLine("db", "|")
				if closed(gone.Granted()) != closed(gone.left) && !closed(gone.left) {
					t.Error("one who left before it was let in has not left")
				}
				w.check()
			})
		})
	}
}

// An answer may be lost when its write was done: the gate finds out.
func TestLostAnswers(t *testing.T) {
	for what, names := range map[string][]string{"one": {"gpu"}, "two": {"db", "gpu"}} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "db", "gpu")
				p, q := w.start(), w.start()
				settle()
				// The wire breaks when the server hands the write to others,
				// which is before it answers, or just after.
				breaks := make(chan struct{}, 100)
				sub, err := w.js.Conn().SubscribeSync("$KV." + bucketName + ".>")
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					for range breaks {
						if _, err := sub.NextMsg(time.Hour); err != nil {
							return
						}
						p.wire.Cut()
						time.Sleep(time.Second)
						p.wire.Restore()
					}
				}()
				next := uint64(1)
				for range 6 {
					s := p.enter(next, names...)
					breaks <- struct{}{}
					settle()
					other := q.enter(next+1, "gpu")
					for range 2 {
						select {
						case <-s.Granted():
							<-s.Leave()
						case <-other.Granted():
							<-other.Leave()
						case <-time.After(time.Hour):
							t.Fatal("stuck")
						}
					}
					<-s.Leave()
					<-other.Leave()
					next += 2
					time.Sleep(2 * time.Second)
				}
				close(breaks)
				sub.Unsubscribe()
				w.wantLine("gpu", "|")
				w.check()
			})
		})
	}
}

func TestServerRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		seats := p.crowd(1, 3, "gpu")
		wantIn(t, seats, 1)
		w.server.Stop()
		left := seats[0].Leave()
		time.Sleep(time.Minute)
		w.server.Restart(t)
		time.Sleep(5 * time.Second)
		if !closed(left) {
			t.Fatal("not left")
		}
		wantIn(t, seats[1:], 2)
		leave(t, seats[1], seats[2])
		w.check()
	})
}

// busy has jobs of three processes run for a while each, that name quotas of
// this choice, and has breakIt break a wire again and again, until all are done.
// Whoever is let in counts who is in with it.
func busy(t *testing.T, w *world, patient time.Duration, jobs int, choice [][]string, stay func() time.Duration, breakIt func(*natstest.Wire)) {
	const size = 2
	w.limit(size, "db", "gpu")
	processes := []*process{w.start(), w.start(), w.start()}
	settle() // jobs and breakages are seconds from here, so none is when quotas are read
	var mu sync.Mutex
	in := make(map[string]int)
	count := func(names []string, n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, name := range names {
			if in[name] += n; in[name] > size {
				t.Errorf("%d are in %s", in[name], name)
			}
		}
	}
	var running, breaking sync.WaitGroup
	for i := range jobs {
		names := choice[rand.IntN(len(choice))]
		seat := processes[i%3].enter(uint64(i+1), names...)
		running.Go(func() {
			seat.turn(t, patient, func() {
				count(names, 1)
				time.Sleep(stay())
				count(names, -1)
			})
		})
	}
	done := make(chan struct{})
	breaking.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(stay()):
			}
			breakIt(processes[rand.IntN(3)].wire)
		}
	})
	running.Wait()
	close(done)
	breaking.Wait()
	w.wantLine("db", "|")
	w.wantLine("gpu", "|")
	w.check()
}

// Wires break at the moments at which jobs begin and end, so that requests and
// answers are lost, or come late.
//
// They do not break at the moment at which a gate reads all quotas: the client
// makes a watch with a lock held, for which its callback would wait, and fake
// time stand still.
func TestBrokenWires(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stay := func() time.Duration { return time.Duration(1+rand.IntN(9)) * time.Second }
		busy(t, w, 10*time.Hour, 40, [][]string{{"gpu"}, {"db"}, {"db", "gpu"}}, stay, func(wire *natstest.Wire) {
			for range rand.IntN(1000) {
				runtime.Gosched()
			}
			if rand.IntN(2) == 0 {
				wire.Cut()
				time.Sleep(stay())
				wire.Restore()
				return
			}
			wire.Freeze()
			time.Sleep(stay())
			wire.Thaw()
		})
	})
}

// In real time a wire that stands still for a moment lets the processes race as
// they do nowhere else. (One that is cut costs seconds.)
func TestSlowWiresInRealTime(t *testing.T) {
	s := natstest.Start(t, nil)
	w := newWorld(t, s)
	busy(t, w, 20*time.Second, 60, [][]string{{"gpu"}, {"db"}}, func() time.Duration { return rand.N(time.Millisecond) }, func(wire *natstest.Wire) {
		wire.Freeze()
		time.Sleep(rand.N(2 * time.Millisecond))
		wire.Thaw()
	})
}
