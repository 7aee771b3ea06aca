package quotas

import "time"

// clock knows a time that the server's clock has surely passed: one that the
// server gave, and what has gone by since then on this machine's monotonic clock.
// What the wall clocks of machines say is of no concern.
//
// It relies on two things. The clocks run as fast as each other, up to a part in
// drift: a discipline that slews one does not change it by more. And the server's
// clock is not set, nor does another server with another time come to lead the
// bucket: by how much that time is ahead, the windows of that moment may be too
// short; by how much it is behind, their grants count longer. A reading that is
// lower than expected is believed at once.
type clock struct {
	server time.Time // what the server said
	local  time.Time // when it surely had, with a monotonic reading
}

const (
	// drift: clocks gain or lose less than one part in so many.
	drift = 1000
	// slackMost is how uncertain the server's time may be where a grant expires
	// at about now. Beyond it the server is asked.
	slackMost = time.Millisecond
)

// set takes that at local, or before, the server's clock said server.
func (c *clock) set(server, local time.Time) { c.server, c.local = server, local }

// unset reports whether the server's time was never known.
func (c clock) unset() bool { return c.local.IsZero() }

// slack is by how much the server's clock may be ahead of passed, apart from what
// its words took to arrive.
func (c clock) slack(local time.Time) time.Duration { return local.Sub(c.local) / drift }

// passed is a time that the server's clock has passed at local; zero where
// nothing is known.
func (c clock) passed(local time.Time) time.Time {
	if c.unset() {
		return time.Time{}
	}
	return c.server.Add(local.Sub(c.local) - c.slack(local))
}
