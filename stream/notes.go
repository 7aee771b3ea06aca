package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// NoteKeep is how long an annotation is kept after it was set last. zc.async
	// kept completed jobs, and annotations with them, seven days.
	NoteKeep = 7 * 24 * time.Hour
	// noteMarker is how long a removed annotation leaves a marker, by which those
	// who watch it hear of its removal, an outage in between or not.
	noteMarker = 10 * time.Minute
)

// notesConfig describes the bucket of annotations. It leaves no markers of what
// has expired: nobody waits for that, and each would be a message more.
func notesConfig(namespace string, replicas int) kv.Config {
	return kv.Config{
		Bucket:      notesBucket(namespace),
		Description: "asyncnats annotations of jobs",
		Replicas:    replicas,
	}
}

var noteCodec = kv.Codec[job.Note]{Encode: job.EncodeNote, Decode: job.DecodeNote}

// Note is an annotation of a job, as it lies in its bucket.
type Note struct {
	Name string
	job.Note
	// Revision grows with each write of any annotation.
	Revision uint64
	// Removed says that the annotation was removed. Its value is not known then,
	// nor who removed it.
	Removed bool
}

// openNotes opens the bucket of annotations, which comes with the creation of a
// queue.
func (q *Queue) openNotes(ctx context.Context) (*kv.Bucket[job.Note], error) {
	if bucket := q.notes.opened(); bucket != nil {
		return bucket, nil
	}
	bucket, err := kv.Open(ctx, q.ns.js, notesBucket(q.ns.name), noteCodec)
	if errors.Is(err, kv.ErrNoBucket) {
		return nil, fmt.Errorf("%w: an earlier release created this queue; create it again, which leaves it as it is and makes the bucket (asyncnats queue add %s)", err, q.names.queue)
	}
	if err != nil {
		return nil, err
	}
	q.notes.set(bucket)
	return bucket, nil
}

// Annotate sets an annotation of a job, pending, running or over, under a name,
// for [NoteKeep]. nonce is that of the job, or zero for whichever has the ID.
// Where several set it the last one does, whatever the others wrote; but of two
// jobs of the same ID only the one that has it now can be annotated.
//
// It repeats the write while the server does not answer, until ctx ends (30 s
// where ctx has no deadline). Under the context of the job's own handler it does
// not ask whether there is such a job, which saves two requests.
//
// Errors: a [*job.NameError]; [ErrNoJob] where there is neither a message nor a
// record of the job, or another has its ID now; [*TooLargeError];
// [ErrPermission]; [ErrUnanswered], where it may have been set or not.
func (q *Queue) Annotate(ctx context.Context, id job.ID, nonce job.Nonce, name string, value job.Value, by string) error {
	step := fmt.Sprintf("annotate job %s of queue %s with %s", id, q.names.queue, name)
	at := time.Now()
	return q.changeNote(ctx, step, id, nonce, name, func(ctx context.Context, bucket *kv.Bucket[job.Note], old kv.Entry[job.Note], nonce job.Nonce) (err error) {
		note := job.Note{Version: job.NoteVersion, Nonce: nonce, Value: value, By: by, At: at}
		if old.Revision == 0 {
			_, err = bucket.Create(ctx, old.Key, note, NoteKeep)
		} else {
			_, err = bucket.Update(ctx, old.Key, note, old.Revision, NoteKeep)
		}
		if tooLarge(err) {
			err = &TooLargeError{What: "annotation", Size: len(value.Data), Max: int(q.conn().MaxPayload())}
		}
		return err
	})
}

// RemoveNote removes an annotation of a job. One that is not set is no error; the
// others are those of [Queue.Annotate].
func (q *Queue) RemoveNote(ctx context.Context, id job.ID, nonce job.Nonce, name string) error {
	step := fmt.Sprintf("remove annotation %s of job %s of queue %s", name, id, q.names.queue)
	return q.changeNote(ctx, step, id, nonce, name, func(ctx context.Context, bucket *kv.Bucket[job.Note], old kv.Entry[job.Note], nonce job.Nonce) error {
		if old.Revision == 0 || old.Value.Nonce != nonce {
			return nil
		}
		return bucket.DeleteFor(ctx, old.Key, old.Revision, noteMarker)
	})
}

// noteChange writes an annotation at the revision that was read of it; that is 0
// where it has none.
type noteChange func(ctx context.Context, bucket *kv.Bucket[job.Note], old kv.Entry[job.Note], nonce job.Nonce) error

// changeNote changes an annotation, again and again while there is no answer or
// somebody else has changed it since it was read.
func (q *Queue) changeNote(ctx context.Context, step string, id job.ID, nonce job.Nonce, name string, change noteChange) error {
	if err := job.CheckAnnotation(name); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	key := q.names.note(id, name)
	for {
		err := q.changeNoteOnce(ctx, id, nonce, name, change)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil, denied(q.conn(), key):
			return explain(q.conn(), step, err, key)
		case errors.Is(err, kv.ErrConflict):
			continue
		case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrStreamNotFound):
			q.notes.set(nil) // somebody may have removed the bucket
		case !kv.Unanswered(err) && !errors.Is(err, ErrUnanswered):
			return fmt.Errorf("%s: %w", step, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(tryPause):
		}
	}
}

func (q *Queue) changeNoteOnce(ctx context.Context, id job.ID, nonce job.Nonce, name string, change noteChange) error {
	ctx, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	bucket, err := q.openNotes(ctx)
	if err != nil {
		return err
	}
	key := q.names.note(id, name)
	old, err := bucket.Latest(ctx, key)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	old.Key = key
	// In a handler the job is known to be there, unless somebody else's annotation
	// says that another has its ID.
	if !performs(ctx, q, nonce) || old.Revision != 0 && old.Value.Nonce != nonce {
		if nonce, err = q.current(ctx, id, nonce); err != nil {
			return err
		}
	}
	return change(ctx, bucket, old, nonce)
}

// current returns the nonce of the job that has an ID now: it has a message or, if
// no other has one, a record. It returns [ErrNoJob] where that is not the one
// meant, if one is.
func (q *Queue) current(ctx context.Context, id job.ID, nonce job.Nonce) (job.Nonce, error) {
	message, stored, err := q.findLatest(ctx, id)
	if err != nil {
		return nonce, err
	}
	spec, _ := message.Spec() // one that cannot be read has a nonce too
	holder := spec.Nonce
	if !stored {
		record, _, found, err := q.Record(ctx, id)
		if err != nil {
			return nonce, err
		}
		if !found {
			return nonce, ErrNoJob
		}
		holder = record.Nonce
	}
	if !nonce.IsZero() && holder != nonce {
		return nonce, fmt.Errorf("%w (another has its ID now)", ErrNoJob)
	}
	return holder, nil
}

// Note reads an annotation of a job, from the leader: one that was set before the
// call is found. nonce is that of the job, or zero for whichever has the ID.
func (q *Queue) Note(ctx context.Context, id job.ID, nonce job.Nonce, name string) (note Note, found bool, err error) {
	step := fmt.Sprintf("read annotation %s of job %s of queue %s", name, id, q.names.queue)
	if err := job.CheckAnnotation(name); err != nil {
		return Note{}, false, fmt.Errorf("%s: %w", step, err)
	}
	bucket, err := q.openNotes(ctx)
	if errors.Is(err, kv.ErrNoBucket) {
		return Note{}, false, nil // nothing can have been set
	}
	var entry kv.Entry[job.Note]
	if err == nil {
		entry, err = bucket.Latest(ctx, q.names.note(id, name))
	}
	switch {
	case errors.Is(err, kv.ErrNotFound), err == nil && !nonce.IsZero() && entry.Value.Nonce != nonce:
		return Note{}, false, nil
	case err != nil:
		return Note{}, false, explain(q.conn(), step, err)
	}
	return noteOf(entry), true, nil
}

// Notes lists the annotations of a job, sorted by name. Those of a later release,
// which cannot be read, are left out and reported in the error, joined.
func (q *Queue) Notes(ctx context.Context, id job.ID, nonce job.Nonce) ([]Note, error) {
	step := fmt.Sprintf("list annotations of job %s of queue %s", id, q.names.queue)
	bucket, err := q.openNotes(ctx)
	if errors.Is(err, kv.ErrNoBucket) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(q.conn(), step, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	entries, err := bucket.List(ctx, q.names.note(id, AllNotes))
	if err != nil {
		err = explain(q.conn(), step, err)
	}
	var notes []Note
	for _, entry := range entries {
		if nonce.IsZero() || entry.Value.Nonce == nonce {
			notes = append(notes, noteOf(entry))
		}
	}
	slices.SortFunc(notes, func(a, b Note) int { return strings.Compare(a.Name, b.Name) })
	return notes, err
}

func noteOf(entry kv.Entry[job.Note]) Note {
	return Note{Name: noteName(entry.Key), Note: entry.Value, Revision: entry.Revision}
}

// forgetNotes removes the annotations of the jobs of a queue that is deleted.
func (ns *Namespace) forgetNotes(ctx context.Context, n names) error {
	err := kv.PurgeAll(ctx, ns.js, notesBucket(ns.name), n.notes())
	if errors.Is(err, kv.ErrNoBucket) {
		return nil
	}
	return err
}
