package kv_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

func TestTTL(t *testing.T) {
	tests := map[string]struct {
		ttl   time.Duration
		lives time.Duration // 0 is for ever
	}{
		"for ever":           {kv.Forever, 0},
		"ten minutes":        {10 * time.Minute, 10 * time.Minute},
		"a day and more":     {26 * time.Hour, 26 * time.Hour},
		"a second":           {time.Second, time.Second},
		"the longest":        {math.MaxInt64, 0},
		"past the server's":  {280 * 365 * 24 * time.Hour, 0},
		"rounded up":         {1100 * time.Millisecond, 2 * time.Second},
		"less than a second": {time.Millisecond, time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
				create(t, b, "created", "v", test.ttl)
				// The life of a value is that of its last write, whatever those before it said.
				update(t, b, "cut_short", "v", create(t, b, "cut_short", "u", kv.Forever), test.ttl)
				update(t, b, "prolonged", "v", create(t, b, "prolonged", "u", time.Second), test.ttl)
				keys := []string{"created", "cut_short", "prolonged"}

				lives := test.lives
				if lives == 0 {
					lives = 26 * time.Hour
				}
				time.Sleep(lives - 500*time.Millisecond)
				for _, key := range keys {
					wantValue(t, b, key, "v")
				}
				if test.lives == 0 {
					return
				}
				time.Sleep(2500 * time.Millisecond)
				for _, key := range keys {
					wantValue(t, b, key, "")
				}
			})
		})
	}
}

func TestCreateOverExpiryMarker(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, b *kv.Bucket[string]) {
		create(t, b, "k", "v", time.Second)
		time.Sleep(3 * time.Second) // the marker lasts a minute
		create(t, b, "k", "w", kv.Forever)
		wantValue(t, b, "k", "w")
		time.Sleep(2 * time.Minute)
		wantValue(t, b, "k", "w")
	})
}

func TestMarkers(t *testing.T) {
	tests := map[string]struct {
		markers time.Duration
		want    []string
	}{
		"with":    {time.Minute, []string{"current", "k=v", "no k", "other=v"}},
		"without": {0, []string{"current", "k=v", "other=v"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
				b := open(t, s.JetStream(t), kv.Config{Bucket: "b", Markers: test.markers})
				w := watch(t, b, ">")
				got := w.next(t, 1)
				create(t, b, "k", "v", 5*time.Second)
				time.Sleep(10 * time.Second)
				create(t, b, "other", "v", kv.Forever)
				got = append(got, w.next(t, len(test.want)-1)...)
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}
