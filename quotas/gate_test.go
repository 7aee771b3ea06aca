package quotas

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// A slot passes from one process to another in the write by which it is given
// back, to the first who waits.
func TestHandover(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q, r := w.start(), w.start(), w.start()
		one := p.enter(1, "gpu")
		settle()
		three := q.enter(3, "gpu")
		settle()
		two := r.enter(2, "gpu")
		seats := []*seat{one, two, three}
		wantIn(t, seats, 1)
		w.wantLine("gpu", "1 | 2 3")
		leave(t, one)
		wantIn(t, seats, 1, 2)
		leave(t, two)
		wantIn(t, seats, 1, 2, 3)
		leave(t, three)
		var lines []string
		for _, r := range w.check() {
			lines = append(lines, show(r.slots))
		}
		if diff := cmp.Diff([]string{"|", "1 |", "1 | 3", "1 | 2 3", "2 | 3", "3 |", "|"}, lines); diff != "" {
			t.Errorf("revisions (-want +got):\n%s", diff)
		}
	})
}

// The interrupted come first, whoever waits already.
func TestInterruptedFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		seats := p.crowd(1, 3, "gpu")
		wantIn(t, seats, 1)
		late := w.start().enterAs(Entry{ID: "late", Nonce: nonceOf(9), Sequence: 9, Interrupted: true, Quotas: []string{"gpu"}})
		settle()
		w.wantLine("gpu", "1 | 9i 2 3")
		leave(t, seats[0])
		wantIn(t, append(seats, late), 1, 9)
		leave(t, late)
		wantIn(t, seats, 1, 2)
		w.check()
	})
}

// What a process wants while a write is under way is all in the next one.
func TestCombining(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const jobs = 200
		w.limit(jobs, "gpu")
		p := w.start()
		settle()
		writes := func(f func()) uint64 {
			before := w.stream().CachedInfo().State.LastSeq
			p.wire.Freeze()
			f()
			p.wire.Thaw()
			settle()
			return w.stream().CachedInfo().State.LastSeq - before
		}
		var seats []*seat
		if n := writes(func() { seats = p.crowd(1, jobs, "gpu") }); n > 2 {
			t.Errorf("%d entries took %d writes", jobs, n)
		}
		if n := writes(func() {
			for _, s := range seats {
				s.Leave()
			}
		}); n > 2 {
			t.Errorf("%d exits took %d writes", jobs, n)
		}
		before := w.stream().CachedInfo().State.LastSeq
		time.Sleep(time.Hour)
		if n := w.stream().CachedInfo().State.LastSeq - before; n > 0 {
			t.Errorf("an idle gate wrote %d times", n)
		}
		w.wantLine("gpu", "|")
		w.check()
	})
}

// crowded has jobs of several processes run for a while each, and checks by
// their own count that no more do than there are slots.
func crowded(t *testing.T, w *world, processes []*process, jobs, size int, hold func() time.Duration) {
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for i := range jobs {
		p := processes[i%len(processes)]
		s := p.enter(uint64(i+1), "gpu")
		stay := hold()
		wg.Go(func() {
			s.turn(t, 10*time.Second, func() {
				n := running.Add(1)
				for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
				}
				time.Sleep(stay)
				running.Add(-1)
			})
		})
		if rand.IntN(3) == 0 {
			time.Sleep(hold())
		}
	}
	wg.Wait()
	if n := most.Load(); n > int64(size) || n < int64(size)-1 {
		t.Errorf("%d ran at once, of %d slots", n, size)
	}
	w.wantLine("gpu", "|")
	w.check()
}

func TestStrict(t *testing.T) {
	for _, size := range []int{1, 3} {
		inBubble(t, func(t *testing.T, w *world) {
			w.limit(size, "gpu")
			processes := []*process{w.start(), w.start(), w.start()}
			crowded(t, w, processes, 60, size, func() time.Duration { return rand.N(20 * time.Millisecond) })
		})
	}
}

// The same where nothing waits for anything: in real time the processes race.
func TestStrictInRealTime(t *testing.T) {
	s := natstest.Start(t, nil)
	w := newWorld(t, s)
	w.limit(3, "gpu")
	processes := []*process{w.start(), w.start(), w.start()}
	crowded(t, w, processes, 150, 3, func() time.Duration { return rand.N(300 * time.Microsecond) })
}

// A quota that does not exist, or no more, lets everybody in and remembers them.
func TestUnlimited(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(0, "removed")
		if err := w.set.Remove(t.Context(), "removed"); err != nil {
			t.Fatal(err)
		}
		p := w.start()
		for _, name := range []string{"missing", "removed"} {
			seats := p.crowd(1, 5, name)
			wantIn(t, seats, 1, 2, 3, 4, 5)
			w.wantLine(name, "1 2 3 4 5 |")
			if now := w.now(name); !now.Removed {
				t.Errorf("%s became a limit: %+v", name, now)
			}
			leave(t, seats[0], seats[3])
			w.wantLine(name, "2 3 5 |")
		}
		w.check()
	})
}

// A removal lets in whoever waits.
func TestRemoval(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		seats := p.crowd(1, 9, "gpu")
		settle()
		seats = append(seats, q.crowd(10, 12, "gpu")...)
		wantIn(t, seats, 1)
		if err := w.set.Remove(t.Context(), "gpu"); err != nil {
			t.Fatal(err)
		}
		wantIn(t, seats, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
		w.check()
	})
}

func TestFencesOfTickets(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		p := w.start()
		last := map[string]uint64{}
		for sequence := uint64(1); sequence < 6; sequence++ {
			s := p.enter(sequence, "a", "b")
			soon(t, "granted", s.Granted())
			for name, fence := range s.Fences() {
				c, _ := w.now(name).holder(s.entry.Nonce)
				if fence <= last[name] || fence != c.Fence {
					t.Errorf("quota %s: fence %d, written %d, the last was %d", name, fence, c.Fence, last[name])
				}
				last[name] = fence
			}
			leave(t, s)
		}
		if len(last) != 2 {
			t.Errorf("fences %v, want one for each quota", last)
		}
	})
}

// Of a thousand who wait in one process a few are written, and all get in, in
// the order of the queue.
func TestThousandWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const jobs, size = 1000, 2
		w.limit(size, "gpu")
		p := w.start()
		seats := make([]*seat, jobs)
		for _, i := range rand.Perm(jobs - size) {
			seats[i+size] = p.enter(uint64(i+size+1), "gpu")
			if i == jobs/2 {
				settle() // the first are written while others come
			}
		}
		copy(seats, p.crowd(1, size, "gpu"))
		settle()
		var first []*seat // those who were let in before all had come
		for _, s := range seats {
			if closed(s.Granted()) {
				first = append(first, s)
			}
			if !closed(s.Known()) {
				t.Fatalf("job %d: it is not known how it stands", s.entry.Sequence)
			}
		}
		leave(t, first...)
		for _, s := range seats {
			soon(t, fmt.Sprintf("job %d", s.entry.Sequence), s.Granted())
			s.Leave()
		}
		settle()
		w.wantLine("gpu", "|")
		var order []uint64
		var old Slots
		for _, r := range w.check() {
			if len(r.slots.Waiters) > 50 {
				t.Fatalf("%d waiters are written", len(r.slots.Waiters))
			}
			for _, c := range granted(old, r.slots) {
				order = append(order, c.Sequence)
			}
			old = r.slots
		}
		if len(order) != jobs {
			t.Fatalf("%d were let in", len(order))
		}
		for i := range order[len(first) : jobs-1] {
			if i += len(first); order[i] > order[i+1] {
				t.Errorf("job %d was let in before job %d", order[i], order[i+1])
			}
		}
	})
}

func TestResized(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "a", "b")
		p := w.start()
		settle()
		told := func(what string, want ...string) {
			t.Helper()
			settle()
			if got := strings.Join(slices.Sorted(slices.Values(p.told())), ", "); got != strings.Join(want, ", ") {
				t.Errorf("%s: told %q, want %q", what, got, want)
			}
		}
		told("at the start", "a 1", "b 1")
		s := p.enter(1, "a", "c")
		told("a quota that does not exist", "c -1")
		w.limit(3, "a")
		told("resized", "a 3")
		w.limit(3, "a")
		leave(t, s)
		told("not resized")
		if err := w.set.Remove(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		told("removed", "a -1")
		w.limit(0, "a", "c")
		told("created", "a 0", "c 0")
	})
}

// Before it has heard what there is a gate takes no quota for missing.
func TestEntryBeforeTheWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		wantIn(t, []*seat{w.start().enter(1, "gpu")}, 1)
		p := w.start()
		s := p.enter(2, "gpu")
		wantIn(t, []*seat{s})
		if sizes := p.told(); !cmp.Equal(sizes, []string{"gpu 1"}) {
			t.Errorf("told %q", sizes)
		}
		w.wantLine("gpu", "1 | 2")
	})
}
