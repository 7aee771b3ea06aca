package job

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// DefaultInterrupts is how many times a job whose worker died is started again
// before it ends as aborted. zc.async retries nine times (FEATURES 172).
const DefaultInterrupts = 9

const (
	// DefaultRetryMin is the delay before the first retry where the policy has
	// none.
	DefaultRetryMin = time.Second
	// DefaultRetryCap is the longest delay where the policy has none.
	DefaultRetryCap = 10 * time.Minute
	// DefaultJitter is the part of each delay that is added to it at random,
	// at most.
	DefaultJitter = 0.2
)

// Forever as a number of retries means no limit.
const Forever = -1

// Retry says what happens to a job after an attempt that did not end well. The
// zero Retry is the default policy: no retry after an error, nine after
// interruptions (FEATURES 171, 172). A handler may decide otherwise, with
// [Permanent], [RetryAfter] and [Snooze].
type Retry struct {
	// Never makes the job run at most once: its start is recorded before its
	// code runs, and if that record is found without an outcome the job ends
	// as aborted instead of running again. It costs one more write per job.
	Never bool `msgpack:"never,omitempty" json:"never,omitempty"`
	// Interrupts is how many times the job is started again after its worker
	// died or was stopped in the middle; 0 means [DefaultInterrupts], Forever
	// no limit. A job that was claimed and not started was not interrupted.
	Interrupts int `msgpack:"interrupts,omitempty" json:"interrupts,omitempty"`
	// Max is how many times the job is tried again after its handler returned
	// an error, panicked or took too long; 0 is none, Forever no limit. So a
	// job that fails always is tried Max+1 times (zc.async counted attempts,
	// FEATURES b15).
	Max int `msgpack:"max,omitempty" json:"max,omitempty"`
	// Min is the delay before the first retry, doubled for each further one;
	// 0 means [DefaultRetryMin].
	Min time.Duration `msgpack:"min,omitempty" json:"min,omitempty"`
	// Cap is the longest delay; 0 means [DefaultRetryCap], or Min where that is
	// longer.
	Cap time.Duration `msgpack:"cap,omitempty" json:"cap,omitempty"`
	// Jitter is the part of each delay that is added to it at random, at most,
	// so that jobs that failed together are not tried again together; 0 means
	// [DefaultJitter], a negative number none.
	Jitter float64 `msgpack:"jitter,omitempty" json:"jitter,omitempty"`
}

// Check reports a policy that contradicts itself.
func (r Retry) Check() error {
	if r.Interrupts < Forever {
		return fmt.Errorf("retry: interrupts %d: must be 0 (the default, %d), positive, or Forever (%d)", r.Interrupts, DefaultInterrupts, Forever)
	}
	if r.Never && r.Interrupts != 0 {
		return fmt.Errorf("retry: never and interrupts %d exclude each other", r.Interrupts)
	}
	if r.Max < Forever {
		return fmt.Errorf("retry: max %d: must be 0 (none), positive, or Forever (%d)", r.Max, Forever)
	}
	if r.Never && r.Max != 0 {
		return fmt.Errorf("retry: never and max %d exclude each other", r.Max)
	}
	if r.Min < 0 || r.Cap < 0 {
		return fmt.Errorf("retry: delays of %v to %v: must not be negative", r.Min, r.Cap)
	}
	if r.Cap > 0 && r.Cap < r.Min {
		return fmt.Errorf("retry: cap %v is shorter than min %v", r.Cap, r.Min)
	}
	if !(r.Jitter <= 1) { // nor a number that is none
		return fmt.Errorf("retry: jitter %v: must be at most 1, which doubles a delay", r.Jitter)
	}
	return nil
}

// AfterError reports whether a job whose attempts failed n times so far is
// tried again.
func (r Retry) AfterError(n int) bool {
	return !r.Never && (r.Max == Forever || n <= r.Max)
}

// Delay returns how long a job rests after its nth error, [MaxDelay] at most.
func (r Retry) Delay(n int) time.Duration {
	delay := cmp.Or(r.Min, DefaultRetryMin)
	longest := min(cmp.Or(r.Cap, max(DefaultRetryCap, delay)), MaxDelay)
	for i := 1; i < n && delay < longest; i++ {
		delay = min(delay, longest/2) * 2
	}
	delay = min(delay, longest)
	return min(delay+r.jitter(delay), MaxDelay)
}

func (r Retry) jitter(delay time.Duration) time.Duration {
	most := time.Duration(cmp.Or(r.Jitter, DefaultJitter) * float64(delay))
	if most <= 0 {
		return 0
	}
	return rand.N(most)
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

// Permanent makes an error after which the job is not tried again, whatever its
// policy says. It reads like err, and errors.Is finds what err is.
func Permanent(err error) error { return &permanentError{err} }

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// RetryAfter makes an error after which the job is tried again when d has
// passed, in place of what its policy says. It counts as an error, and where the
// policy has a Max it ends the job all the same. With d of 0 or less the job is
// the next one of its lane (FEATURES 167); one of more than [MaxDelay] is that.
func RetryAfter(d time.Duration, err error) error { return &retryError{err, bounded(d)} }

type retryError struct {
	error
	delay time.Duration
}

func (e *retryError) Unwrap() error { return e.error }

// Snooze makes an error by which a handler has its job run again when d has
// passed, since it cannot be done now. That is no failure: it is counted apart,
// without a limit, and leaves the number of errors as it is. A d of more than
// [MaxDelay] is that.
func Snooze(d time.Duration) error { return &snoozeError{bounded(d)} }

func bounded(d time.Duration) time.Duration { return min(max(0, d), MaxDelay) }

type snoozeError struct{ delay time.Duration }

// Error implements error.
func (e *snoozeError) Error() string { return fmt.Sprintf("snoozed for %v", e.delay) }

// Verdict reads the error that a handler returned, which is not nil. What it
// returns means the same to [Delegated], [Retry.Again] and [FailureOf], and has none
// of the handler's code in it. An error whose methods panic is a Failure of
// [KindPanic], as with FailureOf.
func Verdict(err error) (verdict error) {
	defer func() {
		if value := recover(); value != nil {
			verdict = unreadable(err, value)
		}
	}()
	if delegates, ok := errors.AsType[*delegation](err); ok {
		return delegates
	}
	if snooze, ok := errors.AsType[*snoozeError](err); ok {
		return snooze
	}
	failure := FailureOf(err)
	if permanent(err) {
		return &permanentError{failure}
	}
	if retry, ok := errors.AsType[*retryError](err); ok {
		return &retryError{failure, retry.delay}
	}
	return failure
}

// Tally counts how a job's attempts ended so far. The three are independent: an
// interrupted attempt is not a failed one.
type Tally struct {
	// Errors is how many attempts failed.
	Errors int `msgpack:"errors,omitempty" json:"errors,omitempty"`
	// Interrupts is how many attempts were interrupted.
	Interrupts int `msgpack:"interrupts,omitempty" json:"interrupts,omitempty"`
	// Snoozes is how many attempts asked to be run again later.
	Snoozes int `msgpack:"snoozes,omitempty" json:"snoozes,omitempty"`
}

// Again decides whether a job is run again after an attempt whose handler
// returned err, which is not nil, and how long it rests before. now is the tally
// with this attempt in it. It is a pure function, but for the jitter.
func (r Retry) Again(before Tally, err error) (again bool, delay time.Duration, now Tally) {
	now = before
	if snooze, ok := errors.AsType[*snoozeError](err); ok {
		now.Snoozes++
		return true, snooze.delay, now
	}
	now.Errors++
	if permanent(err) || r.Never {
		return false, 0, now
	}
	if retry, ok := errors.AsType[*retryError](err); ok {
		return r.Max == 0 || r.AfterError(now.Errors), retry.delay, now
	}
	return r.AfterError(now.Errors), r.Delay(now.Errors), now
}

// permanent reports whether no further attempt can do better.
func permanent(err error) bool {
	if _, ok := errors.AsType[*permanentError](err); ok {
		return true
	}
	return errors.Is(err, ErrInvalid)
}
