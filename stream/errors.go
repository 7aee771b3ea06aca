package stream

import (
	"errors"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
)

var (
	// ErrNoQueue: there is no queue of that name.
	ErrNoQueue = errors.New("queue does not exist")
	// ErrExists: a job with that ID is not completed yet. The error is an
	// [*ExistsError].
	ErrExists = errors.New("a job with this ID exists")
	// ErrNoJob: there is neither a pending job nor a record of that ID.
	ErrNoJob = errors.New("no such job")
	// ErrNoRecurring: there is no recurring job of that name.
	ErrNoRecurring = errors.New("no such recurring job")
	// ErrAssigned: the job was given to a dispatcher already.
	ErrAssigned = errors.New("a dispatcher was given the job already")
	// ErrNoParts: the job is none that parts can be added to.
	ErrNoParts = errors.New("parts can be added to a parallel or serial only")
	// ErrOver: nobody waits for the part of a composition, or not any more.
	ErrOver = errors.New("nobody waits for it any more")
	// ErrNotKept: the job keeps no result.
	ErrNotKept = errors.New("the job keeps no result: give it its callbacks when it is put")
	// ErrCompleted: the job is over.
	ErrCompleted = errors.New("the job is over")
	// ErrTooLarge: a body is larger than the server takes. The error is a
	// [*TooLargeError].
	ErrTooLarge = errors.New("larger than the server takes")
	// ErrServer: the server cannot hold queues: it is too old, has a known
	// fault, or runs without JetStream.
	ErrServer = errors.New("server cannot be used")
	// ErrPermission: the server does not let this connection do that.
	ErrPermission = errors.New("permission missing")
	// ErrUnanswered: the server was not reached in time. What was asked may
	// have happened.
	ErrUnanswered = errors.New("no answer from the server")
)

// ExistsError says that a job with the ID of a put is not completed yet.
type ExistsError struct {
	Queue string
	ID    job.ID
	// Nonce is the identity of the job that has the ID.
	Nonce job.Nonce
}

// Error implements error.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("job %s in queue %s: %v and is not completed", e.ID, e.Queue, ErrExists)
}

// Unwrap returns [ErrExists].
func (e *ExistsError) Unwrap() error { return ErrExists }

// TooLargeError says how much too large a body is.
type TooLargeError struct {
	What string // "job", "result"
	Size int    // bytes, headers included
	Max  int    // the server's max_payload, or the stream's limit
}

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s of %d bytes is %v (%d): raise max_payload, or store the data elsewhere and pass a reference",
		e.What, e.Size, ErrTooLarge, e.Max)
}

// Unwrap returns [ErrTooLarge].
func (e *TooLargeError) Unwrap() error { return ErrTooLarge }
