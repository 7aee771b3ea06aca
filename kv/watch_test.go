package kv_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

func TestWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		one := create(t, b, "a.1", "1", kv.Forever)
		create(t, b, "a.2", "2", kv.Forever)
		create(t, b, "b.1", "other pattern", kv.Forever)
		gone := create(t, b, "a.3", "3", kv.Forever)
		remove(t, b, "a.3", gone)

		w := watch(t, b, "a.*")
		// Who begins to watch is told of what was deleted before, too.
		want := []string{"a.1=1", "a.2=2", "no a.3", "current"}
		if diff := cmp.Diff(want, w.next(t, 4)); diff != "" {
			t.Errorf("initial (-want +got):\n%s", diff)
		}
		two := update(t, b, "a.1", "1b", one, kv.Forever)
		create(t, b, "b.2", "other pattern", kv.Forever)
		synctest.Wait() // else the delete might come in place of the update
		remove(t, b, "a.1", two)
		if _, err := s.JetStream(t).Publish(t.Context(), "$KV.b.a.2", []byte("{")); err != nil {
			t.Fatal(err)
		}
		create(t, b, "a.4", "4", kv.Forever)
		want = []string{"a.1=1b", "no a.1", "error of a.2", "a.4=4"}
		if diff := cmp.Diff(want, w.next(t, 4)); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}

		w.stop()
		<-w.ended
		if left := len(w.lines); left > 0 {
			t.Errorf("%d changes too many, first %s", left, <-w.lines)
		}
	})
}

func TestWatchNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
		w := watch(t, b, "a.*")
		if got := w.next(t, 1); got[0] != "current" {
			t.Errorf("first %q, want current", got)
		}
	})
}

// Changes made during an outage arrive after it, in order, without those known before. Of several changes to a key
// during the outage the last is enough.
func TestWatchSurvives(t *testing.T) {
	outages := map[string]func(t *testing.T, s *natstest.Server, w *natstest.Wire, meanwhile func()){
		"a short cut": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire, meanwhile func()) {
			w.Cut()
			meanwhile()
			w.Restore()
		},
		"a long cut": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire, meanwhile func()) {
			w.Cut()
			time.Sleep(5 * time.Minute)
			meanwhile()
			time.Sleep(5 * time.Minute)
			w.Restore()
		},
		"a long freeze": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire, meanwhile func()) {
			w.Freeze()
			time.Sleep(10 * time.Minute)
			meanwhile()
			w.Thaw()
		},
		"a restart": func(t *testing.T, s *natstest.Server, _ *natstest.Wire, meanwhile func()) {
			s.Restart(t)
			time.Sleep(time.Second)
			meanwhile()
		},
	}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
				quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}) // the outage is no news
				nc, wire := s.ConnectWire(t, quiet)
				js, err := jetstream.New(nc)
				if err != nil {
					t.Fatal(err)
				}
				w := watch(t, open(t, js, kv.Config{Bucket: "b"}), ">")
				create(t, b, "k.0", "v", kv.Forever)
				w.next(t, 2)

				outage(t, s, wire, func() {
					create(t, b, "k.1", "v", kv.Forever)
					create(t, b, "k.2", "v", kv.Forever)
				})
				create(t, b, "k.3", "v", kv.Forever)
				want := []string{"k.1=v", "k.2=v", "k.3=v"}
				if diff := cmp.Diff(want, w.next(t, 3)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestWatchEndsWithConnection(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		nc := s.Connect(t)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		w := watch(t, open(t, js, kv.Config{Bucket: "b"}), ">")
		w.next(t, 1)
		nc.Close()
		<-w.ended
		if got := <-w.lines; got != "error" {
			t.Errorf("last word %q, want an error", got)
		}
	})
}

// A loop that is left early leaves nothing behind, not even with more on its way than buffers hold.
func TestWatchBreak(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
		const keys = 2000
		for i := range keys {
			create(t, b, fmt.Sprintf("k.%d", i), "v", kv.Forever)
		}
		for change, err := range b.Watch(t.Context(), ">") {
			if err != nil || change.Entry.Key != "k.0" {
				t.Errorf("%v, %v", change, err)
			}
			synctest.Wait() // all that fits has come
			break
		}
	})
}

func TestList(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		list := func(pattern string) ([]string, error) {
			entries, err := b.List(t.Context(), pattern)
			var got []string
			for _, e := range entries {
				got = append(got, e.Key+"="+e.Value)
			}
			return got, err
		}
		if got, err := list(">"); got != nil || err != nil {
			t.Errorf("empty bucket: %q, %v", got, err)
		}
		a := create(t, b, "x.a", "1", kv.Forever)
		create(t, b, "x.b", "1", kv.Forever)
		create(t, b, "y.a", "1", kv.Forever)
		gone := create(t, b, "x.c", "1", kv.Forever)
		update(t, b, "x.a", "2", a, kv.Forever)
		remove(t, b, "x.c", gone)
		for pattern, want := range map[string][]string{
			"x.*": {"x.b=1", "x.a=2"},
			">":   {"x.b=1", "y.a=1", "x.a=2"},
			"z.*": nil,
			"x.c": nil,
		} {
			if got, err := list(pattern); err != nil || !slices.Equal(want, got) {
				t.Errorf("list %s: %q, %v, want %q", pattern, got, err, want)
			}
		}
		if _, err := s.JetStream(t).Publish(t.Context(), "$KV.b.x.a", []byte("{")); err != nil {
			t.Fatal(err)
		}
		got, err := list("x.*")
		if err == nil || !strings.Contains(err.Error(), "x.a") || !slices.Equal(got, []string{"x.b=1"}) {
			t.Errorf("with one that cannot be decoded: %q, %v", got, err)
		}
	})
}

func TestListLong(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
		const keys = 3000
		for i := range keys {
			create(t, b, fmt.Sprintf("k.%d", i), "v", kv.Forever)
		}
		entries, err := b.List(t.Context(), "k.*")
		if err != nil || len(entries) != keys {
			t.Errorf("%d entries, %v, want %d", len(entries), err, keys)
		}
	})
}

func TestIllegalPattern(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
		if _, err := b.List(t.Context(), ".a"); !errors.Is(err, jetstream.ErrInvalidKey) {
			t.Errorf("%v, want ErrInvalidKey", err)
		}
	})
}
