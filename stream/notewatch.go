package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// watchRound is how long one watch of annotations lasts before it is made anew,
	// should it be lost without anybody noticing.
	watchRound = 5 * time.Minute
	// watchAgain is the time between two tries to watch.
	watchAgain = time.Second
)

// WatchNotes yields the annotations of a job that are set, and then each as it is
// set, set again or removed, until ctx ends: the one of that name, or all for
// AllNotes. nonce is that of the job, or zero for whichever has the ID. Of several
// changes to one annotation that follow each other closely the last is sure to be
// yielded. That one has expired is not told.
//
// It survives reconnects, and a watch that is lost on the server. An error ends
// it: a [*job.NameError], kv.ErrNoBucket in a namespace without annotations,
// [ErrPermission], or that the connection was closed.
func (q *Queue) WatchNotes(ctx context.Context, id job.ID, nonce job.Nonce, name string) iter.Seq2[Note, error] {
	return func(yield func(Note, error) bool) {
		w := noteWatch{queue: q, nonce: nonce, key: q.names.note(id, name), seen: make(map[string]uint64), live: make(map[string]bool), yield: yield}
		err := error(nil)
		if name != AllNotes {
			err = job.CheckAnnotation(name)
		}
		for err == nil && !w.enough && ctx.Err() == nil {
			if err = w.round(ctx); err == nil {
				continue
			}
			if final := w.final(ctx, err); final {
				break
			}
			err = nil
			select {
			case <-ctx.Done():
			case <-time.After(watchAgain):
			}
		}
		if err != nil && !w.enough && ctx.Err() == nil {
			yield(Note{}, explain(q.conn(), fmt.Sprintf("watch annotations of job %s of queue %s", id, q.names.queue), err, w.key))
		}
	}
}

// AllNotes, as the name of an annotation, is all of them.
const AllNotes = "*"

// noteWatch is a watch of annotations over several watches of the bucket.
type noteWatch struct {
	queue  *Queue
	nonce  job.Nonce
	key    string
	seen   map[string]uint64 // the last revision of each annotation
	live   map[string]bool   // those that were yielded and not removed
	yield  func(Note, error) bool
	enough bool // whoever takes the annotations has had enough
}

// final reports whether an error is not to be tried again.
func (w *noteWatch) final(ctx context.Context, err error) bool {
	return ctx.Err() != nil || w.queue.conn().IsClosed() || errors.Is(err, nats.ErrConnectionClosed) ||
		errors.Is(err, kv.ErrNoBucket) || denied(w.queue.conn(), w.key)
}

// round watches for a while.
func (w *noteWatch) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, watchRound)
	defer cancel()
	bucket, err := w.queue.openNotes(ctx)
	if err != nil {
		return err
	}
	there := make(map[string]bool)
	for change, err := range bucket.Watch(ctx, w.key) {
		switch {
		case err != nil && change.Entry.Key == "":
			return err
		case err != nil: // of a later release
		case change.Current:
			w.missed(there)
		case change.Deleted:
			w.tell(Note{Name: noteName(change.Entry.Key), Revision: change.Entry.Revision, Removed: true})
		case w.nonce.IsZero() || change.Entry.Value.Nonce == w.nonce:
			there[noteName(change.Entry.Key)] = true
			w.tell(noteOf(change.Entry))
		}
		if w.enough {
			return nil
		}
	}
	return nil
}

// missed tells of annotations that are not there any more.
func (w *noteWatch) missed(there map[string]bool) {
	for name := range w.live {
		if !there[name] {
			w.tell(Note{Name: name, Revision: w.seen[name] + 1, Removed: true})
		}
	}
}

// tell yields what was not yielded yet: of what was removed, only what was there.
func (w *noteWatch) tell(n Note) {
	if w.enough || n.Revision <= w.seen[n.Name] {
		return
	}
	w.seen[n.Name] = n.Revision
	if n.Removed && !w.live[n.Name] {
		return
	}
	w.live[n.Name] = !n.Removed
	if n.Removed {
		delete(w.live, n.Name)
	}
	w.enough = !w.yield(n, nil)
}
