package stream

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// A callback that is added while a cancelled job is being paid for is put, and the
// job becomes completed.
func TestCallbackAddedWhileCancelIsSettled(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		message, _, err := q.findLatest(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		spec, _ := message.Spec()
		record := q.recordOfMessage(message, spec, job.Record{})
		record.State, record.Outcome = job.Callbacks, &job.Outcome{Failure: &job.Failure{Kind: job.KindCancelled}}
		revision, err := q.Write(t.Context(), e.ID, record, 0, spec.Keep)
		if err != nil {
			t.Fatal(err)
		}
		callback := job.Callback{On: job.OnAny, Call: job.Call{Task: "image.note"}}
		if err := q.AddCallback(t.Context(), e.ID, e.Spec.Nonce, callback); err != nil {
			t.Fatal(err)
		}
		// Whoever cancels goes on from what it has read.
		_, err = q.settle(t.Context(), e.ID, spec, record, revision, Cancelled{Nonce: e.Spec.Nonce, State: job.Pending}, false)
		if !errors.Is(err, kv.ErrConflict) {
			t.Errorf("settled over a callback that was added: %v", err)
		}
		if _, err := q.Cancel(t.Context(), e.ID, e.Spec.Nonce); !errors.Is(err, ErrCompleted) {
			t.Errorf("cancelled again: %v", err)
		}
		if got := mustRecord(t, q, e.ID); got.State != job.Completed || len(got.Called) != 1 {
			t.Errorf("%s, called %v", got.State, got.Called)
		}
		if !isStored(t, q, e.Spec.Nonce.CallbackID(0)) {
			t.Error("the callback is not put")
		}
	})
}

// A callback whose adding is repeated, since the answer was lost, is added once: also
// where the job is over by then.
func TestCallbackIsAddedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		callback := job.Callback{On: job.OnAny, Call: job.Call{Task: "image.note"}, Added: job.NewNonce()}
		for range 2 {
			if err := q.addCallback(t.Context(), e.ID, e.Spec.Nonce, callback); err != nil {
				t.Fatal(err)
			}
		}
		if got := mustRecord(t, q, e.ID); len(got.Callbacks) != 1 {
			t.Errorf("%d are added", len(got.Callbacks))
		}
		if _, err := q.Cancel(t.Context(), e.ID, e.Spec.Nonce); err != nil {
			t.Fatal(err)
		}
		if err := q.addCallback(t.Context(), e.ID, e.Spec.Nonce, callback); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, q, 1) // the callback
		large := job.Callback{On: job.OnAny, Call: padded(100_000, "x")}
		if err := q.AddCallback(t.Context(), putNew(t, q).ID, job.Nonce{}, large); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	})
}

// A job that is taken back while callbacks are added to it leaves no record that says that
// it is pending, however often that is tried.
func TestCallbackIsAddedToJobThatIsPulled(t *testing.T) {
	const rounds = 60
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		random := rand.New(rand.NewPCG(seed, 0))
		other := createQueue(t, s.Connect(t), Config{})
		refused := 0
		for round := range rounds {
			e := putNew(t, q)
			added := make(chan error, 2)
			for range cap(added) {
				go func() {
					added <- other.AddCallback(t.Context(), e.ID, e.Spec.Nonce, job.Callback{On: job.OnAny, Call: job.Call{Task: "image.note"}})
				}()
			}
			for range random.IntN(100) {
				runtime.Gosched() // as in TestPutOverCutWire
			}
			if _, err := q.Pull(t.Context(), e.ID, e.Spec.Nonce); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			for range cap(added) {
				if err := <-added; errors.Is(err, ErrNoJob) {
					refused++
				} else if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			if record, _, found, err := q.Record(t.Context(), e.ID); err != nil || found {
				t.Fatalf("round %d: %s is left, %v", round, record.State, err)
			}
		}
		if refused == 0 || refused == 2*rounds {
			t.Errorf("%d of %d are refused: the race misses", refused, 2*rounds)
		}
	})
}
