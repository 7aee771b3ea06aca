package quotas

import (
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// rateReplay goes through the revisions of a rate limit, and counts what each
// window has by when the revisions were stored, whatever their values say.
type rateReplay struct {
	starts    []replayed
	unstarted func(job.Token) bool
}

// replayed is a start that was granted.
type replayed struct {
	at    time.Time
	token job.Token
	nonce job.Nonce
}

// step takes a revision, and the one before it.
func (r *rateReplay) step(old, now Slots, stored time.Time) error {
	if !now.limitsRate() {
		r.starts = nil
		return nil
	}
	// What was not started counts until that is written.
	r.starts = slices.DeleteFunc(r.starts, func(s replayed) bool {
		return r.unstarted(s.token) && find(now.Holders, s.nonce) < 0
	})
	if old.Period != now.Period {
		r.starts = slices.DeleteFunc(r.starts, func(s replayed) bool { return stored.Sub(s.at) >= time.Duration(old.Period) })
	}
	fresh := granted(old, now)
	if !old.limitsRate() {
		fresh = slices.DeleteFunc(fresh, func(c Claim) bool { return c.Fence <= old.Fence })
	}
	for _, c := range fresh {
		r.starts = append(r.starts, replayed{stored, c.Token, c.Nonce})
	}
	if len(fresh) == 0 || now.Removed {
		return nil
	}
	if n := r.within(stored, time.Duration(now.Period)); n > now.Size {
		return fmt.Errorf("%d starts within %v, of %d", n, now.Period, now.Size)
	}
	return nil
}

// within counts the starts of the period that ends at a time.
func (r *rateReplay) within(end time.Time, period time.Duration) (n int) {
	for _, s := range r.starts {
		if end.Sub(s.at) < period {
			n++
		}
	}
	return n
}
