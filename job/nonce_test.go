package job_test

import (
	"strings"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

func TestNonceText(t *testing.T) {
	nonce := job.NewNonce()
	if nonce.IsZero() || nonce == job.NewNonce() {
		t.Fatal("NewNonce does not draw")
	}
	text, err := nonce.MarshalText()
	if err != nil || string(text) != nonce.String() {
		t.Fatalf("MarshalText = %q, %v", text, err)
	}
	var read job.Nonce
	if err := read.UnmarshalText([]byte(strings.ToUpper(string(text)))); err != nil || read != nonce {
		t.Fatalf("UnmarshalText = %v, %v; want %v", read, err, nonce)
	}
	for row, text := range map[string]string{
		"empty": "", "short": strings.Repeat("0", 31), "long": strings.Repeat("0", 33), "not hexadecimal": strings.Repeat("g", 32),
	} {
		before := read
		if err := read.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s: no error", row)
		}
		if read != before {
			t.Errorf("%s: the nonce was changed by what it refused", row)
		}
	}
}

// TestNonceAt proves that no two messages of a queue share a nonce: each has
// a sequence of its own, and a queue made anew begins at a later time.
func TestNonceAt(t *testing.T) {
	now := time.Unix(1_750_000_000, 123_456_789)
	seen := map[job.Nonce]bool{}
	for _, stored := range []time.Time{now, now.Add(time.Nanosecond), now.Add(time.Hour)} {
		for _, sequence := range []uint64{1, 2, 256, 1 << 32, 1<<64 - 1} {
			nonce := job.NonceAt(sequence, stored)
			if nonce.IsZero() || seen[nonce] {
				t.Errorf("NonceAt(%d, %v) = %v: zero or seen before", sequence, stored, nonce)
			}
			if again := job.NonceAt(sequence, stored.UTC()); again != nonce {
				t.Errorf("NonceAt(%d) depends on the time zone", sequence)
			}
			seen[nonce] = true
		}
	}
}
