package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// lastWrite is the sequence of the last write of any annotation.
func lastWrite(t *testing.T, q *Queue) uint64 {
	t.Helper()
	s, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_NOTES")
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func wantReported(t *testing.T, q *Queue, e Entry, want string) {
	t.Helper()
	note, found, err := q.Note(t.Context(), e.ID, e.Spec.Nonce, ProgressNote)
	if got := strings.Trim(string(note.Value.Data), `"`); err != nil || found != (want != "") || got != want {
		t.Errorf("reported %q, %v, want %q", got, err, want)
	}
}

// What is reported is there at once, then at most four times a second, and the last
// is there when the handler has returned.
func TestReport(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := newEntry()
		_, self, end := handled(t, q, e)
		self.Report(text("first"))
		synctest.Wait()
		wantReported(t, q, e, "first")
		const seconds = 10
		for n := range seconds * 1000 {
			self.Report(text(fmt.Sprint(n)))
			time.Sleep(time.Millisecond)
			if n == 5100 { // it is as it was a quarter of a second ago, at most
				note, _, err := q.Note(t.Context(), e.ID, e.Spec.Nonce, ProgressNote)
				was, convErr := strconv.Atoi(strings.Trim(string(note.Value.Data), `"`))
				if behind := time.Duration(n-was) * time.Millisecond; err != nil || convErr != nil || behind > ReportEvery {
					t.Errorf("%v behind, %v, %v", behind, err, convErr)
				}
			}
		}
		if writes := lastWrite(t, q); writes < 4*seconds-1 || writes > 4*seconds+2 {
			t.Errorf("%d writes in %d seconds", writes, seconds)
		}
		self.Report(text("later"))
		time.Sleep(2 * ReportEvery)
		wantReported(t, q, e, "later") // though nothing is reported after it
		self.Report(text("now"))
		self.Report(text("last"))
		within(t, 0, "the end", end)
		wantReported(t, q, e, "last")
		writes := lastWrite(t, q)
		self.Report(text("too late"))
		time.Sleep(time.Minute)
		if lastWrite(t, q) != writes {
			t.Error("something is written after the handler's return")
		}
		wantReported(t, q, e, "last")
	})
}

// Nothing to report, nothing to write; what is written is not written again.
func TestReportNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := newEntry()
		_, _, end := handled(t, q, e)
		end()
		_, self, end := handled(t, q, e)
		self.Report(text("one"))
		time.Sleep(time.Minute)
		end()
		if writes := lastWrite(t, q); writes != 1 {
			t.Errorf("%d writes, want one", writes)
		}
	})
}

// An attempt that lost its lease writes nothing over what the next one reports.
func TestReportAfterTheLease(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := newEntry()
		attempt, lose := context.WithCancelCause(t.Context())
		ctx, end := NewContext(attempt, q, job.Info{ID: e.ID, Nonce: e.Spec.Nonce}, func(what string, err error) { t.Error(what, err) })
		self, _ := FromContext(ctx)
		self.Report(text("ours"))
		synctest.Wait()
		self.Report(text("unsaid"))
		lose(job.ErrLeaseLost)
		_, theirs, _ := handled(t, q, e)
		theirs.Report(text("theirs"))
		time.Sleep(time.Second)
		self.Report(text("late"))
		time.Sleep(time.Second)
		end()
		wantReported(t, q, e, "theirs")
	})
}

// While the server is away the handler goes on, its return waits a second at most,
// and somebody is told; afterwards all is as before.
func TestReportInAnOutage(t *testing.T) {
	for name, longer := range map[string]bool{"that ends": false, "that lasts": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
				far, wire := wired(t, s)
				e := newEntry()
				told := make(chan error, 100)
				ctx, end := NewContext(t.Context(), far, job.Info{ID: e.ID, Nonce: e.Spec.Nonce}, func(_ string, err error) { told <- err })
				self, _ := FromContext(ctx)
				self.Report(text("before"))
				synctest.Wait()
				wire.Freeze()
				time.Sleep(time.Second)
				within(t, 0, "a report", func() {
					self.Report(text("meanwhile"))
					synctest.Wait()
					self.Report(text("last"))
				})
				time.Sleep(time.Minute)
				if len(told) != 1 || !errors.Is(<-told, ErrUnanswered) {
					t.Errorf("%d times told, want once", len(told)+1)
				}
				if longer {
					within(t, lastReport+time.Millisecond, "the handler's return", end)
					wire.Thaw()
					return
				}
				wire.Thaw()
				time.Sleep(10 * time.Second)
				wantReported(t, q, e, "last")
				within(t, 0, "the handler's return", end)
			})
		})
	}
}

// What the server refuses is not tried again and again.
func TestReportWithoutPermission(t *testing.T) {
	configure, login := withUser("$KV.ASYNC_NOTES.>")
	natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
		createQueue(t, s.Connect(t, asAdmin), Config{})
		var refusals atomic.Int64
		q := createQueue(t, s.Connect(t, login, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { refusals.Add(1) })), Config{})
		e := newEntry()
		told := make(chan error, 100)
		ctx, end := NewContext(t.Context(), q, job.Info{ID: e.ID, Nonce: e.Spec.Nonce}, func(_ string, err error) { told <- err })
		self, _ := FromContext(ctx)
		self.Report(text("x"))
		time.Sleep(time.Hour)
		end()
		if len(told) != 1 || !errors.Is(<-told, ErrPermission) {
			t.Errorf("%d times told, want once, of ErrPermission", len(told)+1)
		}
		if n := refusals.Load(); n != 1 {
			t.Errorf("it was tried %d times", n)
		}
	})
}
