package quotas

import (
	"sync"

	"github.com/asyncnats/asyncnats/job"
)

// Ticket is one attempt's way through a [Gate]: it waits, is granted slots in
// all the quotas that the job names, and leaves.
type Ticket struct {
	gate  *Gate
	claim Claim
	names []string
	held  func() bool

	known   chan struct{} // closed when the gate knows whether it must wait
	granted chan struct{}
	lost    chan struct{}
	left    chan struct{}

	// owned by the gate's loop until granted or left is closed
	phase phase
	// unstarted: the job was not started, so that a rate limit's grant is given
	// back.
	unstarted bool
	told      bool // known is closed
	fences    map[string]uint64
	marks     map[string]mark // by quota

	leaving sync.Once
}

// phase is how far a ticket has come.
type phase int

const (
	waiting phase = iota
	holding
	leaving
	gone // of no concern to the gate any more
)

// mark is what the gate saw of a ticket in one quota.
type mark struct {
	seen  bool // it stood among the claims
	holds bool
	out   bool // it left
}

// Known is closed when the gate knows how the ticket stands: granted, or
// waiting for others.
func (t *Ticket) Known() <-chan struct{} { return t.known }

// Granted is closed when the ticket has a slot in every quota.
func (t *Ticket) Granted() <-chan struct{} { return t.granted }

// Lost is closed when another attempt of the job has taken over the slots, or
// somebody has removed them: this one must stop.
func (t *Ticket) Lost() <-chan struct{} { return t.lost }

// Compare tells which of two tickets is served first where both wait for the same:
// negative for t, positive for the other.
func (t *Ticket) Compare(other *Ticket) int { return compare(t.claim, other.claim) }

// Fences returns the fencing tokens by quota. To be called after Granted is
// closed.
func (t *Ticket) Fences() map[string]uint64 { return t.fences }

// Leave gives the slots back, or the place among the waiters; what a rate limit
// has granted is spent. The channel is
// closed once that is written; it may be ignored. The job's message must not be
// acked before.
func (t *Ticket) Leave() <-chan struct{} {
	t.leaving.Do(func() {
		t.gate.work.Do(func() { t.gate.leave(t) })
	})
	return t.left
}

// Withdraw is Leave for a job that was not started: what rate limits have granted
// it is given back as well.
func (t *Ticket) Withdraw() <-chan struct{} {
	t.leaving.Do(func() {
		t.gate.work.Do(func() {
			t.unstarted = true
			t.gate.leave(t)
		})
	})
	return t.left
}

// Abandon leaves the slots to the job's next attempt. To be called where the
// job was interrupted, or its lease is lost.
func (t *Ticket) Abandon() {
	t.leaving.Do(func() {
		t.gate.work.Do(func() { t.gate.drop(t) })
	})
}

// is reports whether a claim is the ticket's.
func (t *Ticket) is(c Claim) bool { return c.Nonce == t.claim.Nonce && c.Token == t.claim.Token }

// release is a way out for a job of which no attempt of this process has a
// ticket: it expels whoever claims for it.
type release struct {
	nonce job.Nonce
	left  int // quotas that it has to leave still
	done  chan struct{}
}

// exit is a release's way out of one quota.
type exit struct {
	*release
	after int // the reading of the quota that it waits for
}
