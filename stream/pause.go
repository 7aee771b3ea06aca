package stream

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// pauseEntry says that a queue, or a task of it, is paused.
type pauseEntry struct {
	Since time.Time `json:"since"`
}

// Pause has the queue's dispatchers take no more jobs of a task, or of any where
// task is empty, until Resume is called. It is stored, and outlives them; jobs
// can be put meanwhile, and those that are performed go on. Pausing what is
// paused changes nothing.
func (q *Queue) Pause(ctx context.Context, task string) error {
	if err := checkPause(task); err != nil {
		return err
	}
	_, err := q.pauses.Create(ctx, q.names.pause(task), pauseEntry{Since: time.Now().UTC()}, kv.Forever)
	if err != nil && !errors.Is(err, kv.ErrConflict) {
		return explain(q.conn(), "pause queue "+q.names.queue, err)
	}
	return nil
}

// Resume ends a pause of the task, or that of the queue where task is empty.
// Resuming what is not paused changes nothing.
func (q *Queue) Resume(ctx context.Context, task string) error {
	if err := checkPause(task); err != nil {
		return err
	}
	for {
		found, err := q.pauses.Latest(ctx, q.names.pause(task))
		if err == nil {
			err = q.pauses.Delete(ctx, q.names.pause(task), found.Revision)
		}
		switch {
		case errors.Is(err, kv.ErrConflict):
		case err == nil, errors.Is(err, kv.ErrNotFound):
			return nil
		default:
			return explain(q.conn(), "resume queue "+q.names.queue, err)
		}
	}
}

func checkPause(task string) error {
	if task == "" {
		return nil
	}
	return job.CheckTask(task)
}

// Paused lists the tasks that are paused, sorted; an empty one stands for the
// queue.
func (q *Queue) Paused(ctx context.Context) ([]string, error) {
	entries, err := q.pauses.List(ctx, q.names.pauses())
	if err != nil {
		return nil, explain(q.conn(), "list pauses of queue "+q.names.queue, err)
	}
	tasks := make([]string, 0, len(entries))
	for _, entry := range entries {
		tasks = append(tasks, q.names.pausedTask(entry.Key))
	}
	slices.Sort(tasks)
	return tasks, nil
}

// PauseChange is what a watch of pauses yields: a task that was paused or
// resumed, the empty one for the queue, or (once) word that those which were
// paused have been yielded.
type PauseChange struct {
	Task    string
	Paused  bool
	Current bool
}

// WatchPauses yields what is paused and what becomes of it, until ctx ends.
func (q *Queue) WatchPauses(ctx context.Context) iter.Seq2[PauseChange, error] {
	return func(yield func(PauseChange, error) bool) {
		for change, err := range q.pauses.Watch(ctx, q.names.pauses()) {
			next := PauseChange{Current: change.Current}
			if change.Entry.Key != "" { // whatever its value: it is there
				next.Task, next.Paused, err = q.names.pausedTask(change.Entry.Key), !change.Deleted, nil
			}
			if !yield(next, err) {
				return
			}
		}
	}
}
