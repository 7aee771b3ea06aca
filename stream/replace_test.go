package stream

import (
	"errors"
	"testing"

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
