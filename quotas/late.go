package quotas

import "github.com/asyncnats/asyncnats/job"

// departuresKept is how many departures a keeper knows at least.
const departuresKept = 4096

// departures is what a keeper knows of claims that are gone. A request may come
// late, from a process that has died since: what it says of a job is to be done
// only if the job has not left since the revision that the request rests on, for
// then it is in the hands of another attempt, or over. A claim made for a job that
// is over would be nobody's.
//
// What is forgotten is taken for gone: who asks knows too little, and reads.
type departures struct {
	recent, older map[job.Nonce]uint64 // the first revision without the claim
	horizon       uint64               // the last revision of those forgotten
}

// note takes what the quota was and is, at a revision.
func (d *departures) note(was, now Slots, revision uint64) {
	for _, claims := range [][]Claim{was.Holders, was.Waiters} {
		for _, c := range claims {
			if _, found := now.claim(c.Nonce); !found {
				d.add(c.Nonce, revision)
			}
		}
	}
}

func (d *departures) add(nonce job.Nonce, revision uint64) {
	if d.recent == nil || len(d.recent) >= departuresKept {
		for _, each := range d.older {
			d.horizon = max(d.horizon, each)
		}
		d.older, d.recent = d.recent, make(map[job.Nonce]uint64)
	}
	d.recent[nonce] = revision
}

// since reports whether a job's claim may be gone since a revision.
func (d *departures) since(nonce job.Nonce, revision uint64) bool {
	return revision < d.horizon || d.recent[nonce] > revision || d.older[nonce] > revision
}

// late reports whether a request claims for a job that has left since. One
// without a revision is of a release that sent none.
func (d *departures) late(r request) bool {
	if r.Revision == 0 {
		return false
	}
	for _, o := range r.Ops {
		if o.Kind == opEnter && d.since(o.Claim.Nonce, r.Revision) {
			return true
		}
	}
	return false
}
