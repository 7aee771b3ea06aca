package agents

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

func nonceOf(n int) (nonce job.Nonce) {
	binary.BigEndian.PutUint64(nonce[:], uint64(n))
	return nonce
}

// What was told is remembered for a minute and, where more is told, for less than
// three.
func TestToldSet(t *testing.T) {
	var s toldSet
	if s.has(nonceOf(0)) {
		t.Error("it knows what it was not told")
	}
	begin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	const every = time.Second
	for i := range 600 {
		now := begin.Add(time.Duration(i) * every)
		s.add(nonceOf(i), now)
		for n := range i {
			age := time.Duration(i-n) * every
			if known := s.has(nonceOf(n)); age <= toldFor && !known || age >= 3*toldFor && known {
				t.Fatalf("told %v ago: remembered %t", age, known)
			}
		}
	}
	if n := len(s.recent) + len(s.older); n > 200 {
		t.Errorf("%d are remembered", n)
	}
}

// A word costs the same however many there were in the minute.
func BenchmarkTold(b *testing.B) {
	var s leaseSet
	i := 0
	for b.Loop() {
		s.tell(nonceOf(i))
		i++
	}
}
