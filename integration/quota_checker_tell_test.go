package integration

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
)

// blamed returns a job that an error is about, if any.
func (h quotaHistory) blamed(err error) job.ID {
	for id := range h.Jobs {
		if strings.Contains(err.Error(), string(id)) {
			return id
		}
	}
	return ""
}

// tell returns what happened to a job, line by line.
func (h quotaHistory) tell(id job.ID) string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	say := func(at time.Time, format string, args ...any) {
		lines = append(lines, line{at, fmt.Sprintf(format, args...)})
	}
	last := make(map[string]string)
	for _, r := range h.Revisions {
		now := "out"
		if c, ok := claimOf(r.Holders, id); ok {
			now = fmt.Sprintf("holds, fence %d, attempt %016x of %.8s", c.Fence, uint64(c.Token), c.Dispatcher)
		} else if c, ok := claimOf(r.Waiters, id); ok {
			now = fmt.Sprintf("waits, interrupted %t, passed %d, reserves %t, attempt %016x of %.8s",
				c.Interrupted, c.Passed, c.Reserves, uint64(c.Token), c.Dispatcher)
		}
		if now != last[r.Quota] && (now != "out" || last[r.Quota] != "") {
			say(r.At, "%s %d: %s (size %d, removed %t, %d holders, %d waiters)",
				r.Quota, r.Sequence, now, r.Size, r.Removed, len(r.Holders), len(r.Waiters))
		}
		last[r.Quota] = now
	}
	for _, e := range h.Log {
		if e.Job == id {
			say(e.At, "handler: %s, attempt %d of %.8s, fences %s", e.Event, e.Attempt, e.Dispatcher, e.Fences)
		}
	}
	for _, o := range h.Outcomes {
		if o.Job == id {
			say(o.At, "outcome, succeeded %t", o.Succeeded)
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	fmt.Fprintf(&b, "job %s of %q:\n", id, h.Jobs[id])
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s\n", l.at.UTC().Format("04:05.000000"), l.text)
	}
	return b.String()
}

func claimOf(claims []quotas.Claim, id job.ID) (quotas.Claim, bool) {
	i := slices.IndexFunc(claims, func(c quotas.Claim) bool { return c.ID == id })
	if i < 0 {
		return quotas.Claim{}, false
	}
	return claims[i], true
}
