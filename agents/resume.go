package agents

import "github.com/asyncnats/asyncnats/job"

// A step is what to do with a delivered job whose record was looked at.
type step int

const (
	// stepRun: write Active over the record found, then run the handler.
	stepRun step = iota
	// stepResume: our own Active is written already, its answer was lost.
	stepResume
	// stepAck: the outcome is recorded; the job's message is left over.
	stepAck
	// stepAbort: interrupted too often; the outcome is a Failure.
	stepAbort
	// stepLeave: the record is in a state that this release does not know how
	// to go on from; the delivery is left to another dispatcher.
	stepLeave
)

// resume decides how to go on with a job of which found may be the record. It
// is a pure function. interrupts is how often the job was interrupted so far,
// this time included.
//
// A record of another nonce belongs to an earlier job of the same ID, whatever
// its state: IDs are used again only after that job's message is gone.
func resume(spec job.Spec, us job.Attempt, record job.Record, found bool) (next step, interrupts int) {
	if !found || record.Nonce != spec.Nonce {
		return stepRun, 0
	}
	switch record.State {
	case job.Completed:
		return stepAck, record.Interrupts
	case job.Active:
		if record.Attempt.Same(us) {
			return stepResume, record.Interrupts
		}
		interrupts = record.Interrupts + 1
		if spec.Retry.AfterInterrupt(interrupts) {
			return stepRun, interrupts
		}
		return stepAbort, interrupts
	}
	return stepLeave, record.Interrupts
}
