package integration

import (
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
)

// quotaHistory is what a run with quotas leaves behind. Whether it keeps what
// package quotas promises is a function of it alone.
type quotaHistory struct {
	Jobs      map[job.ID][]string // the quotas that each job names
	Revisions []quotaRevision     // of all quotas, in the order in which they were written
	Log       []event             // of the handlers, in the order in which it was written
	Outcomes  []quotaOutcome
	Fails     bool // what all jobs are to do
	// Again: the server may give a job out again while its lease lasts, since a leader was
	// lost that knew of it. The second delivery waits for a slot beside the first, may get
	// one when the first has ended, and gives it back when it reads the record.
	Again bool
}

// quotaRevision is one value that a quota had.
type quotaRevision struct {
	Sequence uint64
	Quota    string
	Batch    string    // of the atomic write that it was part of, if any
	At       time.Time // by the server's clock
	quotas.Slots
}

// quotaOutcome is a job's record in its final state, as often as one was
// written.
type quotaOutcome struct {
	Job       job.ID
	At        time.Time // by the server's clock
	Succeeded bool
}

// check returns everything that is wrong with the history.
func (h quotaHistory) check() []error {
	slots := &slotsChecker{
		jobs: h.Jobs, now: make(map[string]quotas.Slots), top: make(map[string]uint64),
		fences: make(map[fenceKey]uint64), open: make(map[tenureKey]*tenure), byFence: make(map[string]map[uint64]*tenure),
	}
	slots.check(h.Revisions)
	runs := &runsChecker{jobs: h.Jobs, slots: slots, live: make(map[string]map[string]*run), starts: make(map[job.ID][]time.Time)}
	runs.check(h.Log)
	return slices.Concat(slots.errs, runs.errs, h.checkOutcomes(slots, runs))
}

// tenure is the time that a job is among the holders of a quota, whichever of
// its attempts.
type tenure struct {
	job      job.ID
	sequence uint64 // of the revision by which it was let in
	size     int    // of the quota then, -1 where it limited nothing
	from, to time.Time
	over     bool
	ran      bool     // the job, for some of that time
	fences   []uint64 // of the attempts, in order
}

type fenceKey struct {
	quota string
	nonce job.Nonce
	token job.Token
}

type tenureKey struct {
	quota string
	nonce job.Nonce
}

// slotsChecker checks the values of the quotas.
type slotsChecker struct {
	jobs    map[job.ID][]string
	now     map[string]quotas.Slots
	top     map[string]uint64 // the highest fencing token so far, by quota
	fences  map[fenceKey]uint64
	open    map[tenureKey]*tenure
	tenures []*tenure
	byFence map[string]map[uint64]*tenure // by quota
	errs    []error
}

func (c *slotsChecker) wrong(r quotaRevision, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("revision %d of %s: "+format, slices.Concat([]any{r.Sequence, r.Quota}, args)...))
}

// value is what a quota is now. One that was never written limits nothing.
func (c *slotsChecker) value(quota string) quotas.Slots {
	if now, ok := c.now[quota]; ok {
		return now
	}
	return quotas.Slots{Removed: true}
}

func (c *slotsChecker) check(revisions []quotaRevision) {
	for len(revisions) > 0 {
		n := 1
		for revisions[0].Batch != "" && n < len(revisions) && revisions[n].Batch == revisions[0].Batch {
			n++
		}
		var entered []quotaRevision // with the new holders alone
		for _, r := range revisions[:n] {
			before := c.value(r.Quota)
			fresh := fresh(before.Holders, r.Holders)
			c.checkRoom(r, fresh)
			c.checkFences(r, before)
			c.checkLine(r, fresh)
			c.keepTenures(r, before)
			c.now[r.Quota] = r.Slots
			r.Holders = fresh
			entered = append(entered, r)
		}
		for _, r := range entered {
			c.checkTogether(r)
		}
		revisions = revisions[n:]
	}
	for name, now := range c.now {
		for _, claim := range now.Holders {
			c.errs = append(c.errs, fmt.Errorf("job %s has a slot of %s at the end", claim.ID, name))
		}
	}
	for name, now := range c.now {
		for _, claim := range now.Waiters {
			c.errs = append(c.errs, fmt.Errorf("job %s waits for %s at the end", claim.ID, name))
		}
	}
}

// fresh lists the claims of now whose job has none in before.
func fresh(before, now []quotas.Claim) []quotas.Claim {
	return slices.DeleteFunc(slices.Clone(now), func(c quotas.Claim) bool { return among(before, c.Nonce) })
}

func sameAttempt(a quotas.Claim) func(quotas.Claim) bool {
	return func(b quotas.Claim) bool { return a.Nonce == b.Nonce && a.Token == b.Token }
}

func among(claims []quotas.Claim, nonce job.Nonce) bool {
	return slices.ContainsFunc(claims, func(c quotas.Claim) bool { return c.Nonce == nonce })
}

// checkRoom: nobody is let in where there is no room, nor anybody twice.
func (c *slotsChecker) checkRoom(r quotaRevision, fresh []quotas.Claim) {
	if len(fresh) > 0 && !r.Removed && len(r.Holders) > r.Size {
		c.wrong(r, "%d let in, %d holders where the size is %d", len(fresh), len(r.Holders), r.Size)
	}
	seen := make(map[job.Nonce]bool)
	for _, claim := range slices.Concat(r.Holders, r.Waiters) {
		if seen[claim.Nonce] {
			c.wrong(r, "job %s has two claims", claim.ID)
		}
		seen[claim.Nonce] = true
		named := c.jobs[claim.ID]
		if !slices.Contains(named, r.Quota) || claim.Several != (len(named) > 1) {
			c.wrong(r, "claim of job %s, which names %q: %+v", claim.ID, named, claim)
		}
	}
}

// checkFences: an attempt keeps its fencing token, and every new one is higher
// than all before.
func (c *slotsChecker) checkFences(r quotaRevision, before quotas.Slots) {
	added := make([]uint64, 0, len(r.Holders))
	for _, claim := range r.Holders {
		key := fenceKey{r.Quota, claim.Nonce, claim.Token}
		fence, known := c.fences[key]
		c.fences[key] = claim.Fence
		switch {
		case !known:
			added = append(added, claim.Fence)
		case fence != claim.Fence:
			c.wrong(r, "fencing token of job %s was %d, and is %d for the same attempt", claim.ID, fence, claim.Fence)
		case !slices.ContainsFunc(before.Holders, sameAttempt(claim)):
			c.wrong(r, "an attempt of job %s that was out is in again", claim.ID)
		}
	}
	slices.Sort(added)
	for _, fence := range added {
		if fence <= c.top[r.Quota] {
			c.wrong(r, "fencing token %d is given after %d", fence, c.top[r.Quota])
		}
		c.top[r.Quota] = fence
	}
	if r.Fence < c.top[r.Quota] {
		c.wrong(r, "remembers fencing token %d, %d was given", r.Fence, c.top[r.Quota])
	}
}

// checkLine: waiters stand in order, are let in by it, and do not stand there
// while there is a slot for them.
func (c *slotsChecker) checkLine(r quotaRevision, fresh []quotas.Claim) {
	free := r.Size - len(r.Holders)
	for i, w := range r.Waiters {
		if i > 0 && !ahead(r.Waiters[i-1], w) {
			c.wrong(r, "waiters are out of order: %+v", r.Waiters)
		}
		if w.Several {
			if w.Reserves {
				free--
			}
			continue
		}
		if r.Removed || free > 0 {
			c.wrong(r, "job %s waits although a slot is free", w.ID)
		}
		for _, let := range fresh {
			if ahead(w, let) {
				c.wrong(r, "job %s is let in before job %s", let.ID, w.ID)
			}
		}
	}
}

func ahead(a, b quotas.Claim) bool {
	if a.Interrupted != b.Interrupted {
		return a.Interrupted
	}
	return a.Sequence < b.Sequence
}

// keepTenures notes who is let in and who is out.
func (c *slotsChecker) keepTenures(r quotaRevision, before quotas.Slots) {
	for _, claim := range before.Holders {
		key := tenureKey{r.Quota, claim.Nonce}
		if t := c.open[key]; t != nil && !among(r.Holders, claim.Nonce) {
			t.to, t.over = r.At, true
			delete(c.open, key)
		}
	}
	for _, claim := range r.Holders {
		key := tenureKey{r.Quota, claim.Nonce}
		t := c.open[key]
		if t == nil {
			t = &tenure{job: claim.ID, sequence: r.Sequence, size: r.Size, from: r.At}
			if r.Removed {
				t.size = -1
			}
			c.open[key] = t
			c.tenures = append(c.tenures, t)
		}
		if !slices.Contains(t.fences, claim.Fence) {
			t.fences = append(t.fences, claim.Fence)
		}
		if c.byFence[r.Quota] == nil {
			c.byFence[r.Quota] = make(map[uint64]*tenure)
		}
		c.byFence[r.Quota][claim.Fence] = t
	}
}

// checkTogether: a job that names several quotas is let into all of them at
// once. Those that limit nothing do not count, nor those where it has a slot
// already: from an earlier attempt, or from a time when the quota was removed.
func (c *slotsChecker) checkTogether(r quotaRevision) {
	for _, claim := range r.Holders {
		for _, other := range c.jobs[claim.ID] {
			if now := c.value(other); !r.Removed && !now.Removed && !among(now.Holders, claim.Nonce) {
				c.wrong(r, "job %s is let in without a slot of %s", claim.ID, other)
			}
		}
	}
}
