package job

import (
	"errors"
	"fmt"
	"time"
)

// Call is a job that is not put yet, as it travels inside of another: a callback,
// or a part of a composition. docs/protocol.md describes its wire form.
type Call struct {
	// Task is the task or, of a composition, the name of its form.
	Task string `msgpack:"task"`
	Arg  Value  `msgpack:"arg,omitempty"`
	// Queue is where it is put; empty is the queue of the job that it belongs to.
	Queue string `msgpack:"queue,omitempty"`
	// These are as in [Spec].
	Quotas   []string      `msgpack:"quotas,omitempty"`
	Priority Priority      `msgpack:"priority,omitempty"`
	Timeout  time.Duration `msgpack:"timeout,omitempty"`
	Keep     Keep          `msgpack:"keep,omitempty"`
	Retry    Retry         `msgpack:"retry,omitempty"`
	// Begin and Delay say when it is to begin: at an instant, or so long after it
	// was put, which counts where both are set. Within is its deadline, counted from
	// there or from the put; 0 for none. Neither may be negative, and together they
	// are [MaxDelay] at most.
	Begin  time.Time     `msgpack:"begin,omitempty"`
	Delay  time.Duration `msgpack:"delay,omitempty"`
	Within time.Duration `msgpack:"within,omitempty"`

	// Callbacks are put, in order, when the job that the call becomes has its outcome.
	Callbacks []Callback `msgpack:"callbacks,omitempty"`
	// Parts is what a composition consists of; nil for a task.
	Parts *Parts `msgpack:"parts,omitempty"`
}

// Check reports everything that is wrong with the call, and with the calls in it,
// joined.
func (c Call) Check() error {
	if c.Queue != "" {
		if err := CheckQueue(c.Queue); err != nil {
			return err
		}
	}
	if err := CheckWithin(c.Delay, c.Within); err != nil {
		return fmt.Errorf("call of %s %w", c.Task, err)
	}
	if err := c.Spec(time.Unix(0, 0)).Check(); err != nil {
		return fmt.Errorf("call of %s: %w", c.Task, err)
	}
	return nil
}

// Spec returns the spec of the job that the call becomes when it is put at the
// given time: all of it but who puts it and why.
func (c Call) Spec(now time.Time) Spec {
	begin := c.Begin
	if c.Delay > 0 {
		begin = now.Add(c.Delay)
	}
	var deadline time.Time
	if c.Within > 0 {
		deadline = now.Add(c.Within)
		if begin.After(now) {
			deadline = begin.Add(c.Within)
		}
	}
	return Spec{
		Version: SpecVersion, Task: c.Task, Arg: c.Arg, Quotas: c.Quotas, Priority: c.Priority,
		Timeout: c.Timeout, Keep: c.Keep, Retry: c.Retry, Begin: begin, Deadline: deadline,
		Callbacks: c.Callbacks, Parts: c.Parts,
	}
}

// On says after which outcomes a callback is put.
type On string

const (
	// OnSuccess callbacks take the result.
	OnSuccess On = "success"
	// OnFailure callbacks take the [Failure].
	OnFailure On = "failure"
	// OnAny callbacks take the outcome, whichever it is: see [OutcomeValue].
	OnAny On = "any"
)

// Callback is a call that is put when a job has its outcome, which it takes for
// its argument. It changes nothing of that outcome.
type Callback struct {
	On On `msgpack:"on"`
	// Call has an argument only where it is [Bound] to that beside what it takes.
	Call Call `msgpack:"call"`
	// Added tells one that was added to a job that was put already from others like
	// it, should the answer be lost.
	Added Nonce `msgpack:"added,omitempty"`
}

// Check reports everything that is wrong with the callback.
func (c Callback) Check() error {
	switch c.On {
	case OnSuccess, OnFailure, OnAny:
	default:
		return fmt.Errorf("callback %s is put on %q: must be %s, %s or %s", c.Call.Task, c.On, OnSuccess, OnFailure, OnAny)
	}
	if c.Call.Parts != nil {
		return errors.New("a composition cannot be a callback, since nothing in it takes the outcome: have a task do it that returns the composition")
	}
	if err := c.Call.Check(); err != nil {
		return fmt.Errorf("callback on %s: %w", c.On, err)
	}
	return nil
}

// Takes reports whether the callback is put after that outcome.
func (c Callback) Takes(o Outcome) bool {
	return c.On == OnAny || o.Succeeded() == (c.On == OnSuccess)
}

// With returns the call of the callback with its argument, made of the outcome. It is
// an error where a value of the outcome, or of the call, is not what its encoding says.
func (c Callback) With(o Outcome) (Call, error) {
	var taken Value
	var err error
	switch c.On {
	case OnSuccess:
		taken = o.Result
	case OnFailure:
		taken, err = Encode(o.Failure, MsgPack)
	default:
		taken, err = OutcomeValue(o)
	}
	if err != nil {
		return Call{}, err
	}
	return c.Call.Take(taken)
}

// Take returns the call with what it takes for its argument or, where it has one,
// beside it: a map in msgpack of "with", what it had, and "got", what it takes.
func (c Call) Take(taken Value) (Call, error) {
	if c.Arg.IsNone() {
		c.Arg = taken
		return c, nil
	}
	var err error
	c.Arg, err = bind(c.Arg, taken)
	return c, err
}
