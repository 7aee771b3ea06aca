package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// Record reads a job's record from the leader, with its revision. found is
// false where there is none.
func (q *Queue) Record(ctx context.Context, id job.ID) (record job.Record, revision uint64, found bool, err error) {
	entry, err := q.records.Latest(ctx, q.names.record(id))
	return q.recordOf(id, entry, err)
}

// PeekRecord reads a job's record from any replica: it may be behind, and
// costs the leader nothing.
func (q *Queue) PeekRecord(ctx context.Context, id job.ID) (record job.Record, revision uint64, found bool, err error) {
	entry, err := q.records.Get(ctx, q.names.record(id))
	return q.recordOf(id, entry, err)
}

// PeekRecords reads the records of several jobs, from any replica. A job that has none
// is absent.
func (q *Queue) PeekRecords(ctx context.Context, ids []job.ID) (map[job.ID]job.Record, error) {
	found := make(map[string]kv.Entry[job.Record], len(ids))
	for page := range slices.Chunk(ids, recordsAtOnce) {
		keys := make([]string, len(page))
		for i, id := range page {
			keys[i] = q.names.record(id)
		}
		if err := q.lastOnEach(ctx, keys, found); err != nil {
			return nil, explain(q.conn(), "read records of queue "+q.names.queue, err)
		}
	}
	records := make(map[job.ID]job.Record, len(found))
	for _, id := range ids {
		if entry, ok := found[q.names.record(id)]; ok {
			records[id] = entry.Value
		}
	}
	return records, nil
}

func (q *Queue) recordOf(id job.ID, entry kv.Entry[job.Record], err error) (job.Record, uint64, bool, error) {
	if errors.Is(err, kv.ErrNotFound) {
		return job.Record{}, 0, false, nil
	}
	if err != nil {
		return job.Record{}, 0, false, explain(q.conn(), fmt.Sprintf("read the record of job %s", id), err)
	}
	return entry.Value, entry.Revision, true, nil
}

// Write writes a job's record on the condition that its revision is still the
// one given, 0 for a job without a record, and returns the new revision. Where
// it is not, the error is [kv.ErrConflict]; for a result that does not fit, a
// [*TooLargeError].
//
// A completed record lives for as long as keep says, and at least twice the
// ack wait, for a redelivery must find it; a Failure lives as by default where
// results are not kept, since somebody has to hear of it. That of a part lives
// until the whole is completed, and then as long as that of the whole. Any other
// record lives until it is replaced.
func (q *Queue) Write(ctx context.Context, id job.ID, record job.Record, revision uint64, keep job.Keep) (uint64, error) {
	ttl := kv.Forever
	if record.State.Final() && !record.Parent.Waits() {
		if keep == job.KeepNone && record.Outcome != nil && !record.Outcome.Succeeded() {
			keep = job.KeepDefault
		}
		ttl = q.keepFor(keep)
	}
	key := q.names.record(id)
	if err := q.roomFor(record, ttl); err != nil {
		return revision, err
	}
	var err error
	if revision == 0 {
		revision, err = q.records.Create(ctx, key, record, ttl)
	} else {
		revision, err = q.records.Update(ctx, key, record, revision, ttl)
	}
	if tooLarge(err) && record.Outcome != nil {
		err = &TooLargeError{What: "result", Size: len(record.Outcome.Result.Data), Max: int(q.conn().MaxPayload())}
	}
	return revision, err
}

// recordRoom is how many bytes a record may grow by that has its outcome: when
// callbacks were put, and by the header of its time to live.
const recordRoom = 4 << 10

// roomFor reports a result that leaves no room for what is still to be written beside
// it: later it could not be taken back.
func (q *Queue) roomFor(record job.Record, ttl time.Duration) error {
	limit := int(q.conn().MaxPayload())
	switch {
	case ttl != kv.Forever, record.State == job.Completed && !record.Parent.Waits():
		return nil
	case record.Outcome == nil, !record.Outcome.Succeeded():
		return nil
	case record.Parts == nil && len(record.Outcome.Result.Data) < limit/2: // parts may take as much
		return nil
	case record.Called != nil: // they have the room that was left for them
		return nil
	}
	data, err := job.EncodeRecord(record)
	if size := len(data) + recordRoom; err == nil && size > limit {
		err = &TooLargeError{What: "result", Size: len(record.Outcome.Result.Data), Max: limit}
	}
	return err
}

func (q *Queue) keepFor(keep job.Keep) time.Duration {
	if keep == job.KeepDefault {
		return DefaultKeep
	}
	return max(time.Duration(keep), 2*q.AckWait())
}

// Announce tells whoever waits for the job that its outcome is recorded. It is
// not stored: who misses it reads the record.
func (q *Queue) Announce(id job.ID, record job.Record) error {
	data, err := job.EncodeRecord(record)
	if err != nil {
		return err
	}
	return q.conn().Publish(q.names.done(id), data)
}

// Announced is a subscription to the announcement of one job's outcome.
type Announced struct {
	nc      *nats.Conn
	sub     *nats.Subscription
	records chan job.Record
	status  chan nats.Status
}

// Await subscribes to the announcement of a job's outcome. nonce is that of the job
// meant, or zero for whichever has the ID.
func (q *Queue) Await(id job.ID, nonce job.Nonce) (*Announced, error) {
	a := &Announced{nc: q.conn(), records: make(chan job.Record, 1)}
	var err error
	a.sub, err = q.conn().Subscribe(q.names.done(id), func(msg *nats.Msg) {
		record, err := job.DecodeRecord(msg.Data)
		if err != nil {
			return // somebody else's message; the record itself will be read
		}
		if !nonce.IsZero() && record.Nonce != nonce {
			return // it would keep the place of the one meant
		}
		select {
		case a.records <- record:
		default:
		}
	})
	if err != nil {
		return nil, fmt.Errorf("wait for job %s: %w", id, err)
	}
	a.status = a.nc.StatusChanged(nats.CONNECTED)
	return a, nil
}

// Records yields announced records.
func (a *Announced) Records() <-chan job.Record { return a.records }

// Reconnected yields when the connection is there again: announcements may have
// been missed meanwhile.
func (a *Announced) Reconnected() <-chan nats.Status { return a.status }

// Close ends the subscription.
func (a *Announced) Close() {
	a.nc.RemoveStatusListener(a.status)
	_ = a.sub.Unsubscribe()
}

// AnyAnnounced is a subscription to the announcements of all outcomes of a queue.
type AnyAnnounced struct {
	nc     *nats.Conn
	sub    *nats.Subscription
	heard  chan struct{}
	status chan nats.Status
}

// AwaitAny subscribes to the announcements of outcomes. Word of several may be one.
func (q *Queue) AwaitAny() (*AnyAnnounced, error) {
	a := &AnyAnnounced{nc: q.conn(), heard: make(chan struct{}, 1)}
	var err error
	a.sub, err = q.conn().Subscribe(q.names.done("*"), func(*nats.Msg) {
		select {
		case a.heard <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, fmt.Errorf("hear of outcomes in queue %s: %w", q.names.queue, err)
	}
	a.status = a.nc.StatusChanged(nats.CONNECTED)
	return a, nil
}

// Heard yields when an outcome was announced.
func (a *AnyAnnounced) Heard() <-chan struct{} { return a.heard }

// Reconnected yields when the connection is there again: announcements may have been
// missed meanwhile.
func (a *AnyAnnounced) Reconnected() <-chan nats.Status { return a.status }

// Close ends the subscription.
func (a *AnyAnnounced) Close() {
	a.nc.RemoveStatusListener(a.status)
	_ = a.sub.Unsubscribe()
}
