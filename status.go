package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Status is what is known of a job at a moment.
type Status struct {
	ID    job.ID `json:"id"`
	Queue string `json:"queue"`
	Task  string `json:"task"`
	// Quotas names the quotas that the job needs a slot in.
	Quotas   []string     `json:"quotas,omitempty"`
	Priority job.Priority `json:"priority,omitempty"`
	State    job.State    `json:"state"`
	By       string       `json:"by,omitempty"`
	Put      time.Time    `json:"put,omitzero"`
	// Due is when a job that does not run yet is to begin, or to be tried
	// again; zero for at once.
	Due time.Time `json:"due,omitzero"`
	// Arg is the argument of a job that is not completed.
	Arg job.Value `json:"-"`
	// Record is set where the job has one: it was completed, or interrupted.
	Record *job.Record `json:"record,omitempty"`
	// Running is set where a dispatcher says that it performs the job now,
	// which then is Dispatcher.
	Running    *stream.Running `json:"running,omitempty"`
	Dispatcher string          `json:"dispatcher,omitempty"`
}

// performerPatience is how long the dispatcher that has a job may take to say
// so.
const performerPatience = 250 * time.Millisecond

// Lookup returns the job with that ID, put by whichever process. It returns
// [ErrNoJob] where there is neither a pending job nor a record.
func Lookup[R any](ctx context.Context, q *Queue, id string) (*Job[R], error) {
	parsed, err := job.ParseID(id)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	_, nonce, err := q.status(ctx, parsed)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return newJob[R](q, parsed, nonce), nil
}

// Status returns what is known of the job now. For a job that is assigned it
// asks the dispatchers, which may take a quarter of a second. It returns
// [ErrNoJob] where the job is over and its outcome is not kept.
func (j *Job[R]) Status(ctx context.Context) (Status, error) {
	status, nonce, err := j.queue.status(ctx, j.id)
	if err == nil && nonce != j.nonce {
		err = fmt.Errorf("job %s in queue %s: %w (another has its ID now)", j.id, j.queue.name, ErrNoJob)
	}
	if err != nil {
		return Status{}, fmt.Errorf("asyncnats: %w", err)
	}
	return status, nil
}

// status looks for a job's message, then for its record: the message of a job
// in motion says which nonce is the current one.
func (q *Queue) status(ctx context.Context, id job.ID) (Status, job.Nonce, error) {
	opened, err := q.open(ctx)
	if err != nil {
		return Status{}, job.Nonce{}, err
	}
	waiting, err := opened.Find(ctx, id)
	if err != nil && !errors.Is(err, ErrNoJob) {
		return Status{}, job.Nonce{}, err
	}
	inQueue := err == nil
	record, _, recorded, recordErr := opened.Record(ctx, id)
	if recordErr != nil {
		return Status{}, job.Nonce{}, recordErr
	}
	if !inQueue {
		if !recorded {
			return Status{}, job.Nonce{}, err
		}
		return q.recordStatus(id, record), record.Nonce, nil
	}
	status, nonce := q.statusOf(waiting, record, recorded)
	if !status.State.Ended() && !waiting.Waits {
		if err := q.performer(ctx, opened, waiting.Lane, &status); err != nil {
			return Status{}, job.Nonce{}, err
		}
	}
	return status, nonce, nil
}

// statusOf is what is known of a job that has a message, and may have a record.
func (q *Queue) statusOf(waiting stream.Stored, record job.Record, recorded bool) (Status, job.Nonce) {
	status, nonce, attempt := q.waitingStatus(waiting)
	if !recorded || record.Nonce != nonce {
		return status, nonce
	}
	arg := status.Arg
	status = q.recordStatus(waiting.ID, record)
	status.Arg = arg
	if due := record.Due.IsZero() || attempt == record.Message; status.State == job.Retrying && !waiting.Scheduled && due {
		status.State, status.Due = job.Pending, time.Time{}
	}
	return status, nonce
}

// waitingStatus is what the message of a job says: attempt is the number of those
// before it.
func (q *Queue) waitingStatus(waiting stream.Stored) (status Status, nonce job.Nonce, attempt int) {
	spec, _ := waiting.Spec() // what cannot be read shows as what could be
	status = Status{
		ID: waiting.ID, Queue: q.name, Task: waiting.Lane.Task, Quotas: waiting.Lane.Quotas(), Priority: waiting.Lane.Priority,
		State: job.Pending, By: spec.By, Put: waiting.Stored, Arg: spec.Arg,
	}
	if waiting.Scheduled {
		status.Due = spec.Begin
		if spec.Attempt > 0 {
			status.State = job.Retrying
		}
	}
	if waiting.Waits {
		if status.State = job.Waiting; spec.Begin.After(time.Now()) {
			status.State, status.Due = job.Pending, spec.Begin
		}
	}
	return status, spec.Nonce, spec.Attempt
}

func (q *Queue) recordStatus(id job.ID, record job.Record) Status {
	return Status{
		ID: id, Queue: q.name, Task: record.Task, Quotas: record.Quotas, Priority: record.Priority,
		State: record.State, By: record.By, Put: record.Put, Due: record.Due, Record: &record,
	}
}

// performer asks who has a job, where its lane has given out any.
func (q *Queue) performer(ctx context.Context, opened *stream.Queue, lane stream.Lane, status *Status) error {
	assigned, err := opened.Assigned(ctx, lane)
	if err != nil || !assigned {
		return err
	}
	who, found, err := opened.Performer(ctx, status.ID, performerPatience)
	if err != nil || !found {
		return err
	}
	status.performed(performances([]stream.Presence{who}))
	return nil
}

// performance is a job that a dispatcher performs.
type performance struct {
	running    stream.Running
	dispatcher string
}

// performances are the jobs that dispatchers perform.
func performances(who []stream.Presence) map[job.ID]performance {
	all := make(map[job.ID]performance)
	for _, presence := range who {
		for _, running := range presence.Jobs {
			all[running.ID] = performance{running, presence.Dispatcher}
		}
	}
	return all
}

// performed notes who performs the job, if somebody does.
func (s *Status) performed(by map[job.ID]performance) {
	has, ok := by[s.ID]
	if !ok || s.State.Ended() {
		return
	}
	s.Running, s.Dispatcher = &has.running, has.dispatcher
	if s.State == job.Pending {
		s.State = job.Assigned
	}
}
