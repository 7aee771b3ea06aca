package agents

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// leaseSet is the jobs whose leases are kept now, begun or not, and those that
// were cancelled of late.
type leaseSet struct {
	mu   sync.Mutex
	kept map[job.Nonce]*keptLease // of several attempts of one job here, the last
	told toldSet
}

// keptLease is a job whose lease is kept.
type keptLease struct {
	look func() // looks whether the job was cancelled
}

// add takes a job whose lease is kept, and how to look whether it was cancelled,
// which is done at once where that was said before. From when forget is called, who
// cancels is told that the job is not here; it reports whether it was said before.
func (s *leaseSet) add(nonce job.Nonce, look func()) (forget func() (told bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[job.Nonce]*keptLease)
	}
	ours := &keptLease{look}
	s.kept[nonce] = ours
	if s.told.has(nonce) {
		go look()
	}
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.kept[nonce] == ours {
			delete(s.kept, nonce)
		}
		return s.told.has(nonce)
	}
}

// tell has a job looked at that is said to be cancelled, and reports whether it
// is here.
func (s *leaseSet) tell(nonce job.Nonce) (here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told.add(nonce, time.Now())
	lease, here := s.kept[nonce]
	if here {
		go lease.look()
	}
	return here
}

// toldOf reports whether a job was said to be cancelled of late, so that its
// record is to be looked at before it begins.
func (s *leaseSet) toldOf(nonce job.Nonce) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told.has(nonce)
}

// Cancelled tells the runner that a job was cancelled, and reports whether it
// has it. What it is told it does not believe: the job's record decides.
func (r *Runner) Cancelled(nonce job.Nonce) (here bool) { return r.leases.tell(nonce) }

// cancelled ends an attempt whose job was cancelled while it had the lease.
func (a *attempt) cancelled() {
	if !a.settled.CompareAndSwap(false, true) {
		return
	}
	a.ended = time.Now()
	switch next, _, _ := a.peek(); next {
	case stepPay, stepAck:
		a.settle(next)
	default: // it cannot be read, or was removed; whoever gets the message finds out
		a.abandon()
		a.dropped(job.ErrCancelled)
	}
}

// paysStopped has this attempt pay what its job owes where somebody has cancelled it
// and was told that it is here; it reports whether that is so. The attempt does not
// look any more whether its job is cancelled: who cancels from now on does all
// that is to be done.
func (a *attempt) paysStopped() bool {
	if !a.forget() {
		return false
	}
	record, revision, found, err := a.readRecord()
	if err != nil || !found || record.Nonce != a.spec.Nonce || !record.Stopped() {
		return false
	}
	a.last, a.revision = &record, revision
	a.pay(true)
	return true
}

// pay pays what a job owes whose outcome is recorded: it gives back its slots,
// puts its callbacks, and then calls it completed. again says that somebody may
// have begun with that.
//
// A crash between leaves state Callbacks, and its message, whose next receiver does
// it again.
func (a *attempt) pay(again bool) {
	if err := a.release(); err != nil {
		a.log("job left to be delivered again: its slots cannot be given back", err)
		return
	}
	queue := a.runner.config.Queue
	for {
		record := *a.last
		err := a.exchange(func(ctx context.Context) (err error) {
			record.Called, err = queue.PutCallbacks(ctx, a.lease.ID, a.spec, record, again)
			return err
		})
		if err != nil {
			a.log("job left to be delivered again: its callbacks cannot be put", err)
			return
		}
		again = true
		record.State = job.Completed
		err = a.exchange(func(ctx context.Context) error {
			_, err := queue.Write(ctx, a.lease.ID, record, a.revision, a.spec.Keep)
			return err
		}, kv.ErrConflict)
		conflict := errors.Is(err, kv.ErrConflict)
		if err != nil && !conflict {
			a.dropped(err)
			return
		}
		if conflict {
			switch next, _, _ := a.peek(); next {
			case stepPay:
				continue
			case stepLeave:
				return
			}
			// Somebody did it, or used the ID again.
		}
		a.conclude(record)
		return
	}
}

// decided takes that the outcome of an attempt could not be recorded: where the
// job was cancelled meanwhile, that is its outcome.
func (a *attempt) decided(err error) {
	if errors.Is(err, errCancelled) {
		a.pay(true)
		return
	}
	a.abandon() // no more than a word where they are given back already
	a.dropped(err)
}
