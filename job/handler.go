package job

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"
)

// Handler is the code that performs a task. asyncnats.Task.Handle makes one of
// a typed function; a program that handles encoded values itself (as the
// dispatch command does) fills it in.
type Handler struct {
	Task string
	// Perform does the work. Its ctx ends when the attempt must stop, and
	// context.Cause says why: ErrTimeout, ErrCancelled, ErrLeaseLost or
	// ErrDraining. It must be safe for concurrent use. A panic becomes a Failure,
	// and so does an error, unless the job is tried again: see Retry, Permanent,
	// RetryAfter and Snooze.
	Perform func(ctx context.Context, arg Value) (Value, error)
}

// Info is a job as its own handler sees it.
type Info struct {
	ID         ID
	Nonce      Nonce // the job's identity; every attempt has the same
	Queue      string
	Task       string
	Attempt    int       // counts from 1
	Tally                // how the attempts before this one ended
	Deadline   time.Time // the job does not start later; zero for none
	Parent     *Parent   // the job for which it was put; nil for none
	Dispatcher string    // UUID
	Agent      string
	// Fences holds, for each quota that the job names, the fencing token of
	// the slot that this attempt has.
	Fences map[string]uint64
}

// Fence returns the fencing token of the slot that the attempt has in a quota,
// 0 where the job does not name it. Of two slots of a quota the one given later
// has the higher token, and so has a later attempt of the same job. A store that
// keeps the highest token it has seen, and refuses writes with a lower one, is
// safe from a worker that lost its lease and does not know it yet.
func (i Info) Fence(quota string) uint64 { return i.Fences[quota] }

type attemptKey struct{}

// performed is an attempt, as the context of its handler knows it.
type performed struct {
	info  Info
	deeds atomic.Int64
}

// FromContext returns the job that is being performed under ctx. ok is false
// outside of a handler.
func FromContext(ctx context.Context) (info Info, ok bool) {
	p, ok := ctx.Value(attemptKey{}).(*performed)
	if !ok {
		return Info{}, false
	}
	return p.info, true
}

// NewContext returns a context whose job is info. Dispatchers call it; a test
// of a handler may.
func NewContext(ctx context.Context, info Info) context.Context {
	return context.WithValue(ctx, attemptKey{}, &performed{info: info})
}

// Deed names something that a handler does: the first time it is called in each
// attempt of a job it returns one name, the second time another, and so on. So what
// an attempt does again that was tried before has the same name. ok is false outside
// of a handler.
func Deed(ctx context.Context) (name string, ok bool) {
	p, ok := ctx.Value(attemptKey{}).(*performed)
	if !ok {
		return "", false
	}
	return p.info.Nonce.String() + "-" + strconv.FormatInt(p.deeds.Add(1), 10), true
}
