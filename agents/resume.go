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
	// stepExpire: its deadline passed before it began.
	stepExpire
	// stepEarly: it was given out before it may begin.
	stepEarly
	// stepPay: the outcome is recorded, and something is owed still.
	stepPay
	// stepSchedule: a retry was recorded, but perhaps not scheduled.
	stepSchedule
	// stepDrop: another message of the job goes on; this one is left over.
	stepDrop
	// stepWait: it waits for the job that it was delegated to.
	stepWait
	// stepLeave: the record is in a state that this release does not know how
	// to go on from; the delivery is left to another dispatcher.
	stepLeave
)

// resume decides how to go on with a job of which found may be the record. It
// is a pure function. late says that the job's deadline has passed; tally counts
// how its attempts ended, an interruption that shows only now included.
//
// A record of another nonce belongs to an earlier job of the same ID, whatever
// its state: IDs are used again only after that job's message is gone.
func resume(spec job.Spec, us job.Attempt, record job.Record, found, late bool) (next step, tally job.Tally) {
	begin := stepRun
	if late {
		begin = stepExpire
	}
	if !found || record.Nonce != spec.Nonce {
		return begin, job.Tally{}
	}
	tally = record.Tally
	if spec.Attempt < record.Message {
		if record.State == job.Retrying {
			return stepSchedule, tally
		}
		return stepDrop, tally
	}
	switch record.State {
	case job.Completed:
		return stepAck, tally
	case job.Callbacks:
		return stepPay, tally
	case job.Waiting:
		return stepWait, tally
	case job.Pending, job.Retrying: // pending: callbacks were added to it
		return begin, tally
	case job.Active:
		if record.Attempt.Same(us) {
			return stepResume, tally
		}
		tally.Interrupts++
		if spec.Retry.AfterInterrupt(tally.Interrupts) {
			return stepRun, tally
		}
		return stepAbort, tally
	}
	return stepLeave, tally
}
