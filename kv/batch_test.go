package kv_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

func TestUpdateAll(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		b := open(t, s.JetStream(t), kv.Config{Bucket: "b", Atomic: true})
		one := create(t, b, "one", "1", kv.Forever)
		create(t, b, "other", "-", kv.Forever)
		revisions, err := b.UpdateAll(t.Context(), []kv.Write[string]{
			{Key: "one", Value: "1a", Revision: one}, {Key: "two", Value: "2a"}, {Key: "three", Value: "3a"},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, key := range []string{"one", "two", "three"} {
			entry, err := b.Latest(t.Context(), key)
			if err != nil || entry.Revision != revisions[i] || !strings.HasSuffix(entry.Value, "a") {
				t.Errorf("%s: %+v, %v; want revision %d", key, entry, err, revisions[i])
			}
		}
		// One key that changed keeps all from being written.
		update(t, b, "two", "2b", revisions[1], kv.Forever)
		_, err = b.UpdateAll(t.Context(), []kv.Write[string]{
			{Key: "one", Value: "1c", Revision: revisions[0]}, {Key: "two", Value: "2c", Revision: revisions[1]},
		})
		wantConflict(t, "update all", err)
		wantValue(t, b, "one", "1a")
		wantValue(t, b, "two", "2b")
	})
}

func TestUpdateAllNeedsAtomic(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		b := open(t, s.JetStream(t), kv.Config{Bucket: "b"})
		_, err := b.UpdateAll(t.Context(), []kv.Write[string]{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}})
		if err == nil || errors.Is(err, kv.ErrConflict) || !strings.Contains(err.Error(), "--allow-batch") {
			t.Errorf("%v, want an error that says what to change", err)
		}
		wantValue(t, b, "a", "")
	})
}
