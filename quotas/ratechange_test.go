package quotas

import (
	"context"
	"testing"
	"time"
)

// A job that withdraws unstarted gives its start to the next at once; one that
// was started does not, whatever became of it.
func TestRateWithdraw(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(2, time.Minute, "api")
		p, q := w.start(), w.start()
		settle()
		watch := newStopwatch(t)
		one, two := p.enter(1, "api"), p.enter(2, "api")
		wantIn(t, []*seat{one, two}, 1, 2)
		watch.follow(stay, q.crowd(3, 5, "api")...)
		settle()
		soon(t, "job 1 withdraws", one.withdraw())
		leave(t, two)
		time.Sleep(time.Hour)
		watch.wantWithin(t, 2*50*time.Millisecond, 10*time.Millisecond, 3)
		watch.mu.Lock()
		if d := watch.at[4]; d < 59*time.Second || d > time.Minute {
			t.Errorf("job 4 was granted after %v", d)
		}
		watch.mu.Unlock()
		w.check()
	})
}

// A worker dies after it was granted a start: that is spent, and its job's next
// attempt needs another, before all who never started.
func TestRateInterrupted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(1, time.Minute, "api")
		p, q := w.start(), w.start()
		settle()
		watch := newStopwatch(t)
		one := p.enter(1, "api")
		wantIn(t, []*seat{one}, 1)
		watch.follow(end, q.enter(2, "api"))
		settle()
		p.die()
		entry := one.entry
		again := q.enterAs(entry)
		watch.follow(end, again)
		time.Sleep(keeperPatience + 50*time.Millisecond)
		w.wantLine("api", "| 1i 2")
		time.Sleep(3 * time.Minute)
		watch.wantWithin(t, time.Minute-2*50*time.Millisecond, keeperPatience+50*time.Millisecond, 1)
		watch.wantWithin(t, 2*time.Minute-2*50*time.Millisecond, keeperPatience+100*time.Millisecond, 2)
		if first := one.Fences()["api"]; again.Fences()["api"] <= first {
			t.Errorf("fence %d after %d", again.Fences()["api"], first)
		}
		w.check()
	})
}

// The attempt that another has replaced is told.
func TestRateReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limitRate(5, time.Minute, "api")
		p, q := w.start(), w.start()
		one := p.enter(1, "api")
		wantIn(t, []*seat{one}, 1)
		again := q.again(one)
		wantIn(t, []*seat{again}, 1)
		soon(t, "the first attempt is told", one.Lost())
		if now := w.now("api"); now.live() != 2 {
			t.Errorf("%d starts count", now.live())
		}
		w.check()
	})
}

// All that can happen to a rate limit while jobs wait for it.
func TestRateChanges(t *testing.T) {
	// In each row jobs 1 and 2 of a limit of 2 per minute started, and do not end,
	// and 3 to 6 wait; after ten seconds the limit changes.
	const changed = 10 * time.Second // which settle is part of
	for name, row := range map[string]struct {
		change func(context.Context, *Set) error
		want   map[time.Duration][]uint64
	}{
		"nothing":                   {func(context.Context, *Set) error { return nil }, map[time.Duration][]uint64{time.Minute: {3, 4}, 2 * time.Minute: {5, 6}}},
		"larger":                    {func(ctx context.Context, s *Set) error { return s.Resize(ctx, "api", 3) }, map[time.Duration][]uint64{changed: {3}, time.Minute: {4, 5}, time.Minute + changed: {6}}},
		"smaller":                   {func(ctx context.Context, s *Set) error { return s.Resize(ctx, "api", 1) }, map[time.Duration][]uint64{time.Minute: {3}, 2 * time.Minute: {4}, 3 * time.Minute: {5}, 4 * time.Minute: {6}}},
		"nothing starts":            {func(ctx context.Context, s *Set) error { return s.Resize(ctx, "api", 0) }, nil},
		"a shorter period":          {func(ctx context.Context, s *Set) error { return s.Change(ctx, "api", 2, 30*time.Second) }, map[time.Duration][]uint64{30 * time.Second: {3, 4}, time.Minute: {5, 6}}},
		"a period that passed":      {func(ctx context.Context, s *Set) error { return s.LimitRate(ctx, "api", 2, 5*time.Second) }, map[time.Duration][]uint64{changed: {3, 4}, changed + 5*time.Second: {5, 6}}},
		"a longer period":           {func(ctx context.Context, s *Set) error { return s.Change(ctx, "api", 2, 2*time.Minute) }, map[time.Duration][]uint64{2 * time.Minute: {3, 4}, 4 * time.Minute: {5, 6}}},
		"slots, which 1 and 2 hold": {func(ctx context.Context, s *Set) error { return s.Limit(ctx, "api", 3) }, map[time.Duration][]uint64{changed: {3}}},
		"removed":                   {func(ctx context.Context, s *Set) error { return s.Remove(ctx, "api") }, map[time.Duration][]uint64{changed: {3, 4, 5, 6}}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limitRate(2, time.Minute, "api")
				p, q := w.start(), w.start()
				settle()
				watch := newStopwatch(t)
				watch.follow(stay, p.crowd(1, 2, "api")...)
				settle()
				watch.follow(stay, p.enter(3, "api"), q.enter(4, "api"), p.enter(5, "api"), q.enter(6, "api"))
				time.Sleep(changed - 50*time.Millisecond)
				if err := row.change(t.Context(), w.set); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				in := 2
				for at, sequences := range row.want {
					in += len(sequences)
					watch.want(t, at, sequences...)
				}
				watch.mu.Lock()
				if len(watch.at) != in {
					t.Errorf("granted %v", watch.at)
				}
				watch.mu.Unlock()
				w.check()
			})
		})
	}
}

// What started under a removed rate limit counts when it is created again; a limit
// on how many run at once becomes a rate whose window begins then.
func TestRateComesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.limitRate(3, time.Minute, "api")
		p := w.start()
		settle()
		if err := w.set.Remove(ctx, "api"); err != nil {
			t.Fatal(err)
		}
		settle()
		wantIn(t, p.crowd(1, 5, "api"), 1, 2, 3, 4, 5)
		if err := w.set.CreateRate(ctx, "api", 6, time.Minute); err != nil {
			t.Fatal(err)
		}
		watch := newStopwatch(t)
		watch.follow(stay, p.crowd(6, 8, "api")...)
		time.Sleep(2 * time.Minute)
		watch.want(t, 0, 6)
		watch.wantWithin(t, time.Minute-100*time.Millisecond, 100*time.Millisecond, 7, 8)

		w.limit(1, "gpu")
		wantIn(t, p.crowd(11, 13, "gpu"), 11)
		w.limitRate(1, time.Minute, "gpu")
		settle()
		w.wantLine("gpu", "11 12 | 13")
		time.Sleep(time.Minute)
		w.wantLine("gpu", "11 12 13 |")
		w.check()
	})
}
