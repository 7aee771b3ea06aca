package asyncnats

import (
	"context"
	"fmt"
	"iter"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Note is one annotation of a job: its name, its value, who set it and when.
type Note = stream.Note

// Annotate sets an annotation of the job: a value under a name, that anybody may
// read and set at any time, from inside the handler and from outside, while the job
// is pending, runs, or is over. It does nothing to the job, and is no part of its
// outcome. The name has 1 to 64 letters, digits, '-' or '_'; the value is encoded
// like an argument. It is kept for seven days after it was set last, also where the
// job's outcome is not.
//
// Of several who set it the last one wins, whatever was there before. Who needs to
// know that nobody came between gives each its own name. A later job of the same ID
// does not see it, and begins with none.
//
// Errors: a [*job.NameError]; [ErrNoJob] where there is neither a pending job nor a
// record, or another job has the ID now; [ErrTooLarge]; [ErrPermission];
// [ErrUnanswered], where it may have been set or not. A queue that an earlier
// release created may lack the bucket of annotations; [Client.CreateQueue] makes
// it. zc.async: setLiveAnnotation (FEATURES 196).
func (j *Job[R]) Annotate(ctx context.Context, name string, value any) error {
	encoded, err := encodeValue(value, job.MsgPack)
	if err != nil {
		return fmt.Errorf("asyncnats: annotation %s of job %s: %w", name, j.id, err)
	}
	return j.queue.use(ctx, func(opened *stream.Queue) error {
		return opened.Annotate(ctx, j.id, j.nonce, name, encoded, j.queue.client.name)
	})
}

// RemoveAnnotation removes an annotation of the job. One that is not set is no
// error; the others are those of [Job.Annotate].
func (j *Job[R]) RemoveAnnotation(ctx context.Context, name string) error {
	return j.queue.use(ctx, func(opened *stream.Queue) error {
		return opened.RemoveNote(ctx, j.id, j.nonce, name)
	})
}

// Annotation reads an annotation of a job into a T. set is false where it is not
// set. What was set before the call is read.
//
//	stop, set, err := asyncnats.Annotation[string](ctx, j, "stop")
//
// zc.async: getLiveAnnotation (FEATURES 197).
func Annotation[T, R any](ctx context.Context, j *Job[R], name string) (value T, set bool, err error) {
	err = j.queue.use(ctx, func(opened *stream.Queue) error {
		note, found, err := opened.Note(ctx, j.id, j.nonce, name)
		if err != nil || !found {
			return err
		}
		set = true
		return j.decodeNote(note, &value)
	})
	return value, set && err == nil, err
}

// WaitAnnotation waits until an annotation of a job is set, and reads it into a T;
// one that is set already is read at once. It waits until ctx ends, whatever
// becomes of the job, and survives reconnects.
//
// The errors are ctx's, and those that end [Job.WatchAnnotations].
func WaitAnnotation[T, R any](ctx context.Context, j *Job[R], name string) (value T, err error) {
	err = j.queue.use(ctx, func(opened *stream.Queue) error {
		for note, err := range opened.WatchNotes(ctx, j.id, j.nonce, name) {
			switch {
			case err != nil:
				return err
			case !note.Removed:
				return j.decodeNote(note, &value)
			}
		}
		return fmt.Errorf("wait for annotation %s of job %s: %w", name, j.id, context.Cause(ctx))
	})
	return value, err
}

func (j *Job[R]) decodeNote(note Note, into any) error {
	if err := decodeValue(note.Value, into); err != nil {
		return fmt.Errorf("annotation %s of job %s: %w", note.Name, j.id, err)
	}
	return nil
}

// Annotations lists the annotations of the job, sorted by name. Those of a later
// release, which this one cannot read, are left out and reported in the error.
func (j *Job[R]) Annotations(ctx context.Context) (notes []Note, err error) {
	err = j.queue.use(ctx, func(opened *stream.Queue) error {
		notes, err = opened.Notes(ctx, j.id, j.nonce)
		return err
	})
	return notes, err
}

// WatchAnnotations yields the annotations of the job that are set, and then each as
// it is set, set again or removed, until ctx ends, whatever becomes of the job. Of
// changes to one that follow each other closely the last is sure to be yielded; that
// one has expired is not told. It survives reconnects.
//
// An error is the last that is yielded: [ErrNoQueue], [ErrPermission], that the
// connection was closed, or that a queue of an earlier release has no annotations.
func (j *Job[R]) WatchAnnotations(ctx context.Context) iter.Seq2[Note, error] {
	return func(yield func(Note, error) bool) {
		opened, err := j.queue.open(ctx)
		if err != nil {
			yield(Note{}, fmt.Errorf("asyncnats: %w", err))
			return
		}
		for note, err := range opened.WatchNotes(ctx, j.id, j.nonce, stream.AllNotes) {
			if err != nil {
				err = fmt.Errorf("asyncnats: %w", err)
			}
			if !yield(note, err) {
				return
			}
		}
	}
}
