package agents

import (
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// Of two attempts of one job the later is told that the job was cancelled, also
// when the earlier has ended.
func TestLeaseSet(t *testing.T) {
	nonce := job.Nonce{1}
	var s leaseSet
	looked := make(chan string, 1)
	wantLook := func(who string) {
		t.Helper()
		select {
		case got := <-looked:
			if got != who {
				t.Errorf("%s looked, want %s", got, who)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s did not look", who)
		}
	}
	first := s.add(nonce, func() { looked <- "first" })
	second := s.add(nonce, func() { looked <- "second" })
	if first() {
		t.Error("it was told of nothing")
	}
	if !s.tell(nonce) {
		t.Error("the job is not here")
	}
	wantLook("second")
	s.add(nonce, func() { looked <- "third" })
	wantLook("third") // since it was said before
	if !second() {
		t.Error("it does not know that it was told")
	}
	if !s.tell(nonce) || s.tell(job.Nonce{2}) {
		t.Error("want that the job is here, and no other")
	}
	wantLook("third")
}
