package stream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// finishAll has all parts of a whole completed, each with the result, and the whole told.
func finishAll(t *testing.T, q *Queue, e Entry, result job.Value) {
	t.Helper()
	var all []int
	for i := range e.Spec.Parts.Count {
		perform(t, q, partOf(e, i), result)
		all = append(all, i)
	}
	if err := q.advance(t.Context(), e.ID, e.Spec.Nonce, time.Now(), all...); err != nil {
		t.Fatal(err)
	}
}

// Results that are far too large together are not all read; the whole ends, and its
// parts are released.
func TestJoinOfLargeResults(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		var calls []job.Call
		for i := range partsAtOnce + 20 {
			calls = append(calls, called(fmt.Sprint(i)))
		}
		e := entryOf("", composed(job.FormParallel, calls...))
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		large, err := job.Encode(strings.Repeat("x", 50_000), job.MsgPack)
		if err != nil {
			t.Fatal(err)
		}
		finishAll(t, q, e, large)
		got := mustRecord(t, q, e.ID)
		if failure := got.Outcome.Failure; got.State != job.Completed || failure.Kind != job.KindInvalid || !strings.Contains(failure.Message, "outcomes of its first 100 parts: result of 5000") {
			t.Errorf("%s, %v", got.State, failure)
		}
		time.Sleep(25 * time.Hour)
		for _, i := range []int{0, partsAtOnce, partsAtOnce + 19} {
			if _, _, found, err := q.Record(t.Context(), partOf(e, i)); err != nil || found {
				t.Errorf("part %d is kept for ever: %v", i, err)
			}
		}
	})
}

// Whoever cancels the parts of a large whole notes how far it has come, and whoever goes on
// goes on from there.
func TestCancelOfManyPartsIsNoted(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		var calls []job.Call
		for i := range 2*cancelledAtOnce + 10 {
			calls = append(calls, called(fmt.Sprint(i)))
		}
		e := entryOf("", composed(job.FormParallel, calls...))
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		// Somebody has cancelled it, and the first of its parts, and has died.
		record, revision, _, err := q.Record(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		record.State, record.Outcome = job.Callbacks, &job.Outcome{Failure: &job.Failure{Kind: job.KindCancelled}}
		record.Parts.Stopped = 7
		if _, err := q.Write(t.Context(), e.ID, record, revision, e.Spec.Keep); err != nil {
			t.Fatal(err)
		}
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		got := mustRecord(t, q, e.ID)
		if got.State != job.Completed || got.Parts.Stopped != 7+2*cancelledAtOnce {
			t.Errorf("%s, and noted %d", got.State, got.Parts.Stopped)
		}
		for i := range calls {
			if stored := isStored(t, q, partOf(e, i)); stored != (i < 7) {
				t.Errorf("part %d is stored: %t", i, stored)
			}
		}
	})
}

// A job that may be in several queues is looked for once more where it is in none.
func TestLatestRecordsOfSeveralQueues(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		var keys [][]string
		for i := range 50 {
			places := []string{q.names.record(job.ID(fmt.Sprint(i))), names{q.names.namespace, "other"}.record(job.ID(fmt.Sprint(i)))}
			record := job.Record{Version: job.RecordVersion, Nonce: job.NewNonce(), Task: task, State: job.Completed, Outcome: &job.Outcome{}}
			if _, err := q.records.Create(t.Context(), places[i%2], record, kv.Forever); err != nil {
				t.Fatal(err)
			}
			keys = append(keys, places)
		}
		before := q.conn().Stats().OutMsgs
		found, err := q.latestRecords(t.Context(), keys)
		if asked := q.conn().Stats().OutMsgs - before; err != nil || len(found) != 50 || asked > 2 {
			t.Errorf("found %d with %d messages, %v", len(found), asked, err)
		}
	})
}
