package quotas

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// wantError checks that an error is a certain one and says a certain thing.
func wantError(t *testing.T, what string, err, is error, says string) {
	t.Helper()
	if !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v; want %v with %q", what, err, is, says)
	}
}

func TestCreateAndChange(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, set := t.Context(), w.set
		if err := set.Create(ctx, "gpu", DefaultSize); err != nil {
			t.Fatal(err)
		}
		got, err := set.Quota(ctx, "gpu")
		if err != nil || got.Name != "gpu" || got.Size != 1 || got.Removed || got.Revision == 0 {
			t.Errorf("created: %+v, %v", got, err)
		}
		wantError(t, "created twice", set.Create(ctx, "gpu", 2), ErrExists, "its size is 1 (asyncnats quota set changes it)")
		if err := set.Resize(ctx, "gpu", 0); err != nil {
			t.Error(err)
		}
		if got := w.now("gpu"); got.Size != 0 || got.Removed {
			t.Errorf("resized: %+v", got)
		}
		if err := errors.Join(set.Remove(ctx, "gpu"), set.Create(ctx, "gpu", 3), set.Remove(ctx, "gpu"), set.Limit(ctx, "gpu", 4), set.Limit(ctx, "gpu", 5)); err != nil {
			t.Error(err)
		}
		if got := w.now("gpu"); got.Size != 5 || got.Removed {
			t.Errorf("removed, made again and resized: %+v", got)
		}
		w.check()
	})
}

func TestUnknown(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, set := t.Context(), w.set
		for _, name := range []string{"never", "removed"} {
			if name == "removed" {
				if err := errors.Join(set.Create(ctx, name, 1), set.Remove(ctx, name)); err != nil {
					t.Fatal(err)
				}
			}
			_, looked := set.Quota(ctx, name)
			_, cleaned := set.Clean(ctx, name, nil)
			for what, err := range map[string]error{
				"resize": set.Resize(ctx, name, 1), "remove": set.Remove(ctx, name), "look": looked, "clean": cleaned,
				"known": set.Known(ctx, []string{name}),
			} {
				wantError(t, what, err, ErrUnknown, fmt.Sprintf("%q in queue media: create it first (asyncnats quota create %s --queue media)", name, name))
				if unknown, ok := errors.AsType[*UnknownError](err); !ok || unknown.Name != name || unknown.Queue != queueName {
					t.Errorf("%s: %#v", what, err)
				}
			}
		}
	})
}

func TestRefusedValues(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, set := t.Context(), w.set
		w.limit(1, "gpu")
		for _, name := range []string{"", "a.b", "a b", "*", ">", "ä", strings.Repeat("a", 65)} {
			_, looked := set.Quota(ctx, name)
			for what, err := range map[string]error{
				"create": set.Create(ctx, name, 1), "resize": set.Resize(ctx, name, 1), "limit": set.Limit(ctx, name, 1),
				"remove": set.Remove(ctx, name), "look": looked, "known": set.Known(ctx, []string{"gpu", name}),
			} {
				if refused, ok := errors.AsType[*job.NameError](err); !ok || refused.What != "quota" {
					t.Errorf("%s %q: %v", what, name, err)
				}
			}
		}
		for what, err := range map[string]error{
			"create": set.Create(ctx, "new", -1), "resize": set.Resize(ctx, "gpu", -1), "limit": set.Limit(ctx, "gpu", -1),
		} {
			if err == nil || !strings.Contains(err.Error(), "size -1 is negative: must be at least 0") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got := w.now("gpu"); got.Size != 1 || !w.now("new").Removed {
			t.Errorf("after all: %+v", got)
		}
	})
}

// A quota that was seen is relied on for a second, one that was not never.
func TestKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, set, other := t.Context(), w.set, w.open(w.server.JetStream(t))
		w.limit(1, "a", "b")
		names := []string{"a", "b"}
		if err := set.Known(ctx, names); err != nil {
			t.Fatal(err)
		}
		if err := other.Remove(ctx, "b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(990 * time.Millisecond)
		if err := set.Known(ctx, names); err != nil {
			t.Errorf("within a second: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
		wantError(t, "after a second", set.Known(ctx, names), ErrUnknown, `"b"`)
		if err := other.Create(ctx, "b", 1); err != nil {
			t.Fatal(err)
		}
		if err := set.Known(ctx, names); err != nil {
			t.Errorf("created again: %v", err)
		}
		if err := set.Remove(ctx, "b"); err != nil {
			t.Fatal(err)
		}
		wantError(t, "removed by ourselves", set.Known(ctx, names), ErrUnknown, `"b"`)
		if err := set.Known(ctx, nil); err != nil {
			t.Errorf("no names: %v", err)
		}
	})
}

// Known asks the server once a second for each name, however often it is called.
func TestKnownIsCheap(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		before := w.js.Conn().Stats().OutMsgs
		for range 100 {
			if err := w.set.Known(t.Context(), []string{"gpu"}); err != nil {
				t.Fatal(err)
			}
		}
		if sent := w.js.Conn().Stats().OutMsgs - before; sent != 1 {
			t.Errorf("%d requests, want 1", sent)
		}
	})
}

func TestList(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		if list, err := w.set.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("of none: %v, %v", list, err)
		}
		w.limit(2, "b", "d", "a", "c")
		if err := w.set.Remove(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		foreign, err := Open(t.Context(), w.js, bucketName, queueName+"2", subject+"2")
		if err != nil {
			t.Fatal(err)
		}
		if err := foreign.Create(t.Context(), "foreign", 1); err != nil {
			t.Fatal(err)
		}
		list, err := w.set.List(t.Context())
		var names []string
		for _, quota := range list {
			names = append(names, quota.Name)
			if quota.Size != 2 || quota.Revision == 0 {
				t.Errorf("%+v", quota)
			}
		}
		if err != nil || !cmp.Equal(names, []string{"a", "b", "d"}) {
			t.Errorf("%q, %v", names, err)
		}
	})
}

func TestOpenWithoutBucket(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		_, err := Open(t.Context(), s.JetStream(t), bucketName, queueName, subject)
		wantError(t, "open", err, kv.ErrNoBucket, "create the queue again, which makes it anew (asyncnats queue add media)")
	})
}

// Whoever started while the quota was removed counts when it is made again.
func TestCreateCountsHolders(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p := w.start()
		seats := p.crowd(1, 4, "gpu")
		wantIn(t, seats, 1)
		if err := w.set.Remove(t.Context(), "gpu"); err != nil {
			t.Fatal(err)
		}
		// The write that removes it lets all in that stand in it, and the others follow.
		wantIn(t, seats, 1, 2, 3, 4)
		if err := w.set.Create(t.Context(), "gpu", 2); err != nil {
			t.Fatal(err)
		}
		late := p.crowd(5, 6, "gpu")
		wantIn(t, late)
		leave(t, seats[:2]...)
		wantIn(t, late)
		w.wantLine("gpu", "3 4 | 5 6")
		leave(t, seats[2])
		wantIn(t, late, 5)
		w.check()
	})
}

// The write that makes a quota larger gives the new slots to those who wait.
func TestGrowthIsGivenAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		seats := w.start().crowd(1, 3, "gpu")
		wantIn(t, seats, 1)
		w.wantLine("gpu", "1 | 2 3")
		before := w.stream().CachedInfo().State.LastSeq
		w.limit(2, "gpu")
		wantIn(t, seats, 1, 2)
		for _, r := range w.check() {
			if r.sequence == before+1 && (r.slots.Size != 2 || show(r.slots) != "1 2 | 3") {
				t.Errorf("the revision that resized: %s", show(r.slots))
			}
		}
		// A smaller one leaves those who have a slot alone.
		w.limit(0, "gpu")
		leave(t, seats[0])
		wantIn(t, seats[2:])
		w.wantLine("gpu", "2 | 3")
		if closed(seats[1].Lost()) {
			t.Error("a holder lost its slot")
		}
		w.limit(2, "gpu")
		wantIn(t, seats[1:], 2, 3)
	})
}

// Whoever changes a quota at the same time as others has its change made, once.
func TestConcurrentChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(3, "gpu")
		p := w.start()
		var wg sync.WaitGroup
		var mu sync.Mutex
		created := 0
		for i := range 6 {
			set := w.open(w.server.JetStream(t))
			wg.Go(func() {
				if err := set.Create(t.Context(), "new", i); err == nil {
					mu.Lock()
					created++
					mu.Unlock()
				} else if !errors.Is(err, ErrExists) {
					t.Errorf("create %d: %v", i, err)
				}
				for range 5 {
					if err := set.Resize(t.Context(), "gpu", 3); err != nil {
						t.Error(err)
					}
				}
			})
		}
		seats := p.crowd(1, 5, "gpu")
		wg.Wait()
		if created != 1 {
			t.Errorf("created %d times", created)
		}
		wantIn(t, seats, 1, 2, 3)
		w.wantLine("gpu", "1 2 3 | 4 5")
		w.check()
	})
}

func TestClean(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.limit(2, "gpu")
		p := w.start()
		seats := p.crowd(1, 5, "gpu")
		wantIn(t, seats, 1, 2)
		w.wantLine("gpu", "1 2 | 3 4 5")
		over := map[uint64]bool{}
		gone := func(_ context.Context, claims []Claim) ([]Claim, error) {
			return slices.DeleteFunc(claims, func(c Claim) bool { return !over[c.Sequence] }), nil
		}
		if dropped, err := w.set.Clean(ctx, "gpu", gone); dropped != 0 || err != nil {
			t.Errorf("nobody is over: %d, %v", dropped, err)
		}
		broken := errors.New("broken")
		_, err := w.set.Clean(ctx, "gpu", func(_ context.Context, claims []Claim) ([]Claim, error) { return claims, broken })
		wantError(t, "one who cannot tell", err, broken, "")
		w.wantLine("gpu", "1 2 | 3 4 5")
		p.die()
		over[1], over[4] = true, true
		if dropped, err := w.set.Clean(ctx, "gpu", gone); dropped != 2 || err != nil {
			t.Errorf("two are over: %d, %v", dropped, err)
		}
		w.wantLine("gpu", "2 3 | 5")
		w.check()
	})
}

// What an attempt asked for since it was looked at is not dropped.
func TestCleanIsByAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		first := p.enter(1, "gpu")
		wantIn(t, []*seat{first}, 1)
		second := make(chan *seat, 1)
		dropped, err := w.set.Clean(t.Context(), "gpu", func(_ context.Context, claims []Claim) ([]Claim, error) {
			second <- q.again(first)
			settle()
			return claims, nil
		})
		if dropped != 0 || err != nil {
			t.Errorf("dropped %d, %v", dropped, err)
		}
		wantIn(t, []*seat{<-second}, 1)
		w.wantLine("gpu", "1i |")
	})
}

// A change that gets no answer is an error, and none that is made twice.
func TestChangeWithoutServer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		nc, wire := w.server.ConnectWire(t)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		set := w.open(js)
		wire.Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = set.Create(ctx, "gpu", 1)
		wantError(t, "create", err, context.DeadlineExceeded, "create quota gpu")
		_, err = set.List(ctx)
		wantError(t, "list", err, context.DeadlineExceeded, "list quotas of queue media")
	})
}
