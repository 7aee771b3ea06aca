package main

import (
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// taskFlags is how jobs are to be performed, for whoever puts them.
type taskFlags struct {
	Within          time.Duration `placeholder:"DURATION" help:"Fail a job that has not begun so long after it was put, or was to begin."`
	Quota           []string      `placeholder:"NAME" help:"Run it only while it has a slot of this quota. May be repeated: it needs a slot of each."`
	Priority        job.Priority  `default:"normal" placeholder:"LEVEL" help:"Before which others it is taken: high, normal or low. Every tenth job is of a lower one all the same."`
	Keep            keepFlag      `placeholder:"DURATION" help:"How long the outcome is kept: a duration like 30m, none, or default (24h)."`
	Retry           int           `xor:"error" placeholder:"N" help:"How many times it is tried again after an error; none if not given, --retry=-1 for no limit."`
	RetryMin        time.Duration `placeholder:"DURATION" help:"How long it rests before the first retry, twice as long before each further one; 1s if not given."`
	RetryCap        time.Duration `placeholder:"DURATION" help:"The longest rest; 10m if not given."`
	RetryInterrupts int           `xor:"retry" placeholder:"N" help:"How many times it is started again after its worker died; 9 if not given, --retry-interrupts=-1 for no limit."`
	Once            bool          `xor:"retry,error" help:"Start it once at most: if its worker dies the job fails."`
}

// task is the task of that name, with what the flags say and a limit of time for
// each attempt.
func (f taskFlags) task(name string, timeout time.Duration) asyncnats.Task[job.Value, job.Value] {
	return asyncnats.Define[job.Value, job.Value](name).
		Quota(f.Quota...).Priority(f.Priority).Timeout(timeout).Keep(job.Keep(f.Keep)).Within(f.Within).
		Retry(job.Retry{Never: f.Once, Interrupts: f.RetryInterrupts, Max: f.Retry, Min: f.RetryMin, Cap: f.RetryCap})
}

// keepFlag is a job.Keep as text.
type keepFlag job.Keep

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *keepFlag) UnmarshalText(text []byte) error {
	keep, err := job.ParseKeep(string(text))
	*k = keepFlag(keep)
	return err
}
