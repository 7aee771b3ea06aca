package job

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// Kind says what sort of failure a [Failure] is.
type Kind string

const (
	// KindError: the handler returned an error.
	KindError Kind = "error"
	// KindPanic: the handler panicked; the stack is in the Failure.
	KindPanic Kind = "panic"
	// KindTimeout: the attempt took longer than the job's timeout.
	KindTimeout Kind = "timeout"
	// KindExpired: the job's deadline passed before it began.
	KindExpired Kind = "expired"
	// KindCancelled: the job was cancelled.
	KindCancelled Kind = "cancelled"
	// KindAborted: the job was interrupted more often than its policy allows.
	KindAborted Kind = "aborted"
	// KindAbsent: the one dispatcher that was to perform the job died, or stopped,
	// and did not come back.
	KindAbsent Kind = "absent"
	// KindInvalid: the job could not be performed as it was put: its body
	// cannot be read, its argument does not fit its task, its result cannot be
	// stored.
	KindInvalid Kind = "invalid"
)

var (
	// ErrTimeout is the cause of a handler's context that ended because the
	// job's timeout passed, and matches a Failure of [KindTimeout] or
	// [KindExpired].
	ErrTimeout = errors.New("job timed out")
	// ErrCancelled is the cause of a handler's context that ended because the
	// job was cancelled, and matches a Failure of [KindCancelled].
	ErrCancelled = errors.New("job cancelled")
	// ErrLeaseLost is the cause of a handler's context that ended because the
	// dispatcher could not prove in time that the job is still its own.
	// Another attempt may be running; what the handler returns is dropped.
	ErrLeaseLost = errors.New("lease lost: the job may already run elsewhere")
	// ErrDraining is the cause of a handler's context that ended because its
	// dispatcher stops. The job is handed back and starts again elsewhere.
	ErrDraining = errors.New("dispatcher is stopping")
	// ErrAborted matches a Failure of [KindAborted].
	ErrAborted = errors.New("job aborted after too many interruptions")
	// ErrAbsent matches a Failure of [KindAbsent].
	ErrAbsent = errors.New("dispatcher is gone")
	// ErrInvalid matches a Failure of [KindInvalid].
	ErrInvalid = errors.New("job cannot be performed as it was put")
)

// Failure is why a job has no result: the outcome in place of one. It is an
// error, and errors.Is matches it with the Err variable of its kind.
type Failure struct {
	Kind    Kind   `msgpack:"kind" json:"kind"`
	Message string `msgpack:"message" json:"message"`
	// Type is the Go type of the error or of the value of the panic.
	Type string `msgpack:"type,omitempty" json:"type,omitempty"`
	// Stack is the stack of a panic, or the verbose form (%+v) of an error
	// that has one. Text, cut at 10,000 bytes, as is the message (FEATURES 157).
	Stack string `msgpack:"stack,omitempty" json:"stack,omitempty"`
	// Attempt, Dispatcher and Agent say on whose account it failed.
	Attempt    int       `msgpack:"attempt,omitempty" json:"attempt,omitempty"`
	Dispatcher string    `msgpack:"dispatcher,omitempty" json:"dispatcher,omitempty"`
	Agent      string    `msgpack:"agent,omitempty" json:"agent,omitempty"`
	At         time.Time `msgpack:"at" json:"at"`
}

// longest is how many bytes are kept of a message or a stack.
const longest = 10_000

// Error returns the kind, where it says more than "error", and the message.
func (f *Failure) Error() string {
	if f.Kind == KindError {
		return f.Message
	}
	return string(f.Kind) + ": " + f.Message
}

// Is makes errors.Is match a Failure with the Err variable of its kind.
func (f *Failure) Is(target error) bool {
	switch f.Kind {
	case KindTimeout, KindExpired:
		return target == ErrTimeout
	case KindCancelled:
		return target == ErrCancelled
	case KindAborted:
		return target == ErrAborted
	case KindAbsent:
		return target == ErrAbsent
	case KindInvalid:
		return target == ErrInvalid
	}
	return false
}

// FailureOf makes a Failure of the error that a handler returned. A Failure
// that the handler returned itself, wrapped or not, is kept as it is, except
// for text that is too long.
//
// An error whose methods panic, as those of a nil pointer in an error may,
// becomes a Failure of [KindPanic].
func FailureOf(err error) (f *Failure) {
	defer func() {
		if value := recover(); value != nil {
			f = unreadable(err, value)
		}
	}()
	switch marked := err.(type) { //nolint:errorlint // a mark is no part of the error; one deeper down stays
	case *permanentError:
		err = marked.error
	case *retryError:
		err = marked.error
	}
	if given, ok := errors.AsType[*Failure](err); ok {
		kept := *given
		kept.Message, kept.Stack = cut(kept.Message), cut(kept.Stack)
		if kept.Kind == "" {
			kept.Kind = KindError
		}
		return &kept
	}
	message := err.Error()
	f = &Failure{Kind: KindError, Message: cut(message), Type: fmt.Sprintf("%T", err)}
	if verbose := fmt.Sprintf("%+v", err); verbose != message {
		f.Stack = cut(verbose)
	}
	return f
}

// unreadable makes a Failure of an error whose methods panic. It is called as
// [FailureOfPanic] is.
func unreadable(err error, value any) *Failure {
	f := FailureOfPanic(fmt.Sprintf("the handler's error, a %T, cannot be read: %v", err, value))
	f.Type = fmt.Sprintf("%T", err)
	return f
}

// FailureOfPanic makes a Failure of a recovered panic. To be called in the
// deferred function that recovered it, whose stack still holds the panic's.
func FailureOfPanic(value any) *Failure {
	return &Failure{
		Kind:    KindPanic,
		Message: cut(fmt.Sprint(value)),
		Type:    fmt.Sprintf("%T", value),
		Stack:   cut(string(debug.Stack())),
	}
}

// Invalidf makes a Failure of [KindInvalid].
func Invalidf(format string, args ...any) *Failure {
	return &Failure{Kind: KindInvalid, Message: cut(fmt.Sprintf(format, args...))}
}

// Expired makes the Failure of a job that had not begun at its deadline. again
// says that it had begun before, and was to be run again; past is what became of
// those attempts.
func Expired(deadline time.Time, again bool, past []Failure) *Failure {
	when := "begun"
	if again {
		when = "run again"
	}
	message := fmt.Sprintf("not %s before its deadline, %s", when, deadline.UTC().Format(time.RFC3339Nano))
	if len(past) > 0 {
		message += "; it failed before: " + past[len(past)-1].Error()
	}
	return &Failure{Kind: KindExpired, Message: cut(message)}
}

// cut makes a text valid and not too long. It leaves what it has cut before.
func cut(s string) string {
	const marker = "\n[...TRUNCATED...]"
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= longest || len(s) <= longest+len(marker) && strings.HasSuffix(s, marker) {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + marker
}
