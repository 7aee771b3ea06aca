package job

import (
	"fmt"
	"time"
)

// MaxDelay is the longest time for which a job can be put off, 100 years: what
// lies so far ahead can still be told in nanoseconds since 1970, by which the
// server goes. Those of 64 bits reach from 1678 to 2262.
const MaxDelay = 100 * 365 * 24 * time.Hour

var (
	earliest = time.Date(1700, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2250, 1, 1, 0, 0, 0, 0, time.UTC)
)

// checkInstant reports a time that is neither zero nor one that the server can
// tell.
func checkInstant(what string, t time.Time) error {
	if !t.IsZero() && (t.Before(earliest) || !t.Before(latest)) {
		return fmt.Errorf("%s %s: must lie between the years %d and %d, or be left out",
			what, t.Format(time.RFC3339), earliest.Year(), latest.Year())
	}
	return nil
}

// CheckWithin reports a deadline of a job that is negative or, with the time after
// which the job begins, too far ahead. 0 is no deadline.
func CheckWithin(delay, within time.Duration) error {
	if delay < 0 || within < 0 {
		return fmt.Errorf("begins after %v and within %v: must not be negative", delay, within)
	}
	if delay > MaxDelay || within > MaxDelay-delay {
		return fmt.Errorf("begins after %v and within %v: must be 100 years at most, together; a job that is not to expire has no deadline", delay, within)
	}
	return nil
}
