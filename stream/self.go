package stream

import (
	"context"
	"sync"

	"github.com/asyncnats/asyncnats/job"
)

// Self is the job that is being performed, as the context of its handler carries
// it: through it the handler's calls about its own job reach the queue.
type Self struct {
	Queue *Queue
	job.Info

	ctx    context.Context // of the handler: ends when the attempt must stop
	failed func(what string, err error)

	mu      sync.Mutex
	ended   bool
	ends    []func()
	answers map[string]bool // names that are answered
	report  *reporter       // nil until used
}

type selfKey struct{}

// NewContext returns a context, for the handler of a job of the queue, that
// carries the job. end is to be called when the handler has returned: it ends
// what the handler has begun, and writes its last progress. failed is told, from
// any goroutine, of what could not be done and fails no job.
func NewContext(ctx context.Context, q *Queue, info job.Info, failed func(what string, err error)) (in context.Context, end func()) {
	s := &Self{Queue: q, Info: info, failed: failed}
	s.ctx = context.WithValue(job.NewContext(ctx, info), selfKey{}, s)
	return s.ctx, s.end
}

// FromContext returns the job that is being performed under ctx. ok is false
// outside of a handler.
func FromContext(ctx context.Context) (s *Self, ok bool) {
	s, ok = ctx.Value(selfKey{}).(*Self)
	return s, ok
}

// performs reports whether ctx is that of the handler of a job.
func performs(ctx context.Context, q *Queue, nonce job.Nonce) bool {
	s, ok := FromContext(ctx)
	return ok && s.Nonce == nonce && s.Queue.names == q.names
}

// atEnd has f called when the handler has returned. ok is false where it has.
func (s *Self) atEnd(f func()) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ends = append(s.ends, f)
	}
	return !s.ended
}

// end ends everything, what was begun last first.
func (s *Self) end() {
	s.mu.Lock()
	ends := s.ends
	s.ended, s.ends = true, nil
	s.mu.Unlock()
	for i := len(ends) - 1; i >= 0; i-- {
		ends[i]()
	}
}
