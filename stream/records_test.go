package stream

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

func TestRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		ctx := t.Context()
		reads := map[string]func(context.Context, job.ID) (job.Record, uint64, bool, error){"record": q.Record, "peek": q.PeekRecord}
		for name, read := range reads {
			if _, revision, found, err := read(ctx, "mine"); revision != 0 || found || err != nil {
				t.Errorf("%s of none: %d, %v, %v", name, revision, found, err)
			}
		}
		e := chosen("mine", task)
		want := recordOf(e, job.Completed)
		revision, err := q.Write(ctx, "mine", want, 0, job.KeepDefault)
		if err != nil {
			t.Fatal(err)
		}
		for name, read := range reads {
			got, at, found, err := read(ctx, "mine")
			if at != revision || !found || err != nil {
				t.Errorf("%s: at %d, %v, %v", name, at, found, err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		// Every write is conditional.
		for _, at := range []uint64{0, revision + 1} {
			if _, err := q.Write(ctx, "mine", want, at, job.KeepDefault); !errors.Is(err, kv.ErrConflict) {
				t.Errorf("write at %d: %v, want ErrConflict", at, err)
			}
		}
		if _, err := q.Write(ctx, "mine", want, revision, job.KeepDefault); err != nil {
			t.Error(err)
		}
	})
}

// A completed record lives as long as asked, and long enough for a redelivery to find it; any other until it is
// replaced.
func TestRecordLives(t *testing.T) {
	const forEver = 25 * time.Hour // more than the default
	tests := map[string]struct {
		state job.State
		keep  job.Keep
		lives time.Duration
	}{
		"by default":           {job.Completed, job.KeepDefault, DefaultKeep},
		"kept for an hour":     {job.Completed, job.KeepFor(time.Hour), time.Hour},
		"longer than others":   {job.Completed, job.KeepFor(forEver - time.Minute), forEver - time.Minute},
		"too short":            {job.Completed, job.KeepFor(time.Second), 2 * ackWait},
		"not at all":           {job.Completed, job.KeepNone, 2 * ackWait},
		"active, by default":   {job.Active, job.KeepDefault, forEver},
		"callbacks, owed much": {job.Callbacks, job.KeepFor(time.Minute), forEver},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				e := chosen("mine", task)
				// What was written before does not matter.
				revision, err := q.Write(t.Context(), e.ID, recordOf(e, job.Active), 0, job.KeepDefault)
				if err == nil {
					_, err = q.Write(t.Context(), e.ID, recordOf(e, test.state), revision, test.keep)
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(test.lives - time.Second)
				if _, _, found, err := q.Record(t.Context(), e.ID); !found || err != nil {
					t.Errorf("gone early: %v, %v", found, err)
				}
				time.Sleep(3 * time.Second)
				if _, _, found, err := q.Record(t.Context(), e.ID); found != (test.lives == forEver) || err != nil {
					t.Errorf("found %v afterwards, %v", found, err)
				}
			})
		})
	}
}

// The record of a part that is written with its outcome can be written again as completed,
// with what callbacks it has.
func TestRecordHasRoomForWhatFollows(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		limit := int(q.conn().MaxPayload())
		written, refused := 0, 0
		for size := limit - 2*recordRoom; size < limit; size += 500 {
			e := newEntry()
			record := recordOf(e, job.Callbacks)
			record.Parent = &job.Parent{Queue: "media", ID: "whole"}
			record.Outcome = &job.Outcome{Result: job.Value{Data: make([]byte, size)}}
			revision, err := q.Write(t.Context(), e.ID, record, 0, job.KeepDefault)
			if errors.Is(err, ErrTooLarge) {
				refused++
				continue
			}
			written++
			record.State = job.Completed
			for i := range 12 {
				record.Called = append(record.Called, job.Called{On: job.OnSuccess, ID: e.Spec.Nonce.CallbackID(i), Task: task})
			}
			if err == nil {
				_, err = q.Write(t.Context(), e.ID, record, revision, job.KeepDefault)
			}
			if err != nil {
				t.Errorf("a result of %d bytes: %v", size, err)
			}
		}
		if written == 0 || refused == 0 {
			t.Errorf("%d were written, %d refused", written, refused)
		}
	})
}

func TestAnnounce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		e := chosen("mine", task)
		want := recordOf(e, job.Completed)
		announce := func(id job.ID, record job.Record) {
			t.Helper()
			if err := q.Announce(id, record); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		announce("mine", want) // nobody listens

		other := createQueue(t, s.Connect(t), Config{})
		a, err := other.Await("mine", e.Spec.Nonce)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if err := other.conn().Flush(); err != nil {
			t.Fatal(err)
		}
		if err := q.conn().Publish("async.media.done.mine", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		announce("another", want)
		announce("mine", recordOf(chosen("mine", task), job.Completed)) // of one that had its ID before
		if len(a.Records()) > 0 {
			t.Fatal("announced by somebody else's message")
		}
		for range 3 { // who does not listen does not hold up anybody
			announce("mine", want)
		}
		if diff := cmp.Diff(want, <-a.Records(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		a.Close()
		announce("mine", want)
		if len(a.Records()) > 0 {
			t.Error("announced after Close")
		}
		wantMessages(t, q, 0)
	})
}
