package quotas

import (
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
)

// A quota with a period is a rate limit. In every window of that length no more
// than Size jobs are granted a start. This file is what its arithmetic has beside
// that of slots.go.
//
// The instant of a grant is the time that the server stored the revision at which
// has it. Who writes that revision does not know it; so the grants of the newest
// revision bear no date, and whoever reads it, with its time, dates them. A value
// is written only by who has dated the one before. Nothing is worked out from the
// clock of any other machine than the server; see clock for how its time is known.
//
// That no window has more than Size: let a revision be stored at T. Its writer
// knew, before it sent it, a time t that the server's clock had passed, t ≤ T,
// and dropped the grants that were a period old at t, and so are at T. All others
// since T less a period are in the value, which has no more than Size where one
// was added. So no more than Size were granted in the period that ends at T; and
// each window's grants lie in the period that ends with its last.

// mostGrants is how many grants are kept apart. Where there are more, those in
// the same 256th part of a period count as if they were made with the last of
// them: the limit holds, and a job may start that much later.
const mostGrants = 256

// Period is the length of a rate limit's window; 0 for a quota that limits how
// many jobs run at once. In JSON it is text, as 1m30s.
type Period time.Duration

// String writes a period as [time.Duration] does.
func (p Period) String() string { return time.Duration(p).String() }

// MarshalText implements [encoding.TextMarshaler].
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Period) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*p = Period(parsed)
	return err
}

// EncodeMsgpack implements [msgpack.CustomEncoder]: nanoseconds.
func (p Period) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeInt(int64(p)) }

// DecodeMsgpack implements [msgpack.CustomDecoder].
func (p *Period) DecodeMsgpack(d *msgpack.Decoder) error {
	nanoseconds, err := d.DecodeInt64()
	*p = Period(nanoseconds)
	return err
}

// Grant is a number of starts that a rate limit has granted at one instant. It is
// kept until a period has passed.
type Grant struct {
	// At is the instant, by the server's clock; zero for that of the revision
	// that has it.
	At time.Time `json:"at,omitzero"`
	// N is how many starts there were, less those that were given back.
	N int `json:"n"`
	// First and Last are the fencing tokens that came with them.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// EncodeMsgpack implements [msgpack.CustomEncoder]: a list of the instant in
// nanoseconds since 1970, 0 for none, and the three numbers.
func (g Grant) EncodeMsgpack(e *msgpack.Encoder) error {
	w := claimWriter{e: e}
	at := int64(0)
	if !g.At.IsZero() {
		at = g.At.UnixNano()
	}
	w.do(e.EncodeArrayLen(4))
	w.do(e.EncodeInt(at))
	w.do(e.EncodeInt(int64(g.N)))
	w.do(e.EncodeUint(g.First))
	w.do(e.EncodeUint(g.Last))
	return w.err
}

// DecodeMsgpack implements [msgpack.CustomDecoder].
func (g *Grant) DecodeMsgpack(d *msgpack.Decoder) error {
	*g = Grant{}
	n, err := d.DecodeArrayLen()
	if err != nil {
		return err
	}
	if n != 4 {
		return errGrant
	}
	at, err := d.DecodeInt64()
	if err != nil {
		return err
	}
	if at != 0 {
		g.At = time.Unix(0, at).UTC()
	}
	if g.N, err = d.DecodeInt(); err != nil {
		return err
	}
	if g.First, err = d.DecodeUint64(); err != nil {
		return err
	}
	g.Last, err = d.DecodeUint64()
	return err
}

// limitsRate reports whether the quota is a rate limit, or was one when it was
// removed: then starts are still noted, so that they count when it is created
// again.
func (s Slots) limitsRate() bool { return s.Period > 0 }

// live is how many starts count now.
func (s Slots) live() (n int) {
	for _, g := range s.Grants {
		n += g.N
	}
	return n
}

// undated reports whether there are grants whose instant is that of the revision.
func (s Slots) undated() bool {
	return slices.ContainsFunc(s.Grants, func(g Grant) bool { return g.At.IsZero() })
}

// date gives the grants of a revision the time that it was stored at.
func (s *Slots) date(stored time.Time) {
	for i := range s.Grants {
		if s.Grants[i].At.IsZero() {
			s.Grants[i].At = stored.UTC()
		}
	}
}

// expire drops the grants that are a period old. now is a time that the server's
// clock has surely passed.
func (s *Slots) expire(now time.Time) {
	s.Grants = slices.DeleteFunc(s.Grants, func(g Grant) bool { return !g.At.IsZero() && !s.end(g).After(now) })
	if len(s.Grants) > mostGrants {
		s.lump()
	}
}

// end is when a grant expires.
func (s Slots) end(g Grant) time.Time { return g.At.Add(time.Duration(s.Period)) }

// next is when the next grant expires; zero where none has a date.
func (s Slots) next() (at time.Time) {
	for _, g := range s.Grants {
		if end := s.end(g); !g.At.IsZero() && (at.IsZero() || end.Before(at)) {
			at = end
		}
	}
	return at
}

// vacant is when so many grants have expired that a start is left; they are in
// the order of their expiry.
func (s Slots) vacant() time.Time {
	over := s.live() - s.Size
	for _, g := range s.Grants {
		if over -= g.N; over < 0 {
			return s.end(g)
		}
	}
	return time.Time{}
}

// lump puts together what was granted in the same part of a period.
func (s *Slots) lump() {
	part := max(1, time.Duration(s.Period)/mostGrants)
	kept := s.Grants[:1]
	for _, g := range s.Grants[1:] {
		last := &kept[len(kept)-1]
		if g.At.IsZero() || !g.At.Truncate(part).Equal(last.At.Truncate(part)) {
			kept = append(kept, g)
			continue
		}
		if g.At.After(last.At) {
			last.At = g.At
		}
		last.N, last.Last = last.N+g.N, g.Last
	}
	s.Grants = kept
}

// grant notes a start with a fencing token.
func (s *Slots) grant(fence uint64) {
	if i := len(s.Grants) - 1; i >= 0 && s.Grants[i].At.IsZero() {
		s.Grants[i].N++
		s.Grants[i].Last = fence
		return
	}
	s.Grants = append(s.Grants, Grant{N: 1, First: fence, Last: fence})
}

// withdraw removes the claim of a job that was surely not started, if it is that
// attempt's, and gives back the start that it was granted. One that has expired
// is not found among the grants, for each knows its fencing tokens.
func (s *Slots) withdraw(nonce job.Nonce, token job.Token) (changed bool) {
	if c, holds := s.holder(nonce); holds && c.Token == token {
		i := slices.IndexFunc(s.Grants, func(g Grant) bool { return g.First <= c.Fence && c.Fence <= g.Last })
		if i >= 0 {
			s.Grants[i].N--
			s.Grants = slices.DeleteFunc(s.Grants, func(g Grant) bool { return g.N <= 0 })
		}
	}
	return s.leave(nonce, token)
}

// become makes the quota one of that size and period, created or not before.
// Grants count on by a new period until that has passed; those that had expired by
// the old one are forgotten. Where there was none nothing counts that started
// before, and where there is none any more the grants are forgotten; who runs
// counts as a holder.
func (s *Slots) become(size int, period time.Duration) {
	s.set(setting{Size: size, Period: Period(period)})
}
