package quotas

import "time"

// Quota is a quota as it was at a moment.
type Quota struct {
	Name string `json:"name"`
	Slots
	// Rate is nil for a quota that limits how many jobs run at once.
	Rate *Rate `json:"rate,omitempty"`
	// Revision is that of its value.
	Revision uint64 `json:"revision"`
}

// Rate is how a rate limit stands.
type Rate struct {
	// Left is how many jobs may start at once.
	Left int `json:"left"`
	// Next is in how long one more may, where nobody waits; 0 where one may now,
	// or none will.
	Next Period `json:"next,omitempty"`
}

// rate works out how a rate limit stands at a time of the server's clock.
func (q *Quota) rate(now time.Time) {
	q.expire(now)
	q.Rate = &Rate{Left: max(0, q.free())}
	if q.Rate.Left == 0 && q.Size > 0 {
		q.Rate.Next = Period(q.vacant().Sub(now))
	}
}
