package kv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

// inBubble calls f in fake time with a bucket that leaves markers.
func inBubble(t *testing.T, f func(*testing.T, *natstest.Server, *kv.Bucket[string])) {
	t.Helper()
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		f(t, s, open(t, s.JetStream(t), kv.Config{Bucket: "b", Markers: time.Minute}))
	})
}

func open(t *testing.T, js jetstream.JetStream, c kv.Config) *kv.Bucket[string] {
	t.Helper()
	b, err := kv.Create(t.Context(), js, c, kv.JSON[string]())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func create(t *testing.T, b *kv.Bucket[string], key, value string, ttl time.Duration) uint64 {
	t.Helper()
	revision, err := b.Create(t.Context(), key, value, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func update(t *testing.T, b *kv.Bucket[string], key, value string, revision uint64, ttl time.Duration) uint64 {
	t.Helper()
	revision, err := b.Update(t.Context(), key, value, revision, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func remove(t *testing.T, b *kv.Bucket[string], key string, revision uint64) {
	t.Helper()
	if err := b.Delete(t.Context(), key, revision); err != nil {
		t.Fatal(err)
	}
}

// wantValue checks a key, by a read from any replica and by one from the leader. The empty value stands for none.
func wantValue(t *testing.T, b *kv.Bucket[string], key, want string) {
	t.Helper()
	reads := []struct {
		name string
		read func(context.Context, string) (kv.Entry[string], error)
	}{{"get", b.Get}, {"latest", b.Latest}}
	for _, r := range reads {
		entry, err := r.read(t.Context(), key)
		switch {
		case want == "" && !errors.Is(err, kv.ErrNotFound):
			t.Errorf("%s %s: %q, %v, want ErrNotFound", r.name, key, entry.Value, err)
		case want != "" && (err != nil || entry.Value != want):
			t.Errorf("%s %s: %q, %v, want %q", r.name, key, entry.Value, err, want)
		}
	}
}

func wantConflict(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, kv.ErrConflict) {
		t.Errorf("%s: %v, want ErrConflict", what, err)
	}
}

// watched collects what a watch yields, one line for each change.
type watched struct {
	lines chan string
	ended chan struct{}
	stop  context.CancelFunc
}

func watch(t *testing.T, b *kv.Bucket[string], pattern string) *watched {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &watched{lines: make(chan string, 1000), ended: make(chan struct{}), stop: stop}
	go func() {
		defer close(w.ended)
		for change, err := range b.Watch(ctx, pattern) {
			w.lines <- line(change, err)
		}
	}()
	t.Cleanup(stop)
	return w
}

func line(c kv.Change[string], err error) string {
	switch {
	case err != nil && c.Entry.Key == "":
		return "error"
	case err != nil:
		return "error of " + c.Entry.Key
	case c.Current:
		return "current"
	case c.Deleted:
		return "no " + c.Entry.Key
	}
	return fmt.Sprintf("%s=%s", c.Entry.Key, c.Entry.Value)
}

// next returns the next n lines; it gives up after two minutes.
func (w *watched) next(t *testing.T, n int) []string {
	t.Helper()
	var got []string
	deadline := time.After(2 * time.Minute)
	for len(got) < n {
		select {
		case l := <-w.lines:
			got = append(got, l)
		case <-w.ended:
			t.Fatalf("watch ended after %q", got)
		case <-deadline:
			t.Fatalf("only %q, want %d changes", got, n)
		}
	}
	return got
}
