package stream

import (
	"errors"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// A job that was given out is not replaced, unless it is over and only its ack is missing.
func TestReplaceAssigned(t *testing.T) {
	for state, over := range map[job.State]bool{job.Pending: false, job.Active: false, job.Callbacks: false, job.Completed: true} {
		t.Run(string(state), func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				old, next := chosen("me", task), chosen("me", task)
				put(t, q, old)
				tap(t, q).take(t)
				if state != job.Pending {
					complete(t, q, old, state)
				}
				err, want := q.Replace(t.Context(), next), old
				if over {
					want = next
				}
				if over && err != nil || !over && !errors.Is(err, ErrExists) {
					t.Errorf("%v", err)
				}
				if found, err := q.Find(t.Context(), "me"); err != nil || !sameNonce(found, want) {
					t.Errorf("found %+v, %v", found, err)
				}
				wantMessages(t, q, 1)
			})
		})
	}
}

// What is left of a job whose place another took goes, also where the answer to that was
// lost; not what somebody has made of it who was given it meanwhile.
func TestDiscard(t *testing.T) {
	for state, kept := range map[job.State]bool{job.Pending: false, job.Retrying: false, job.Active: true, job.Completed: true} {
		t.Run(string(state), func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				old := chosen("me", task)
				old.Spec.Deadline = time.Now().Add(time.Hour)
				put(t, q, old)
				found, err := q.Find(t.Context(), "me")
				if err != nil {
					t.Fatal(err)
				}
				complete(t, q, old, state)
				for range 2 {
					if err := q.discard(t.Context(), found); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Second) // the timer of its deadline goes
				wantMessages(t, q, 0)
				if _, _, found, err := q.Record(t.Context(), "me"); err != nil || found != kept {
					t.Errorf("its record is there: %t, %v; want %t", found, err, kept)
				}
			})
		})
	}
}
