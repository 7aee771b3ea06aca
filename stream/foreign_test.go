package stream

import (
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// TestBitsByHand has a worker in another language do the least that docs/protocol.md
// says: it sets the bit of a part in the record of the whole, and leaves the rest to a
// dispatcher.
func TestBitsByHand(t *testing.T) {
	for _, form := range []job.Form{job.FormParallel, job.FormSerial, job.FormThen} {
		inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
			e := newEntry()
			e.Spec.Task, e.Spec.Parts = string(form), &job.Parts{Form: form, Count: 2, Calls: []job.Call{{Task: task}, {Task: task}}}
			put(t, q, e)
			dispatcher := func() {
				t.Helper()
				if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			dispatcher()
			for i := range 2 {
				parts := job.Parts{Base: e.Spec.Nonce}
				if _, err := q.Find(t.Context(), parts.PartID(i)); err != nil {
					t.Fatalf("%s: part %d was not put: %v", form, i, err)
				}
				if _, err := q.Write(t.Context(), parts.PartID(i), job.Record{
					Version: 1, Nonce: parts.PartNonce(i), Task: task, State: job.Completed, Outcome: &job.Outcome{Result: text("x")},
					Parent: &job.Parent{Queue: "media", ID: e.ID, Nonce: e.Spec.Nonce, Number: i},
				}, 0, job.KeepDefault); err != nil {
					t.Fatal(err)
				}
				record, revision, _, err := q.Record(t.Context(), e.ID)
				if err != nil {
					t.Fatal(err)
				}
				set, _ := record.Parts.SetDone(i)
				record.Parts = &set
				if _, err := q.Write(t.Context(), e.ID, record, revision, job.KeepDefault); err != nil {
					t.Fatal(err)
				}
				dispatcher()
			}
			record, _, _, err := q.Record(t.Context(), e.ID)
			if err != nil || record.State != job.Completed || !record.Outcome.Succeeded() {
				t.Errorf("%s: %+v, %v, want completed", form, record, err)
			}
		})
	}
}
