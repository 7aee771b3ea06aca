package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
)

// entry is one value that a job's record had, as far as it tells of attempts.
type entry struct {
	State      job.State
	Life       int // of which process
	Number     int // of the attempt
	Interrupts int
}

func (e entry) String() string {
	return fmt.Sprintf("%s in life %d, attempt %d, %d interrupts", e.State, e.Life, e.Number, e.Interrupts)
}

// readEntries reads every value that every job's record had.
func readEntries(ctx context.Context, js jetstream.JetStream, lives map[string]int) (map[job.ID][]entry, error) {
	all := make(map[job.ID][]entry)
	err := readAll(ctx, js, recordsStream, func(msg *jetstream.RawStreamMsg) error {
		record, err := job.DecodeRecord(msg.Data)
		if err != nil {
			return err
		}
		id := job.ID(lastToken(msg.Subject))
		all[id] = append(all[id], entry{record.State, lives[record.Attempt.Dispatcher], record.Attempt.Number, record.Interrupts})
		return nil
	})
	return all, err
}

// ledger is what a job's record must have been, one value after another, to
// judge by what attempts did.
type ledger struct {
	entries []entry
	// claimed says that the job was delivered before its last life, which so
	// must not start it without writing that first.
	claimed bool
	over    bool // its message is gone
	wrong   []error
}

// reckon makes the ledger of a job whose deeds in all lives but the last these
// are. In the last one nothing stops it.
func reckon(deeds []deed, last int) *ledger {
	l := &ledger{}
	for len(deeds) > 0 {
		n := 1
		for n < len(deeds) && deeds[n].Life == deeds[0].Life && deeds[n].Delivered == deeds[0].Delivered {
			n++
		}
		done := make(map[step]bool)
		for _, d := range deeds[:n] {
			done[d.Step] = done[d.Step] || !d.Undone
		}
		l.attempt(deeds[0].Life, deeds[0].Delivered, done)
		deeds = deeds[n:]
	}
	if !l.over && !l.completed() {
		l.begin(last)
		l.complete(last)
	}
	return l
}

// attempt enters what one attempt did.
func (l *ledger) attempt(life, delivered int, done map[step]bool) {
	l.claimed = true
	if l.over || l.completed() && (done[started] || done[begun] || done[recorded]) {
		l.fail(life, "is performed again after its outcome was recorded")
	}
	if done[begun] {
		l.begin(life)
	}
	if done[started] && delivered > 1 && !done[begun] {
		l.fail(life, "starts without a record, though it was delivered before")
	}
	if done[recorded] {
		l.complete(life)
	}
	if done[acked] {
		l.over = true
		if !l.completed() {
			l.fail(life, "is acked without an outcome")
		}
	}
}

// begin enters that an attempt has begun. One that was begun before, and has no
// outcome, was interrupted.
func (l *ledger) begin(life int) {
	next := entry{State: job.Active, Life: life, Number: 1}
	if n := len(l.entries); n > 0 {
		next.Number, next.Interrupts = l.entries[n-1].Number+1, l.entries[n-1].Interrupts+1
	}
	l.entries = append(l.entries, next)
}

// complete enters an outcome: of an attempt that was begun, or of a first one
// that needed no record before.
func (l *ledger) complete(life int) {
	next := entry{State: job.Completed, Life: life, Number: 1}
	if n := len(l.entries); n > 0 {
		next.Number, next.Interrupts = l.entries[n-1].Number, l.entries[n-1].Interrupts
	}
	l.entries = append(l.entries, next)
}

func (l *ledger) completed() bool {
	return len(l.entries) > 0 && l.entries[len(l.entries)-1].State == job.Completed
}

func (l *ledger) fail(life int, what string) {
	l.wrong = append(l.wrong, fmt.Errorf("in life %d it %s", life, what))
}

// check compares what the record was with what it must have been.
func (l *ledger) check(got []entry) (errs []error) {
	want := l.entries
	if !l.claimed && len(got) == 1 {
		want = want[1:] // it was never delivered before, so that nothing was to be written
	}
	if !slices.Equal(got, want) {
		errs = append(errs, fmt.Errorf("its record was %v, want %v", got, want))
	}
	return append(errs, l.wrong...)
}

// What attempts did says what the record must have been: an attempt that wrote
// that it had begun, and no outcome, is an interrupt; one that left no trace is
// none.
func TestReckon(t *testing.T) {
	completed := func(life, number, interrupts int) entry { return entry{job.Completed, life, number, interrupts} }
	active := func(life, number, interrupts int) entry { return entry{job.Active, life, number, interrupts} }
	attempt := func(life, delivered int, steps ...step) (deeds []deed) {
		for _, s := range steps {
			deeds = append(deeds, deed{Life: life, Delivered: delivered, Step: s})
		}
		return deeds
	}
	for name, row := range map[string]struct {
		deeds []deed
		want  []entry
		wrong int
	}{
		"never delivered": {nil, []entry{active(3, 1, 0), completed(3, 1, 0)}, 0},
		"died unseen":     {attempt(1, 1, claimed, started), []entry{active(3, 1, 0), completed(3, 1, 0)}, 0},
		"done":            {attempt(1, 1, claimed, started, recorded, acked), []entry{completed(1, 1, 0)}, 0},
		"ack lost":        {attempt(1, 1, claimed, started, recorded), []entry{completed(1, 1, 0)}, 0},
		"died twice": {
			slices.Concat(attempt(1, 1, claimed, started), attempt(2, 2, claimed, begun, started)),
			[]entry{active(2, 1, 0), active(3, 2, 1), completed(3, 2, 1)}, 0,
		},
		"done the second time": {
			slices.Concat(attempt(1, 1, claimed, started), attempt(2, 2, claimed, begun, started, recorded)),
			[]entry{active(2, 1, 0), completed(2, 1, 0)}, 0,
		},
		"not begun again": {
			attempt(2, 2, claimed, started), []entry{active(3, 1, 0), completed(3, 1, 0)}, 1,
		},
		"acked before it was recorded": {
			attempt(1, 1, claimed, started, acked), nil, 1,
		},
		"performed again": {
			slices.Concat(attempt(1, 1, claimed, started, recorded), attempt(2, 2, claimed, started)),
			[]entry{completed(1, 1, 0)}, 2,
		},
	} {
		if l := reckon(row.deeds, 3); !slices.Equal(l.entries, row.want) || len(l.wrong) != row.wrong {
			t.Errorf("%s: %v, wrong %v, want %v", name, l.entries, l.wrong, row.want)
		}
	}
}
