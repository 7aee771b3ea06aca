package job

import "fmt"

// DefaultInterrupts is how many times a job whose worker died is started again
// before it ends as aborted. zc.async retries nine times (FEATURES 172).
const DefaultInterrupts = 9

// Forever as a number of retries means no limit.
const Forever = -1

// Retry says what happens to a job after an attempt that did not end well. The
// zero Retry is the default policy.
type Retry struct {
	// Never makes the job run at most once: its start is recorded before its
	// code runs, and if that record is found without an outcome the job ends
	// as aborted instead of running again. It costs one more write per job.
	Never bool `msgpack:"never,omitempty" json:"never,omitempty"`
	// Interrupts is how many times the job is started again after its worker
	// died or was stopped in the middle; 0 means [DefaultInterrupts], Forever
	// no limit. A job that was claimed and not started was not interrupted.
	Interrupts int `msgpack:"interrupts,omitempty" json:"interrupts,omitempty"`
}

// Check reports a policy that contradicts itself.
func (r Retry) Check() error {
	if r.Interrupts < Forever {
		return fmt.Errorf("retry: interrupts %d: must be 0 (the default, %d), positive, or Forever (%d)", r.Interrupts, DefaultInterrupts, Forever)
	}
	if r.Never && r.Interrupts != 0 {
		return fmt.Errorf("retry: never and interrupts %d exclude each other", r.Interrupts)
	}
	return nil
}

// AfterInterrupt reports whether a job that was interrupted n times so far is
// started again.
func (r Retry) AfterInterrupt(n int) bool {
	switch {
	case r.Never:
		return false
	case r.Interrupts == Forever:
		return true
	case r.Interrupts == 0:
		return n <= DefaultInterrupts
	}
	return n <= r.Interrupts
}
