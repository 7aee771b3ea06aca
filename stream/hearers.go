package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// A broadcast is a composition of one call, with a part for each dispatcher that takes
// the task when it is put. Each part lies on a lane of which that dispatcher alone
// takes; in all else it is a job like any other. So it waits for one that is briefly
// away, and one that joins later has none. Who does not come back within the queue's
// grace has its part given up by whoever looks after the broadcast's timer: by the
// same write that cancels a job, so that a late outcome loses.

// hearer is what the namespace's bucket keeps of a dispatcher that performs
// broadcasts.
type hearer struct {
	Tasks []string  `json:"tasks"` // that its agents take and that it can perform, sorted
	Since time.Time `json:"since"`
}

// presenceEvery is how often it is looked whether the dispatchers that are to perform
// a broadcast are there.
const presenceEvery = 5 * time.Second

// Hear says that a dispatcher performs broadcasts of these tasks, sorted, until
// [Queue.Leave], and returns those of which that was said before. Where they are the
// same it writes nothing.
func (q *Queue) Hear(ctx context.Context, dispatcher string, tasks []string) (before []string, err error) {
	key := q.names.hearer(dispatcher)
	for {
		found, err := q.hearers.Latest(ctx, key)
		switch {
		case errors.Is(err, kv.ErrNotFound):
			_, err = q.hearers.Create(ctx, key, hearer{tasks, time.Now().UTC()}, kv.Forever)
		case err == nil && !slices.Equal(found.Value.Tasks, tasks):
			_, err = q.hearers.Update(ctx, key, hearer{tasks, found.Value.Since}, found.Revision, kv.Forever)
		}
		if !errors.Is(err, kv.ErrConflict) {
			return found.Value.Tasks, err
		}
	}
}

// Leave says that a dispatcher performs no broadcasts any more, but for those that it
// was to perform before. It may be said of one that does not.
func (q *Queue) Leave(ctx context.Context, dispatcher string) error {
	for {
		found, err := q.hearers.Latest(ctx, q.names.hearer(dispatcher))
		if err == nil {
			err = q.hearers.Delete(ctx, q.names.hearer(dispatcher), found.Revision)
		}
		switch {
		case errors.Is(err, kv.ErrNotFound):
			return nil
		case !errors.Is(err, kv.ErrConflict):
			return err
		}
	}
}

// Hearers lists the dispatchers that perform broadcasts of a task, sorted.
func (q *Queue) Hearers(ctx context.Context, task string) ([]string, error) {
	entries, err := q.hearers.List(ctx, q.names.hearers())
	if err != nil {
		return nil, explain(q.conn(), "look who performs broadcasts of queue "+q.names.queue, err)
	}
	var to []string
	for _, entry := range entries {
		if slices.Contains(entry.Value.Tasks, task) {
			to = append(to, entry.Key[len(q.names.hearer("")):])
		}
	}
	slices.Sort(to)
	return to, nil
}

// address has a broadcast that begins be performed by who performs such ones now,
// unless that was settled when it was put, and looked after. now is the server's time, as
// far as it is known.
func (q *Queue) address(ctx context.Context, id job.ID, parts job.Parts, now time.Time) (job.Parts, error) {
	if !parts.Addressed {
		to, err := q.Hearers(ctx, parts.Calls[0].Task)
		if err != nil {
			return parts, err
		}
		parts = parts.Address(to)
	}
	at := now.Add(presenceEvery)
	return parts, q.publish(ctx, q.names.timerMessage(Timer{TimerPresence, string(id), parts.Base}, at, at))
}

// Missing returns the dispatchers that have not performed their parts of a broadcast
// yet; none where it has not begun, since its timer is set before. over says that nobody
// is to be looked for any more.
func (q *Queue) Missing(ctx context.Context, due Due) (missing []string, over bool, err error) {
	id, err := job.ParseID(due.Of)
	if err != nil {
		return nil, true, nil //nolint:nilerr // no job has that ID
	}
	record, _, found, err := q.Record(ctx, id)
	if err != nil {
		return nil, false, err
	}
	known := found && record.Nonce == due.Nonce
	switch {
	case !known, record.State == job.Pending:
		gone, err := q.Gone(ctx, id, due.Nonce)
		return nil, gone, err
	case record.State != job.Waiting, record.Parts.Form != job.FormBroadcast:
		return nil, true, nil
	}
	for i, dispatcher := range record.Parts.To {
		if !record.Parts.IsDone(i) {
			missing = append(missing, dispatcher)
		}
	}
	return missing, len(missing) == 0, nil
}

// GiveUp ends the parts of a broadcast that these dispatchers were to perform, which
// are gone: each with a Failure of job.KindAbsent, unless it has an outcome. It may be
// repeated.
func (q *Queue) GiveUp(ctx context.Context, due Due, gone []string) error {
	record, _, found, err := q.Record(ctx, job.ID(due.Of))
	if err != nil || !found || record.Nonce != due.Nonce || record.State != job.Waiting {
		return err
	}
	for i, dispatcher := range record.Parts.To {
		if !slices.Contains(gone, dispatcher) || record.Parts.IsDone(i) {
			continue
		}
		_, err := q.stop(ctx, record.Parts.PartID(i), record.Parts.PartNonce(i), stopping{
			kind: job.KindAbsent,
			failure: func(job.Record) *job.Failure {
				return &job.Failure{Kind: job.KindAbsent, Message: fmt.Sprintf("dispatcher %s is gone, and was away for longer than %v", dispatcher, q.Grace())}
			},
		})
		if err != nil && !errors.Is(err, ErrNoJob) && !errors.Is(err, ErrCompleted) {
			return fmt.Errorf("give up what dispatcher %s was to perform of broadcast %s: %w", dispatcher, due.Of, err)
		}
	}
	return nil
}

// LookAgain has a timer of a broadcast fire again a moment later.
func (q *Queue) LookAgain(ctx context.Context, due Due) error {
	return q.setAgain(ctx, due, due.Fired.Add(presenceEvery))
}
