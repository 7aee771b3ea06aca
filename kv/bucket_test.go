package kv_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

func TestOpenAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		create(t, b, "k", "v", kv.Forever)
		js := s.JetStream(t)
		before := bucketConfig(t, js, "b")
		// Whatever else the second opener wishes.
		again := open(t, js, kv.Config{Bucket: "b", Description: "other", Markers: time.Hour})
		wantValue(t, again, "k", "v")
		if diff := cmp.Diff(before, bucketConfig(t, js, "b")); diff != "" {
			t.Errorf("opening altered the bucket (-before +after):\n%s", diff)
		}
	})
}

func TestOpenAtOnce(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		var wg sync.WaitGroup
		for i := range 8 {
			js := s.JetStream(t)
			wg.Go(func() {
				config := kv.Config{Bucket: "b", Description: fmt.Sprint(i % 2)}
				if _, err := kv.Create(t.Context(), js, config, kv.JSON[string]()); err != nil {
					t.Errorf("opener %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
}

// What Open makes is what the client library and the nats command line take for a bucket.
func TestOpenIsAnOrdinaryBucket(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		create(t, b, "k", "v", kv.Forever)
		plain, err := s.JetStream(t).KeyValue(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		entry, err := plain.Get(t.Context(), "k")
		if err != nil || string(entry.Value()) != `"v"` {
			t.Errorf("got %v, %v", entry, err)
		}
		status, err := plain.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status.TTL() != 0 || status.History() != 1 || status.LimitMarkerTTL() != time.Minute {
			t.Errorf("TTL %v, history %d, markers %v", status.TTL(), status.History(), status.LimitMarkerTTL())
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	tests := map[string]func(*jetstream.StreamConfig){
		"no per-message TTL": func(c *jetstream.StreamConfig) { c.AllowMsgTTL = false },
		"no direct reads":    func(c *jetstream.StreamConfig) { c.AllowDirect = false },
		"a maximum age":      func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
				js := s.JetStream(t)
				config := jetstream.StreamConfig{
					Name: "KV_b", Subjects: []string{"$KV.b.>"}, MaxMsgsPerSubject: 1,
					AllowRollup: true, AllowDirect: true, AllowMsgTTL: true,
				}
				spoil(&config)
				if _, err := js.CreateStream(t.Context(), config); err != nil {
					t.Fatal(err)
				}
				_, err := kv.Create(t.Context(), js, kv.Config{Bucket: "b"}, kv.JSON[string]())
				if err == nil || !strings.Contains(err.Error(), "nats stream edit KV_b --allow-msg-ttl --allow-direct --max-age 0") {
					t.Errorf("%v, want an error that says what to do", err)
				}
			})
		})
	}
}

func TestConditions(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
		ctx := t.Context()
		first := create(t, b, "k", "1", kv.Forever)
		other := create(t, b, "other", "o", kv.Forever)
		second := update(t, b, "k", "2", first, kv.Forever)

		_, err := b.Create(ctx, "k", "x", kv.Forever)
		wantConflict(t, "create of a key with a value", err)
		for name, revision := range map[string]uint64{"none": 0, "an old": first, "another key's": other, "a future": second + 10} {
			_, err := b.Update(ctx, "k", "x", revision, kv.Forever)
			wantConflict(t, "update at "+name+" revision", err)
			wantConflict(t, "delete at "+name+" revision", b.Delete(ctx, "k", revision))
		}
		wantValue(t, b, "k", "2")

		remove(t, b, "k", second)
		wantValue(t, b, "k", "")
		_, err = b.Update(ctx, "k", "x", second, kv.Forever)
		wantConflict(t, "update of a deleted key", err)
		wantConflict(t, "second delete", b.Delete(ctx, "k", second))
		if third := create(t, b, "k", "3", kv.Forever); third <= second {
			t.Errorf("revision %d after %d", third, second)
		}
		wantValue(t, b, "k", "3")
	})
}

// A write that is not waited for has the same conditions, and the same errors.
func TestSend(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, _ *kv.Bucket[string]) {
		js := s.JetStream(t)
		b := open(t, js, kv.Config{Bucket: "b"})
		inbox := js.Conn().NewInbox()
		answers := make(chan *nats.Msg, 1)
		if _, err := js.Conn().ChanSubscribe(inbox, answers); err != nil {
			t.Fatal(err)
		}
		send := func(value string, revision uint64) (uint64, error) {
			t.Helper()
			if err := b.Send("k", value, revision, kv.Forever, inbox); err != nil {
				t.Fatal(err)
			}
			return kv.Answered(<-answers)
		}
		first, err := send("one", 0)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := send("two", first); err != nil || second <= first {
			t.Errorf("revision %d after %d, %v", second, first, err)
		}
		if _, err := send("three", first); !errors.Is(err, kv.ErrConflict) {
			t.Errorf("%v, want a conflict", err)
		}
		wantValue(t, b, "k", "two")
		if err := js.DeleteKeyValue(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if _, err := send("four", 0); !kv.Unanswered(err) {
			t.Errorf("%v, want that nothing answered", err)
		}
		if _, err := kv.Answered(&nats.Msg{Data: []byte("{}")}); err == nil {
			t.Error("an answer without a revision was taken")
		}
	})
}

func TestCreateAfterPurge(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		create(t, b, "k", "v", kv.Forever)
		plain, err := s.JetStream(t).KeyValue(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		if err := plain.Purge(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		wantValue(t, b, "k", "")
		create(t, b, "k", "w", kv.Forever)
		wantValue(t, b, "k", "w")
	})
}

// Sixteen writers and a key: all but one learn that they lost, in each of the three ways to write.
func TestOneWriterWins(t *testing.T) {
	const writers, rounds = 16, 20
	inBubble(t, func(t *testing.T, s *natstest.Server, first *kv.Bucket[string]) {
		buckets := make([]*kv.Bucket[string], writers)
		for i := range buckets {
			buckets[i] = open(t, s.JetStream(t), kv.Config{Bucket: "b"})
		}
		race := func(what string, write func(b *kv.Bucket[string], value string) error) (winner string) {
			t.Helper()
			errs := make([]error, writers)
			var wg sync.WaitGroup
			for i, b := range buckets {
				wg.Go(func() { errs[i] = write(b, fmt.Sprint(i)) })
			}
			wg.Wait()
			for i, err := range errs {
				switch {
				case err == nil && winner == "":
					winner = fmt.Sprint(i)
				case !errors.Is(err, kv.ErrConflict):
					t.Errorf("%s by %d: %v, want ErrConflict: %s won", what, i, err, winner)
				}
			}
			if winner == "" {
				t.Fatalf("%s: nobody won", what)
			}
			return winner
		}
		ctx := t.Context()
		for range rounds {
			won := race("create", func(b *kv.Bucket[string], value string) error {
				_, err := b.Create(ctx, "k", value, kv.Forever)
				return err
			})
			wantValue(t, first, "k", won)
			created, err := first.Latest(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			won = race("update", func(b *kv.Bucket[string], value string) error {
				_, err := b.Update(ctx, "k", value, created.Revision, kv.Forever)
				return err
			})
			wantValue(t, first, "k", won)
			updated, err := first.Latest(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			race("delete", func(b *kv.Bucket[string], _ string) error { return b.Delete(ctx, "k", updated.Revision) })
			wantValue(t, first, "k", "")
		}
	})
}

func TestEntry(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
		time.Sleep(time.Minute)
		revision := create(t, b, "a.b", "v", kv.Forever)
		want := kv.Entry[string]{Key: "a.b", Value: "v", Revision: revision, Written: time.Now().UTC()}
		got, err := b.Get(t.Context(), "a.b")
		got.Written = got.Written.UTC()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("get: %v (-want +got):\n%s", err, diff)
		}
		if got, err = b.Latest(t.Context(), "a.b"); err != nil || !cmp.Equal(want, got) {
			t.Errorf("latest: %v (-want +got):\n%s", err, cmp.Diff(want, got))
		}
	})
}

func TestUndecodable(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		if _, err := s.JetStream(t).Publish(t.Context(), "$KV.b.k", []byte("{")); err != nil {
			t.Fatal(err)
		}
		for name, read := range map[string]func() (kv.Entry[string], error){
			"get":    func() (kv.Entry[string], error) { return b.Get(t.Context(), "k") },
			"latest": func() (kv.Entry[string], error) { return b.Latest(t.Context(), "k") },
		} {
			if _, err := read(); !errors.Is(err, kv.ErrUnreadable) || errors.Is(err, kv.ErrNotFound) || !strings.Contains(err.Error(), "read k of b") {
				t.Errorf("%s: %v, want an error that names the key", name, err)
			}
		}
	})
}

func TestPurgeAll(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		for _, key := range []string{"a.1", "a.2", "a.2.x", "b.1"} {
			create(t, b, key, key, kv.Forever)
		}
		if err := kv.PurgeAll(t.Context(), s.JetStream(t), "b", "a.*"); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"a.1": "", "a.2": "", "a.2.x": "a.2.x", "b.1": "b.1"} {
			wantValue(t, b, key, want)
		}
		create(t, b, "a.1", "again", kv.Forever)
	})
}

// An entry is removed at its revision, and one that was written since is not.
func TestPurgeAtRevision(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, b *kv.Bucket[string]) {
		js := s.JetStream(t)
		create(t, b, "other", "v", kv.Forever)
		old := create(t, b, "k", "old", kv.Forever)
		last := update(t, b, "k", "new", old, kv.Forever)
		for _, row := range []struct {
			upTo    uint64
			removed int
			left    string
		}{{old, 0, "new"}, {last, 1, ""}, {last, 0, ""}} {
			removed, err := kv.Purge(t.Context(), js, "b", "k", row.upTo)
			if err != nil || removed != row.removed {
				t.Errorf("purge up to %d removed %d, %v, want %d", row.upTo, removed, err, row.removed)
			}
			wantValue(t, b, "k", row.left)
		}
		wantValue(t, b, "other", "v")
		if _, err := kv.Purge(t.Context(), js, "none", "k", kv.Newest); !errors.Is(err, kv.ErrNoBucket) {
			t.Errorf("without a bucket: %v, want ErrNoBucket", err)
		}
	})
}

// A bucket whose entries age is opened as such, whatever its age, and as no other.
func TestAging(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		js := s.JetStream(t)
		if err := kv.Make(t.Context(), js, kv.Config{Bucket: "b", MaxAge: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Open(t.Context(), js, "b", kv.JSON[string]()); err == nil {
			t.Error("a bucket with a maximum age was opened as one without")
		}
		b, err := kv.OpenAging(t.Context(), js, "b", kv.JSON[string]())
		if err != nil {
			t.Fatal(err)
		}
		create(t, b, "k", "v", kv.Forever)
		time.Sleep(59 * time.Minute)
		wantValue(t, b, "k", "v")
		time.Sleep(2 * time.Minute)
		wantValue(t, b, "k", "")
	})
}

// A server that cannot be reached is an error in bounded time, for contexts without a deadline too.
func TestUnreachable(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		nc, wire := s.ConnectWire(t)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		b := open(t, js, kv.Config{Bucket: "b"})
		wire.Freeze()
		ctx := t.Context()
		tests := map[string]func() error{
			"get":    func() error { _, err := b.Get(ctx, "k"); return err },
			"latest": func() error { _, err := b.Latest(ctx, "k"); return err },
			"create": func() error { _, err := b.Create(ctx, "k", "v", kv.Forever); return err },
			"update": func() error { _, err := b.Update(ctx, "k", "v", 1, kv.Forever); return err },
			"delete": func() error { return b.Delete(ctx, "k", 1) },
			"list":   func() error { _, err := b.List(ctx, ">"); return err },
			"purge":  func() error { return kv.PurgeAll(ctx, js, "b", ">") },
		}
		for name, call := range tests {
			begin := time.Now()
			err := call()
			if err == nil || errors.Is(err, kv.ErrNotFound) || errors.Is(err, kv.ErrConflict) {
				t.Errorf("%s over a frozen wire: %v, want another error", name, err)
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("%s took %v", name, took)
			}
		}
	})
}

func bucketConfig(t *testing.T, js jetstream.JetStream, bucket string) jetstream.StreamConfig {
	t.Helper()
	stream, err := js.Stream(t.Context(), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}

// The marker of what was deleted for a while tells those who watch, and goes.
func TestDeleteFor(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		b := open(t, s.JetStream(t), kv.Config{Bucket: "b"}) // markers would be left of markers
		stored := func() uint64 {
			found, err := s.JetStream(t).Stream(t.Context(), "KV_b")
			if err != nil {
				t.Fatal(err)
			}
			return found.CachedInfo().State.Msgs
		}
		revision := create(t, b, "k", "v", kv.Forever)
		w := watch(t, b, ">")
		w.next(t, 2)
		wantConflict(t, "delete", b.DeleteFor(t.Context(), "k", revision+1, time.Minute))
		if err := b.DeleteFor(t.Context(), "k", revision, time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := w.next(t, 1); got[0] != "no k" {
			t.Errorf("told %q", got)
		}
		wantValue(t, b, "k", "")
		if stored() != 1 {
			t.Error("no marker is left")
		}
		time.Sleep(62 * time.Second)
		if n := stored(); n != 0 {
			t.Errorf("%d messages are left", n)
		}
		create(t, b, "k", "again", kv.Forever)
		wantValue(t, b, "k", "again")
	})
}
