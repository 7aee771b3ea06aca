package stream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

const (
	// ReportEvery is the least time between two writes of what a job reports.
	ReportEvery = 250 * time.Millisecond
	// lastReport is how long the last of them may hold up the outcome; hastyReport
	// is the same where the attempt had to end.
	lastReport  = time.Second
	hastyReport = 200 * time.Millisecond
)

// ProgressNote is the name of the annotation that [Self.Report] sets.
const ProgressNote = "progress"

// Report sets the progress of the job some time soon: at once, or when
// [ReportEvery] has passed since the last write. Of several that are reported
// meanwhile the last is written, at the latest when the handler returns. It never
// waits for the server; an attempt that lost its lease writes nothing more, nor
// does a handler that has returned.
func (s *Self) Report(value job.Value) {
	s.mu.Lock()
	if s.report == nil {
		s.report = &reporter{self: s, ended: s.ended}
		s.ends = append(s.ends, s.report.end)
	}
	r := s.report
	s.mu.Unlock()
	r.set(value)
}

// reporter writes what a job reports. At most one goroutine of it runs at a time,
// and none when there is nothing to write.
type reporter struct {
	self *Self

	mu      sync.Mutex
	value   job.Value
	unsaid  bool          // value is not written
	due     *time.Timer   // set while a write is due later
	writing chan struct{} // closed when the write under way is done; nil where none is
	stop    context.CancelFunc
	written time.Time // when the last write was begun
	failed  bool      // a write failed, which was told
	ended   bool
}

// set takes a value, and sees to it that it is written, unless the handler has
// returned.
func (r *reporter) set(value job.Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.unsaid = value, true
	r.schedule()
}

// schedule begins a write, now or when it is due. Called with mu held.
func (r *reporter) schedule() {
	if r.ended || !r.unsaid || r.writing != nil || r.due != nil {
		return
	}
	if wait := ReportEvery - time.Since(r.written); wait > 0 {
		r.due = time.AfterFunc(wait, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.due = nil
			r.schedule()
		})
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.self.ctx), tryPatience)
	done := make(chan struct{})
	r.writing, r.stop, r.written, r.unsaid = done, stop, time.Now(), false
	value := r.value
	go func() {
		defer close(done)
		defer stop()
		defer context.AfterFunc(r.self.ctx, func() {
			if r.lost() {
				stop()
			}
		})()
		err := r.write(ctx, value)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.writing, r.stop = nil, nil
		r.tell(err)
		if errors.Is(err, ErrUnanswered) { // what is refused would be refused again
			r.unsaid = true
		}
		r.schedule()
	}()
}

// lost reports whether the job is another attempt's, whose progress is not to be
// written over.
func (r *reporter) lost() bool { return errors.Is(context.Cause(r.self.ctx), job.ErrLeaseLost) }

func (r *reporter) write(ctx context.Context, value job.Value) error {
	if r.lost() {
		return nil
	}
	s := r.self
	return s.Queue.Annotate(ctx, s.ID, s.Nonce, ProgressNote, value, s.Dispatcher)
}

// tell says once that what is reported cannot be written. Called with mu held.
func (r *reporter) tell(err error) {
	if err != nil && !r.failed && !r.ended && !r.lost() {
		r.failed = true
		r.self.failed("progress not written", err)
	}
}

// end writes what is left to be written, and waits for it a while.
func (r *reporter) end() {
	r.mu.Lock()
	r.ended = true
	if r.due != nil {
		r.due.Stop()
		r.due = nil
	}
	writing, stop := r.writing, r.stop
	r.mu.Unlock()
	patience := lastReport
	if r.self.ctx.Err() != nil {
		patience = hastyReport
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.self.ctx), patience)
	defer cancel()
	if writing != nil {
		select {
		case <-writing:
		case <-ctx.Done():
			stop()
			<-writing // its request ends with its context
		}
	}
	r.mu.Lock()
	value, unsaid := r.value, r.unsaid
	r.mu.Unlock()
	if !unsaid || ctx.Err() != nil {
		return
	}
	if err := r.write(ctx, value); err != nil {
		r.self.failed("last progress not written", err)
	}
}
