package agents

import (
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// toldFor is how long it is remembered at least that a job was cancelled which is not
// here: it may be on its way.
const toldFor = time.Minute

// toldSet is the jobs that were cancelled of late. What is older is forgotten all at
// once, so that a word costs the same however many there are.
type toldSet struct {
	recent, older map[job.Nonce]struct{}
	since         time.Time // when recent was begun
}

func (s *toldSet) add(nonce job.Nonce, now time.Time) {
	if s.recent == nil || now.Sub(s.since) > toldFor {
		s.older, s.recent, s.since = s.recent, make(map[job.Nonce]struct{}), now
	}
	s.recent[nonce] = struct{}{}
}

func (s *toldSet) has(nonce job.Nonce) bool {
	_, recent := s.recent[nonce]
	_, older := s.older[nonce]
	return recent || older
}
