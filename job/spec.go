package job

import (
	"errors"
	"fmt"
	"time"
)

// SpecVersion is the version of the body that this code writes and reads.
const SpecVersion = 1

// Spec is what travels in a queue: the envelope of one job. It says what to do
// and who asked, and carries the job's identity and its attempts so far.
// docs/protocol.md describes its wire forms.
type Spec struct {
	Version int   `msgpack:"v"`
	Nonce   Nonce `msgpack:"nonce"`
	// Task is repeated in the subject's lane; a body whose task is not its
	// lane's is refused.
	Task string `msgpack:"task"`
	Arg  Value  `msgpack:"arg,omitempty"`
	// Quotas names the quotas in each of which the job needs a slot while it
	// runs, sorted, each once. They are repeated in the lane like the task.
	Quotas []string `msgpack:"quotas,omitempty"`
	// Priority is before which other jobs it is taken. It is repeated in the
	// lane like the task.
	Priority Priority `msgpack:"priority,omitempty"`

	// To is the UUID of the one dispatcher that may perform the job; empty for any.
	// It is repeated in the lane like the task.
	To string `msgpack:"to,omitempty"`

	// Timeout bounds one attempt; 0 is no bound.
	Timeout time.Duration `msgpack:"timeout,omitempty"`
	// Keep is how long the outcome is kept after the end.
	Keep Keep `msgpack:"keep,omitempty"`
	// Retry says what happens after an attempt that did not end well.
	Retry Retry `msgpack:"retry,omitempty"`

	// Begin is the instant before which the job does not start, by the server's
	// clock; zero for none. It lies between the years 1700 and 2250, as Deadline
	// does. zc.async: begin_after.
	Begin time.Time `msgpack:"begin,omitempty"`
	// Deadline is the instant from which on the job is not started any more, by
	// the server's clock; zero for none. It is absolute, so that a retry does
	// not move it (FEATURES b4). zc.async: begin_by.
	Deadline time.Time `msgpack:"deadline,omitempty"`

	// Attempt is the number of the last attempt that was begun, 0 at the put.
	Attempt int `msgpack:"attempt,omitempty"`
	// Again marks a put that was repeated because its first answer was lost:
	// an earlier copy may have been stored, and even performed, so whoever
	// claims this one looks at the record first.
	Again bool `msgpack:"again,omitempty"`

	// Callbacks are put, in order, when the job has its outcome.
	Callbacks []Callback `msgpack:"callbacks,omitempty"`
	// Parts is what a composition consists of; nil for a task.
	Parts *Parts `msgpack:"parts,omitempty"`
	// Parent is the job for which this one was put; nil for none.
	Parent *Parent `msgpack:"parent,omitempty"`
	// Trace is the trace and the baggage that the job was put under, and is
	// performed under: see [TraceOf].
	Trace map[string]string `msgpack:"trace,omitempty"`

	// By is who put the job: a dispatcher's UUID, a client's name.
	// zc.async: assignerUUID (FEATURES 11, b2).
	By string `msgpack:"by,omitempty"`
	// At is when it was put, by the putter's clock.
	At time.Time `msgpack:"at,omitempty"`
}

// Check reports everything that is wrong with the spec, joined.
func (s Spec) Check() error {
	var errs []error
	if s.Version != SpecVersion {
		errs = append(errs, versionError(s.Version))
	}
	if err := CheckTask(s.Task); err != nil {
		errs = append(errs, err)
	}
	if err := CheckQuotas(s.Task, s.Quotas); err != nil {
		errs = append(errs, err)
	}
	if err := s.Priority.Check(); err != nil {
		errs = append(errs, err)
	}
	switch s.Arg.Encoding {
	case MsgPack, JSON:
	default:
		errs = append(errs, fmt.Errorf("argument has unknown encoding %q: must be \"json\", or absent for msgpack", s.Arg.Encoding))
	}
	if s.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout %v is negative", s.Timeout))
	}
	if err := s.Keep.Check(); err != nil {
		errs = append(errs, err)
	}
	if err := s.Retry.Check(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, checkInstant("begin", s.Begin), checkInstant("deadline", s.Deadline))
	if !s.Deadline.IsZero() && s.Deadline.Before(s.Begin) {
		errs = append(errs, fmt.Errorf("deadline %s lies before begin %s: must not", s.Deadline.Format(time.RFC3339Nano), s.Begin.Format(time.RFC3339Nano)))
	}
	for _, callback := range s.Callbacks {
		errs = append(errs, callback.Check())
	}
	if s.Parts != nil {
		errs = append(errs, s.checkParts())
	}
	if s.Attempt < 0 {
		errs = append(errs, fmt.Errorf("attempt %d is negative", s.Attempt))
	}
	if err := checkTrace(s.Trace); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkParts reports what is wrong with a composition. It runs no code, holds no
// slot and is not tried again: its parts are.
func (s Spec) checkParts() error {
	errs := []error{s.Parts.Check()}
	if s.Task != string(s.Parts.Form) {
		errs = append(errs, fmt.Errorf("composition %s is called %q", s.Parts.Form, s.Task))
	}
	refuse := func(set bool, what string) {
		if set {
			errs = append(errs, fmt.Errorf("a composition has no %s: give it to its parts", what))
		}
	}
	refuse(s.Quotas != nil, "quotas")
	refuse(s.Priority != Normal, "priority")
	refuse(s.Timeout != 0, "timeout")
	refuse(s.Retry != Retry{}, "retry policy")
	refuse(!s.Arg.IsNone(), "argument")
	return errors.Join(errs...)
}

// maxLane is the most characters that the names of a task and of its quotas
// have together: the server allows 255 in the name of a consumer, which is made
// of them and of the priority.
const maxLane = 240

// CheckQuotas reports what is wrong with the quotas that a job of a task
// names: an illegal name, names that are not sorted or occur twice, or that are
// too long together.
func CheckQuotas(task string, names []string) error {
	length := len(task)
	for i, name := range names {
		if err := CheckQuota(name); err != nil {
			return err
		}
		if i > 0 && names[i-1] >= name {
			return fmt.Errorf("quotas %q: must be sorted, and each named once", names)
		}
		length += len("==") + len(name)
	}
	if length > maxLane && len(names) > 0 {
		return fmt.Errorf("task %s with quotas %q: the names have %d characters together, must be %d at most: use shorter ones", task, names, length, maxLane)
	}
	return nil
}

func versionError(found int) error {
	return fmt.Errorf("body has version %d, this program reads version %d: use the same release on both sides, dispatchers first", found, SpecVersion)
}

// Keep is how long an outcome is kept.
type Keep time.Duration

const (
	// KeepDefault keeps an outcome for 24 hours.
	KeepDefault Keep = 0
	// KeepNone keeps no result. Whoever waits at the moment of completion
	// gets it; later nobody does. A Failure is kept all the same, by default,
	// since somebody has to hear of it.
	KeepNone Keep = -1
)

// KeepFor keeps an outcome for d, rounded up to whole seconds, and for 100 years at
// most. A d that is not positive keeps nothing.
func KeepFor(d time.Duration) Keep {
	if d <= 0 {
		return KeepNone
	}
	return Keep(d)
}

// Check reports a duration that cannot be kept to.
func (k Keep) Check() error {
	if k < KeepNone {
		return fmt.Errorf("keep %v is negative: use KeepNone to keep nothing", time.Duration(k))
	}
	return nil
}

// String returns "default", "none" or the duration.
func (k Keep) String() string {
	switch k {
	case KeepDefault:
		return "default"
	case KeepNone:
		return "none"
	}
	return time.Duration(k).String()
}

// ParseKeep reads what String writes.
func ParseKeep(s string) (Keep, error) {
	switch s {
	case "", "default":
		return KeepDefault, nil
	case "none":
		return KeepNone, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("keep %q: must be none, default or a positive duration like 30m", s)
	}
	return KeepFor(d), nil
}
