package integration

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// run is an attempt whose handler runs.
type run struct {
	event
	tenures map[string]*tenure // by quota
}

// runsChecker checks what the handlers wrote against the values of the quotas.
type runsChecker struct {
	jobs   map[job.ID][]string
	slots  *slotsChecker
	live   map[string]map[string]*run // by quota, or "" for all; by attempt
	starts map[job.ID][]time.Time
	cut    []*run // those that were interrupted
	errs   []error
}

func (c *runsChecker) wrong(e event, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("job %s, attempt %d of %s: "+format, slices.Concat([]any{e.Job, e.Attempt, e.Dispatcher}, args)...))
}

func (c *runsChecker) check(log []event) {
	for _, e := range log {
		switch e.Event {
		case "start":
			c.start(e)
		case "end", "interrupted":
			r := c.live[""][attemptOf(e)]
			if r == nil {
				c.wrong(e, "%s without start", e.Event)
				continue
			}
			c.stop(r, e)
		case "killed": // all that the dispatcher had
			for _, r := range c.live[""] {
				if r.Dispatcher == e.Dispatcher {
					c.stop(r, e)
				}
			}
		}
	}
	for _, r := range c.live[""] {
		c.wrong(r.event, "runs still at the end")
	}
	for _, r := range c.cut {
		for quota, t := range r.tenures {
			if t.over && t.fences[len(t.fences)-1] == r.fence(quota) {
				c.wrong(r.event, "was interrupted, and its slot of %s was given back before another attempt had it", quota)
			}
		}
	}
}

// attemptOf tells attempts apart, whose numbers are not enough: one that leaves
// no trace has that of the next.
func attemptOf(e event) string { return fmt.Sprint(e.Job, e.Dispatcher, e.Attempt, e.Fences) }

func (c *runsChecker) start(e event) {
	c.starts[e.Job] = append(c.starts[e.Job], e.At)
	for _, other := range c.live[""] {
		if other.Job == e.Job {
			c.wrong(e, "starts while the attempt of %s runs", other.Dispatcher)
		}
	}
	r := &run{event: e, tenures: make(map[string]*tenure)}
	c.add("", r)
	for _, quota := range c.jobs[e.Job] {
		t := c.slots.byFence[quota][e.fence(quota)]
		switch {
		case t == nil || t.job != e.Job:
			c.wrong(e, "runs without a slot of %s", quota)
			continue
		case e.At.Before(t.from):
			c.wrong(e, "started %v before it had a slot of %s", t.from.Sub(e.At), quota)
		case t.over && t.to.Before(e.At):
			c.wrong(e, "started %v after its slot of %s was given back", e.At.Sub(t.to), quota)
		}
		r.tenures[quota], t.ran = t, true
		c.add(quota, r)
		c.checkCrowd(e, quota)
	}
}

func (c *runsChecker) add(quota string, r *run) {
	if c.live[quota] == nil {
		c.live[quota] = make(map[string]*run)
	}
	c.live[quota][attemptOf(r.event)] = r
}

// checkCrowd: no more run at once than the quota's size was when the last of
// them was let in. It may have been made smaller since.
func (c *runsChecker) checkCrowd(e event, quota string) {
	last := slices.MaxFunc(slices.Collect(maps.Values(c.live[quota])), func(a, b *run) int {
		return int(a.tenures[quota].sequence) - int(b.tenures[quota].sequence)
	}).tenures[quota]
	if n := len(c.live[quota]); last.size >= 0 && n > last.size {
		c.wrong(e, "%d run at once in %s, whose size was %d when the last was let in", n, quota, last.size)
	}
}

func (c *runsChecker) stop(r *run, e event) {
	if e.Event != "end" {
		c.cut = append(c.cut, r)
	}
	delete(c.live[""], attemptOf(r.event))
	for quota, t := range r.tenures {
		delete(c.live[quota], attemptOf(r.event))
		if t.over && t.to.Before(e.At) {
			c.wrong(r.event, "ran for %v after its slot of %s was given back", e.At.Sub(t.to), quota)
		}
	}
}

// checkOutcomes: every job has one outcome, and when it is written the job is
// over: it has no slot, gets none in which it could run, and is not started any more.
func (h quotaHistory) checkOutcomes(slots *slotsChecker, runs *runsChecker) (errs []error) {
	outcomes := make(map[job.ID][]quotaOutcome)
	for _, o := range h.Outcomes {
		outcomes[o.Job] = append(outcomes[o.Job], o)
		if _, put := h.Jobs[o.Job]; !put {
			errs = append(errs, fmt.Errorf("job %s has an outcome and was not put", o.Job))
		}
	}
	for id := range h.Jobs {
		if n := len(outcomes[id]); n != 1 {
			errs = append(errs, fmt.Errorf("job %s has %d outcomes", id, n))
			continue
		}
		over := outcomes[id][0]
		if over.Succeeded == h.Fails {
			errs = append(errs, fmt.Errorf("job %s has succeeded: %v", id, over.Succeeded))
		}
		for _, at := range runs.starts[id] {
			if at.After(over.At) {
				errs = append(errs, fmt.Errorf("job %s is started %v after its outcome", id, at.Sub(over.At)))
			}
		}
		if len(runs.starts[id]) == 0 {
			errs = append(errs, fmt.Errorf("job %s has an outcome and was never started", id))
		}
	}
	for _, t := range slots.tenures {
		of := outcomes[t.job]
		if len(of) == 1 && (t.ran || !h.Again) && (!t.over || t.to.After(of[0].At)) {
			errs = append(errs, fmt.Errorf("job %s has a slot (revision %d) when it has its outcome", t.job, t.sequence))
		}
	}
	return errs
}
