package agents

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// admission is a job that names quotas and has no place yet, as its runner
// counts it. It is owned by the runner's loop.
type admission struct {
	runner  *Runner
	lane    *laneState
	claims  context.Context // ends when nothing is to be taken from the lane any more
	lease   *stream.Lease
	relief  bool // it was taken from a full lane
	stage   stage
	ticket  *quotas.Ticket // once it is queued
	swapped chan struct{}  // closed when another waits in its place
}

type stage int

const (
	// entering: it may get its slots at once, so a place is kept for it.
	entering stage = iota
	// queued: it waits for others.
	queued
	// outside: it has a place, waits for one, or is gone.
	outside
)

// arrive counts a job that was delivered.
func (s *laneState) arrive(r *Runner, lease *stream.Lease, relief bool) *admission {
	r.entering++
	return &admission{runner: r, lane: s, lease: lease, claims: s.claims, relief: relief, swapped: make(chan struct{})}
}

func (e *admission) move(to stage) {
	if e.stage == outside || e.stage == to {
		return
	}
	if e.stage == entering {
		e.runner.entering--
	} else {
		e.lane.queued = slices.DeleteFunc(e.lane.queued, func(other *admission) bool { return other == e })
	}
	if e.stage = to; to == queued {
		e.lane.queued = append(e.lane.queued, e)
	}
}

// wait notes that the job waits for others, unless it has its slots by now.
func (e *admission) wait(ticket *quotas.Ticket) {
	select {
	case <-ticket.Granted():
		return
	default:
	}
	e.ticket = ticket
	e.move(queued)
	if e.relief && e.stage == queued {
		e.lane.swap(e.runner, e, time.Now())
	}
}

// admit takes a delivered job that names quotas. One that was surely not begun
// enters the gate here, in the runner's loop, so that jobs enter in the order in
// which they were delivered.
func (r *Runner) admit(s *laneState, lease *stream.Lease, relief bool) {
	if !lease.Held() {
		r.late(lease)
		return
	}
	a, invalid := r.attempt(lease)
	if invalid == nil && a.first() && !a.early() {
		a.enter(false)
	}
	entry := s.arrive(r, lease, relief)
	r.admissions++
	go func() {
		defer r.box.Post(func() { // whatever becomes of the handler's goroutine
			entry.move(outside)
			r.admissions--
			select {
			case <-entry.swapped:
				s.leaving--
			default:
			}
		})
		r.pass(entry, a, invalid)
	}()
}

// enter asks for the slots that the job needs.
func (a *attempt) enter(interrupted bool) {
	a.ticket = a.runner.config.Gate.Enter(quotas.Entry{
		ID: a.lease.ID, Nonce: a.spec.Nonce, Token: a.us.Token, Sequence: a.lease.Sequence,
		Interrupted: interrupted, Quotas: a.spec.Quotas, Held: a.lease.Held,
	})
}

// pass takes a job that names quotas to its end: through the gate, where it may
// wait, then to a place of the agent. While it waits it has no place, and its
// lease is kept.
//
// A crash leaves the job's claim where it was; whoever gets the job next takes
// it over.
func (r *Runner) pass(entry *admission, a *attempt, invalid error) {
	ctx, lose, stop := a.keepLease()
	defer stop()
	if a.ticket == nil {
		next, record, found := stepRun, job.Record{}, false
		switch {
		case !a.first():
			next, record, found = a.peek()
		case a.early():
			next = stepEarly
		}
		switch {
		case !a.settle(next):
			return
		case invalid != nil:
			a.finish(job.Outcome{Failure: job.Invalidf("%v", invalid)})
			return
		}
		a.enter(found && record.Nonce == a.spec.Nonce)
	}
	defer a.watchTicket(ctx, lose)()
	if !a.waitForSlot(ctx, entry) || !r.takePlace(entry) {
		a.turnBack(ctx)
		return
	}
	defer r.leavePlace(time.Now())
	if ctx.Err() != nil || !a.lease.Held() { // while it waited for its place
		a.turnBack(ctx)
		return
	}
	a.began = time.Now()
	a.perform(ctx, nil)
}

// watchTicket ends the attempt when its slots are lost.
func (a *attempt) watchTicket(ctx context.Context, lose context.CancelCauseFunc) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-a.ticket.Lost():
			lose(job.ErrLeaseLost)
		case <-ctx.Done():
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

// waitForSlot waits until the attempt has its slots. It reports false where the
// runner takes no more jobs, another waits in its place, the lease or the claim is
// lost, or the job's deadline passes.
//
// Where it is not known soon whether it must wait, since its quotas cannot be
// read or written, the job keeps no place meanwhile.
func (a *attempt) waitForSlot(ctx context.Context, entry *admission) bool {
	known := a.ticket.Known()
	soon := time.NewTimer(holdFor)
	defer soon.Stop()
	waits := func() {
		known = nil
		soon.Stop()
		a.runner.box.Post(func() { entry.wait(a.ticket) })
	}
	var late <-chan time.Time
	if !a.spec.Deadline.IsZero() {
		late = time.After(a.spec.Deadline.Sub(a.now()))
	}
	for {
		select {
		case <-a.ticket.Granted():
			return ctx.Err() == nil
		case <-known:
			waits()
		case <-soon.C:
			waits()
		case <-late:
			if a.late() {
				return false
			}
			late = time.After(time.Millisecond)
		case <-ctx.Done():
			return false
		case <-entry.claims.Done():
			return false
		case <-entry.swapped:
			return false
		}
	}
}

// takePlace waits for a place of the agent; of jobs of one priority those that
// have their slots come first. It reports false where there is none for a while,
// so that others may have the slot, or where the runner takes no more jobs.
func (r *Runner) takePlace(entry *admission) bool {
	answer := make(chan bool, 1)
	r.box.Post(func() {
		entry.move(outside)
		r.hold(hold{
			since: time.Now(), lane: entry.lane, slot: true,
			start:  func() { r.running++; answer <- true },
			refuse: func() { answer <- false },
		})
	})
	return <-answer
}

// leavePlace gives the place back that was taken at the given time.
func (r *Runner) leavePlace(taken time.Time) {
	took := time.Since(taken)
	r.box.Post(func() { r.ran(took) })
}

// turnBack ends an attempt that is not to begin, whatever keeps it from that.
func (a *attempt) turnBack(ctx context.Context) {
	switch {
	case errors.Is(context.Cause(ctx), job.ErrCancelled):
		a.cancelled()
	case ctx.Err() == nil && a.late():
		a.finish(job.Outcome{Failure: a.expired()})
	default:
		a.withdraw(ctx)
	}
}

// withdraw gives the attempt's claim back, and then the job, which was not
// started.
func (a *attempt) withdraw(ctx context.Context) {
	if errors.Is(context.Cause(ctx), job.ErrLeaseLost) {
		a.ticket.Withdraw()
		return
	}
	left := a.ticket.Withdraw()
	select {
	case <-left:
	case <-time.After(min(a.lease.Remaining(), ioPatience)):
		// The claim is taken over by whoever gets the job next.
	}
	a.runner.handBack(a.lease)
}

// release gives back the slots of a job that is over, its own or those that an
// attempt before it left, and waits until that is written. The error is
// job.ErrLeaseLost where the lease ended first; the slots are then the next
// attempt's.
func (a *attempt) release() error {
	var released <-chan struct{}
	switch {
	case a.ticket == nil && (len(a.lease.Lane.Quotas()) == 0 || a.lease.Delivered == 1 && a.spec.Attempt == 0):
		return nil
	case !a.lease.Held():
		a.abandon()
		return job.ErrLeaseLost
	case a.ticket != nil:
		released = a.ticket.Leave()
	default:
		released = a.runner.config.Gate.Expel(a.spec.Nonce, a.lease.Lane.Quotas())
	}
	return a.await(released)
}

// leaveTicket gives back the slots that this attempt has got itself, where it is not
// the one that begins; those of the job's other message stay. It reports false where
// they cannot be given back, and the job is left to be delivered again.
func (a *attempt) leaveTicket() bool {
	if a.ticket == nil {
		return true
	}
	err := a.await(a.ticket.Withdraw())
	if err != nil {
		a.log("job left to be delivered again: its slots cannot be given back", err)
	}
	return err == nil
}

// await waits until slots are given back, or the lease ends, which is
// job.ErrLeaseLost.
func (a *attempt) await(released <-chan struct{}) error {
	for {
		patience := time.NewTimer(a.lease.Remaining())
		select {
		case <-released:
			patience.Stop()
			return nil
		case <-patience.C: // the lease may have been extended
			if !a.lease.Held() {
				return job.ErrLeaseLost
			}
		}
	}
}

// abandon leaves the attempt's slots to the job's next attempt.
func (a *attempt) abandon() {
	if a.ticket != nil {
		a.ticket.Abandon()
	}
}

// fences returns the attempt's fencing tokens; nil where it has no slots.
func (a *attempt) fences() map[string]uint64 {
	if a.ticket == nil {
		return nil
	}
	return a.ticket.Fences()
}
