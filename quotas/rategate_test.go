package quotas

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stopwatch notes how long after its start each of some seats was granted.
type stopwatch struct {
	t     *testing.T
	began time.Time
	mu    sync.Mutex
	at    map[uint64]time.Duration
}

func newStopwatch(t *testing.T) *stopwatch {
	return &stopwatch{t: t, began: time.Now(), at: make(map[uint64]time.Duration)}
}

// follow has seats do something as soon as they are granted.
func (s *stopwatch) follow(do func(*seat), seats ...*seat) {
	for _, seat := range seats {
		go func() {
			select {
			case <-s.t.Context().Done():
				return
			case <-seat.Granted():
			}
			s.mu.Lock()
			s.at[seat.entry.Sequence] = time.Since(s.began)
			s.mu.Unlock()
			do(seat)
		}()
	}
}

// of returns when a job was granted; 0 for not at all.
func (s *stopwatch) of(sequence uint64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[sequence]
}

// want checks that these were granted at a time, or later by a few milliseconds
// and a thousandth.
func (s *stopwatch) want(t *testing.T, at time.Duration, sequences ...uint64) {
	t.Helper()
	s.wantWithin(t, at, 2*time.Millisecond+min(at, 10*time.Second)/drift, sequences...)
}

func (s *stopwatch) wantWithin(t *testing.T, at, late time.Duration, sequences ...uint64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sequence := range sequences {
		if got, granted := s.at[sequence]; !granted || got < at || got > at+late {
			t.Errorf("job %d was granted after %v (%t), want %v", sequence, got, granted, at)
		}
	}
}

func end(s *seat) { s.Leave() }
func stay(*seat)  {}

func numbers(first, last uint64) (all []uint64) {
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

// A burst is let in up to the size, and then the same number each period, in
// order, each at the instant when those of the period before expire; that jobs
// end makes no difference.
func TestRateBurst(t *testing.T) {
	for _, period := range []time.Duration{20 * time.Millisecond, time.Second, 90 * time.Second, 20 * time.Minute} {
		t.Run(period.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limitRate(3, period, "api")
				p := w.start()
				settle()
				watch := newStopwatch(t)
				watch.follow(end, p.crowd(1, 5, "api")...)
				watch.follow(stay, p.crowd(6, 11, "api")...)
				time.Sleep(4 * period)
				watch.want(t, 0, 1, 2, 3)
				watch.want(t, period, 4, 5, 6)
				watch.want(t, 2*period, 7, 8, 9)
				watch.want(t, 3*period, 10, 11)
				if now := w.now("api"); show(now) != "6 7 8 9 10 11 |" {
					t.Errorf("%s", show(now))
				}
				w.check()
			})
		})
	}
}

// Starts that were not together do not become so: each has its own period.
func TestRateSteady(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(3, 10*time.Second, "api")
		p := w.start()
		settle()
		watch := newStopwatch(t)
		for n := range uint64(3) {
			watch.follow(end, p.enter(n+1, "api"))
			time.Sleep(time.Second)
		}
		watch.follow(end, p.crowd(4, 9, "api")...)
		time.Sleep(time.Minute)
		for n := range uint64(9) {
			watch.want(t, time.Duration(n/3)*10*time.Second+time.Duration(n%3)*time.Second, n+1)
		}
		w.check()
	})
}

// Nothing is written, and nobody asks for anything, while a job waits.
func TestRateQuiet(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(1, time.Hour, "api")
		p, q := w.start(), w.start()
		settle()
		watch := newStopwatch(t)
		watch.follow(stay, p.enter(1, "api"), p.enter(2, "api"))
		settle()
		watch.follow(stay, q.enter(3, "api"))
		settle()
		before, sent := w.stream().CachedInfo().State.LastSeq, p.conn.Stats().OutMsgs
		time.Sleep(30 * time.Minute)
		if after := w.stream().CachedInfo().State.LastSeq; after != before {
			t.Errorf("%d writes", after-before)
		}
		// What is read from time to time whatever the kind of quota.
		if n := p.conn.Stats().OutMsgs - sent; n > uint64(30*time.Minute/(ackWait/3))+5*30 {
			t.Errorf("%d messages", n)
		}
		time.Sleep(2 * time.Hour)
		watch.want(t, time.Hour, 2)
		watch.want(t, 2*time.Hour, 3)
	})
}

// Two processes share a rate, in the order of the queue.
func TestRateOfTwo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(4, time.Second, "api")
		p, q := w.start(), w.start()
		settle()
		watch := newStopwatch(t)
		watch.follow(end, p.crowd(1, 4, "api")...)
		settle()
		for n := uint64(5); n <= 20; n += 2 {
			watch.follow(end, p.enter(n, "api"), q.enter(n+1, "api"))
		}
		time.Sleep(10 * time.Second)
		for n := range uint64(5) {
			watch.want(t, time.Duration(n)*time.Second, numbers(4*n+1, 4*n+4)...)
		}
		w.check()
	})
}

// The keeper dies while others wait for a grant to expire: one of them looks.
func TestRateKeeperDies(t *testing.T) {
	for name, period := range map[string]time.Duration{"soon": time.Second, "later": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limitRate(2, period, "api")
				keeper, p, q := w.start(), w.start(), w.start()
				settle()
				watch := newStopwatch(t)
				watch.follow(stay, keeper.enter(1, "api"), keeper.enter(2, "api"))
				time.Sleep(period / 4)
				watch.follow(end, p.crowd(3, 4, "api")...)
				watch.follow(end, q.crowd(5, 8, "api")...)
				time.Sleep(period / 4)
				if now := w.now("api"); now.Keeper != keeper.name || len(now.Waiters) < 5 {
					t.Fatalf("kept by %s: %s", now.Keeper, show(now))
				}
				keeper.die()
				time.Sleep(4 * period)
				watch.wantWithin(t, period, keeperPatience+5*time.Millisecond, 3, 4)
				watch.wantWithin(t, 2*period, keeperPatience+10*time.Millisecond, 5, 6)
				watch.wantWithin(t, 3*period, keeperPatience+15*time.Millisecond, 7, 8)
				w.check()
			})
		})
	}
}

// A keeper that knows less of the server's time than another is asked once, and
// then replaced.
func TestRateKeeperIsBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(1, 10*time.Second, "api")
		p, q := w.start(), w.start()
		settle()
		watch := newStopwatch(t)
		watch.follow(end, p.enter(1, "api"))
		settle()
		watch.follow(end, q.enter(2, "api"))
		settle()
		p.work.Do(func() { p.clock.server = p.clock.server.Add(-time.Minute) })
		asked, err := w.js.Conn().SubscribeSync(subject + "." + p.name)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		watch.wantWithin(t, 10*time.Second, keeperPatience+20*time.Millisecond, 2)
		if n, _, err := asked.Pending(); err != nil || n > 2 {
			t.Errorf("asked %d times, %v", n, err)
		}
		if now := w.now("api"); now.Keeper != q.name {
			t.Errorf("kept by %s", now.Keeper)
		}
		w.check()
	})
}

// A process that starts much later knows what the others were granted, and when.
func TestRateOutlivesAll(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(2, time.Minute, "api")
		p := w.start()
		settle()
		watch := newStopwatch(t)
		watch.follow(stay, p.enter(1, "api"))
		time.Sleep(20 * time.Second)
		watch.follow(stay, p.enter(2, "api"))
		settle()
		p.die()
		time.Sleep(20 * time.Second)
		q := w.start()
		watch.follow(end, q.crowd(3, 6, "api")...)
		time.Sleep(3 * time.Minute)
		watch.want(t, time.Minute, 3)
		watch.want(t, 80*time.Second, 4)
		watch.want(t, 2*time.Minute, 5)
		watch.want(t, 140*time.Second, 6)
		w.check()
	})
}

// A job that names quotas of both kinds gets all or none: no slot is taken while
// it waits for the rate, nor a start spent while it waits for the slot.
func TestRateAndSlots(t *testing.T) {
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprint("the same process: ", same), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(1, "gpu")
				w.limitRate(1, time.Minute, "api")
				p := w.start()
				q := p
				if !same {
					q = w.start()
				}
				settle()
				watch := newStopwatch(t)
				one := p.enter(1, "api")
				wantIn(t, []*seat{one}, 1)
				both := q.enter(2, "api", "gpu")
				watch.follow(stay, both)
				settle()
				slot := p.enter(3, "gpu")
				wantIn(t, []*seat{both, slot}, 3)
				time.Sleep(90 * time.Second)
				if now := w.now("api"); closed(both.Granted()) || len(now.Holders) != 1 {
					t.Fatalf("granted %t, %s", closed(both.Granted()), show(now))
				}
				leave(t, slot)
				wantIn(t, []*seat{both}, 2)
				// The other way round: the rate is what it waits for.
				next := q.enter(4, "api", "gpu")
				settle()
				leave(t, both)
				late := newStopwatch(t)
				late.follow(stay, next)
				time.Sleep(2 * time.Minute)
				if d := late.of(4); d < 59*time.Second || d > time.Minute+20*time.Millisecond {
					t.Errorf("granted after %v", d)
				}
				w.check()
			})
		})
	}
}

// The flow of a lane is not a rate limit's to bound, unless it starts nothing.
func TestRateResized(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(2, time.Minute, "api")
		p := w.start()
		settle()
		w.limitRate(3, time.Minute, "api")
		settle()
		w.limitRate(0, time.Minute, "api")
		settle()
		w.limitRate(3, time.Minute, "api")
		settle()
		w.limit(3, "api")
		settle()
		w.limitRate(3, time.Minute, "api")
		settle()
		if diff := cmp.Diff([]string{"api -1", "api 0", "api -1", "api 3", "api -1"}, p.told()); diff != "" {
			t.Error(diff)
		}
	})
}

// The server answers nothing for a while, as a grant expires.
func TestRateOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(1, time.Minute, "api")
		p := w.start()
		settle()
		watch := newStopwatch(t)
		watch.follow(end, p.crowd(1, 3, "api")...)
		time.Sleep(50 * time.Second)
		w.server.Stop()
		time.Sleep(20 * time.Second)
		w.server.Restart(t)
		time.Sleep(5 * time.Minute)
		watch.wantWithin(t, time.Minute, 20*time.Second, 2)
		if gap := watch.of(3) - watch.of(2); gap < time.Minute || gap > time.Minute+5*time.Second {
			t.Errorf("%v after it", gap)
		}
		w.check()
	})
}

// How a rate limit stands is worked out by the server's clock.
func TestRateShown(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(2, time.Minute, "api")
		w.limit(1, "gpu")
		p := w.start()
		settle()
		for step, want := range []Rate{{Left: 2}, {Left: 1}, {Left: 0, Next: Period(40*time.Second - 50*time.Millisecond)}} {
			quota, err := w.set.Quota(t.Context(), "api")
			if err != nil || !cmp.Equal(quota.Rate, &want) || quota.Period != Period(time.Minute) {
				t.Errorf("%+v, %v; want %+v", quota.Rate, err, want)
			}
			p.enter(uint64(step+1), "api")
			settle()
			if step > 0 {
				continue
			}
			time.Sleep(20*time.Second - 50*time.Millisecond)
		}
		time.Sleep(time.Hour)
		list, err := w.set.List(t.Context())
		if err != nil || len(list) != 2 || list[0].Rate == nil || list[1].Rate != nil {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

func TestRateRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for want, err := range map[string]error{
			"create quota api: period 0s is too short: must be at least 1ms":  w.set.CreateRate(ctx, "api", 1, 0),
			"limit quota api: period -1s is too short: must be at least 1ms":  w.set.LimitRate(ctx, "api", 1, -time.Second),
			"resize quota api: period 1µs is too short: must be at least 1ms": w.set.Change(ctx, "api", 1, time.Microsecond),
			"size -1 is negative": w.set.LimitRate(ctx, "api", -1, time.Second),
			`unknown quota "api"`: w.set.Change(ctx, "api", 1, time.Second),
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		if _, err := w.set.Quota(ctx, "api"); err == nil {
			t.Error("it exists")
		}
	})
}

// Some processes do anything with rate limits, and one of them dies: no window
// ever has too much, and nobody is stuck.
func TestRateAnything(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, w *world) {
		const jobs = 120
		r := rand.New(rand.NewPCG(seed, 0))
		w.limitRate(3, time.Second, "api", "mail")
		w.limit(2, "gpu")
		sets := [][]string{{"api"}, {"api"}, {"mail"}, {"api", "mail"}, {"api", "gpu"}, {"gpu"}}
		processes := []*process{w.start(), w.start(), w.start()}
		died := make(chan struct{}) // the first of them
		var turns sync.WaitGroup
		for n := uint64(1); n <= jobs; n++ {
			p := processes[r.IntN(len(processes))]
			entry, starts := entryOf(n, sets[r.IntN(len(sets))]...), r.IntN(6) > 0
			entry.Interrupted = r.IntN(10) == 0
			stays := time.Duration(r.Int64N(int64(2 * time.Second)))
			turns.Go(func() {
				doomed := p == processes[0] && n%2 == 0 && n < jobs/2 && !slices.Contains(entry.Quotas, "gpu")
				if doomed {
					p.enterAs(entry)
					<-died
					p = processes[1]
				} else if p == processes[0] && n >= jobs/2 {
					p = processes[2]
				}
				if !starts {
					seat := p.enterAs(entry)
					within(2*time.Second, seat.Granted())
					<-seat.withdraw()
				}
				p.enterAs(entry).turn(t, time.Hour, func() { time.Sleep(stays) })
			})
			time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
			switch r.IntN(20) {
			case 0:
				w.limitRate(1+r.IntN(5), time.Duration(1+r.IntN(3))*time.Second, "api")
			case 1:
				w.limitRate(1+r.IntN(5), time.Second, "mail")
			}
			if n == jobs/2 {
				// Its other jobs have had their turn.
				time.Sleep(5 * time.Minute)
				processes[0].die()
				close(died)
			}
		}
		turns.Wait()
		settle()
		w.check()
		for _, name := range []string{"api", "mail", "gpu"} {
			w.wantLine(name, "|")
		}
	})
}
