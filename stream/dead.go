package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// DeadKeep is how long a failed job is kept in a bucket that we make. An
// administrator may change the bucket's maximum age; it is never altered.
const DeadKeep = 30 * 24 * time.Hour

// deadConfig describes the bucket of failed jobs.
func deadConfig(namespace string, replicas int) kv.Config {
	return kv.Config{
		Bucket:      deadBucket(namespace),
		Description: "asyncnats failed jobs",
		MaxAge:      DeadKeep,
		Replicas:    replicas,
	}
}

var deadJobs = kv.Codec[job.Dead]{Encode: job.EncodeDead, Decode: job.DecodeDead}

// DeadEntry is a failed job, as it is kept.
type DeadEntry struct {
	ID job.ID
	job.Dead
	// Revision is that of the entry. A later job of the same ID and task that
	// fails has another.
	Revision uint64
	// At is when the entry was written, by the server's clock: when the job
	// failed or, after a crash, was found to have.
	At time.Time

	key string
}

// openDead opens the bucket of failed jobs. A namespace whose queues are of a
// release that knew none gets it now, with as many replicas as the queue.
func (q *Queue) openDead(ctx context.Context) (*kv.Bucket[job.Dead], error) {
	if bucket := q.dead.opened(); bucket != nil {
		return bucket, nil
	}
	bucket, err := kv.OpenAging(ctx, q.ns.js, deadBucket(q.ns.name), deadJobs)
	if errors.Is(err, kv.ErrNoBucket) {
		if err = q.makeDead(ctx); err == nil {
			bucket, err = kv.OpenAging(ctx, q.ns.js, deadBucket(q.ns.name), deadJobs)
		}
	}
	if err != nil {
		return nil, err
	}
	q.dead.set(bucket)
	return bucket, nil
}

func (q *Queue) makeDead(ctx context.Context) error {
	found, err := q.ns.js.Stream(ctx, q.names.stream())
	if err != nil {
		return err
	}
	return kv.Make(ctx, q.ns.js, deadConfig(q.ns.name, found.CachedInfo().Config.Replicas))
}

// Bury keeps a job that failed, in place of an earlier one of the same ID and
// task. It may be repeated: an entry of the same job, or of a later one, is left
// as it is. Of an entry that is too large for the server parts are left out.
//
// Errors: [ErrUnanswered], [ErrPermission], [ErrTooLarge] where no part is left
// that can be spared.
func (q *Queue) Bury(ctx context.Context, id job.ID, dead job.Dead) error {
	step := fmt.Sprintf("keep failed job %s of queue %s", id, q.names.queue)
	bucket, err := q.openDead(ctx)
	if err != nil {
		return explain(q.conn(), step, err)
	}
	key := q.names.dead(dead.Record.Task, id)
	revision := uint64(0)
	for {
		if revision == 0 {
			_, err = bucket.Create(ctx, key, dead, kv.Forever)
		} else {
			_, err = bucket.Update(ctx, key, dead, revision, kv.Forever)
		}
		switch smaller, ok := dead.Smaller(); {
		case err == nil:
			return nil
		case errors.Is(err, kv.ErrConflict):
			var kept bool
			if kept, revision, err = q.inGrave(ctx, bucket, key, dead.Record); kept {
				return nil
			}
		case tooLarge(err) && ok:
			dead, err = smaller, nil
		case tooLarge(err):
			return fmt.Errorf("%s: %w", step, ErrTooLarge)
		case errors.Is(err, jetstream.ErrNoStreamResponse):
			q.dead.set(nil) // somebody may have removed the bucket
		}
		if err != nil {
			return explain(q.conn(), step, err, key)
		}
	}
}

// inGrave looks at the entry that is in the way of another. kept says that it is
// of the same job or of one that was put later; revision is else what to write
// over. One that cannot be read, being of a later release, is an error.
func (q *Queue) inGrave(ctx context.Context, bucket *kv.Bucket[job.Dead], key string, record job.Record) (kept bool, revision uint64, err error) {
	entry, err := bucket.Latest(ctx, key)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return false, 0, nil
	case err != nil:
		return false, 0, err
	}
	found := entry.Value.Record
	return found.Nonce == record.Nonce || found.Put.After(record.Put), entry.Revision, nil
}

// Dead yields the failed jobs that are kept of a task, or of all tasks where it
// is empty, the one that failed last first. It reads no other jobs, and no more of
// these than are taken, but for some that are read ahead. Entries that cannot be
// read are left out.
func (q *Queue) Dead(ctx context.Context, task string) iter.Seq2[DeadEntry, error] {
	return q.graves(ctx, task, func(stream, subject string, state jetstream.StreamState) iter.Seq2[*jetstream.RawStreamMsg, error] {
		return q.backwards(ctx, stream, subject, state, deadWindow)
	})
}

// OldestDead yields what Dead yields, the one that failed first first, and none
// that fail meanwhile.
func (q *Queue) OldestDead(ctx context.Context, task string) iter.Seq2[DeadEntry, error] {
	return q.graves(ctx, task, func(stream, subject string, state jetstream.StreamState) iter.Seq2[*jetstream.RawStreamMsg, error] {
		return q.forwards(ctx, stream, subject, state)
	})
}

// deadWindow is how many entries are looked at first.
const deadWindow = 100

// graves yields entries in the order in which walk reads them. Where there is no
// bucket, nothing has failed since there might be one.
func (q *Queue) graves(ctx context.Context, task string, walk func(stream, subject string, state jetstream.StreamState) iter.Seq2[*jetstream.RawStreamMsg, error]) iter.Seq2[DeadEntry, error] {
	return func(yield func(DeadEntry, error) bool) {
		step := "list failed jobs of queue " + q.names.queue
		info, err := q.deadInfo(ctx)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return
		}
		if err != nil {
			yield(DeadEntry{}, explain(q.conn(), step, err))
			return
		}
		for message, err := range walk(info.Config.Name, q.deadSubject(q.names.deadOf(task)), info.State) {
			if err != nil {
				yield(DeadEntry{}, explain(q.conn(), step, err))
				return
			}
			entry, err := q.deadEntry(message)
			if err != nil {
				continue // a marker, or of a later release
			}
			if !yield(entry, nil) {
				return
			}
		}
	}
}

// DeadJob returns the failed job that is kept under an ID, the last one where
// there are some of several tasks. It returns [ErrNoJob] where there is none.
func (q *Queue) DeadJob(ctx context.Context, id job.ID) (DeadEntry, error) {
	step := fmt.Sprintf("failed job %s of queue %s", id, q.names.queue)
	var message *jetstream.RawStreamMsg
	info, err := q.deadInfo(ctx)
	if err == nil {
		message, err = q.lastOf(ctx, info.Config.Name, q.deadSubject(q.names.deadJob(id)))
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrMsgNotFound), err == nil && len(message.Data) == 0:
		return DeadEntry{}, fmt.Errorf("%s: %w is kept", step, ErrNoJob)
	case err != nil:
		return DeadEntry{}, explain(q.conn(), step, err)
	}
	entry, err := q.deadEntry(message)
	if err != nil {
		return DeadEntry{}, fmt.Errorf("%s: %w", step, err)
	}
	return entry, nil
}

// StillDead returns [ErrNoJob] where an entry was removed, or replaced by that of
// a later job, since it was read.
func (q *Queue) StillDead(ctx context.Context, e DeadEntry) error {
	bucket, err := q.openDead(ctx)
	if err != nil {
		return explain(q.conn(), "look at failed job "+e.ID.String(), err)
	}
	found, err := bucket.Latest(ctx, e.key)
	switch {
	case errors.Is(err, kv.ErrNotFound) || err == nil && found.Revision != e.Revision:
		return fmt.Errorf("failed job %s of queue %s: %w is kept (it was put again or removed meanwhile)", e.ID, q.names.queue, ErrNoJob)
	case err != nil:
		return explain(q.conn(), "look at failed job "+e.ID.String(), err)
	}
	return nil
}

// RemoveDead removes an entry. It returns [ErrNoJob] where it is gone already;
// that of a later job of the same ID is left.
//
// One whose job's message is still in the queue, after a crash, comes back with
// the redelivery of that message.
func (q *Queue) RemoveDead(ctx context.Context, e DeadEntry) error {
	step := fmt.Sprintf("remove failed job %s of queue %s", e.ID, q.names.queue)
	removed, err := kv.Purge(ctx, q.ns.js, deadBucket(q.ns.name), e.key, e.Revision)
	switch {
	case err == nil && removed == 0, errors.Is(err, kv.ErrNoBucket):
		return fmt.Errorf("%s: %w is kept", step, ErrNoJob)
	case err != nil:
		return explain(q.conn(), step, err)
	}
	return nil
}

// PurgeDead removes all failed jobs that are kept of a task, or of all tasks
// where it is empty, and returns how many they were. The server does it at once.
func (q *Queue) PurgeDead(ctx context.Context, task string) (removed int, err error) {
	removed, err = kv.Purge(ctx, q.ns.js, deadBucket(q.ns.name), q.names.deadOf(task), kv.Newest)
	if errors.Is(err, kv.ErrNoBucket) {
		return 0, nil
	}
	if err != nil {
		return 0, explain(q.conn(), "remove failed jobs of queue "+q.names.queue, err)
	}
	return removed, nil
}

// forgetDead removes what is kept of the failed jobs of a queue that is deleted.
func (ns *Namespace) forgetDead(ctx context.Context, n names) error {
	err := kv.PurgeAll(ctx, ns.js, deadBucket(ns.name), n.deadOf(""))
	if errors.Is(err, kv.ErrNoBucket) {
		return nil
	}
	return err
}

// deadInfo describes the bucket of failed jobs as it is now.
func (q *Queue) deadInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	bucket, err := q.ns.js.Stream(ctx, "KV_"+deadBucket(q.ns.name))
	if err != nil {
		return nil, err
	}
	return bucket.CachedInfo(), nil
}

func (q *Queue) deadSubject(key string) string { return "$KV." + deadBucket(q.ns.name) + "." + key }

func (q *Queue) deadEntry(message *jetstream.RawStreamMsg) (DeadEntry, error) {
	key := strings.TrimPrefix(message.Subject, q.deadSubject(""))
	id, err := q.names.deadID(key)
	if err != nil {
		return DeadEntry{}, err
	}
	dead, err := job.DecodeDead(message.Data)
	return DeadEntry{ID: id, Dead: dead, Revision: message.Sequence, At: message.Time, key: key}, err
}
