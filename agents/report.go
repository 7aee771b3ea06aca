package agents

import (
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// Report is word of an attempt at a job: once when its handler is called, and
// once when it is over.
type Report struct {
	Queue, Agent string
	ID           job.ID
	Task         string
	Arg          job.Value
	Quotas       []string
	Priority     job.Priority
	Attempt      job.Attempt
	Started      time.Time
	// Ended is zero while the handler runs. The rest is set when it is not.
	Ended time.Time
	// Outcome is what was recorded; nil where nothing was.
	Outcome *job.Outcome
	// Reassigned says that the lease was lost: another attempt has the job, or
	// will.
	Reassigned bool
}

// observe reports that the attempt begins or, when over is set, that it has ended.
func (a *attempt) observe(over bool) {
	report := Report{
		Queue: a.runner.config.Queue.Name(), Agent: a.us.Agent, ID: a.lease.ID, Task: a.lease.Lane.Task, Arg: a.spec.Arg,
		Quotas: a.lease.Lane.Quotas(), Priority: a.lease.Lane.Priority, Attempt: a.us, Started: a.began,
	}
	if over {
		report.Ended, report.Outcome, report.Reassigned = time.Now(), a.outcome, a.lost
	}
	a.runner.config.Observe(report)
}
