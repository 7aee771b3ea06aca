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
	status, nonce := q.waitingStatus(waiting)
	if recorded && record.Nonce == nonce {
		arg := status.Arg
		status = q.recordStatus(id, record)
		status.Arg = arg
	}
	if !status.State.Ended() && !waiting.Waits {
		if err := q.performer(ctx, opened, &status); err != nil {
			return Status{}, job.Nonce{}, err
		}
	}
	return status, nonce, nil
}

func (q *Queue) waitingStatus(waiting stream.Stored) (Status, job.Nonce) {
	spec, _ := waiting.Spec() // what cannot be read shows as what could be
	status := Status{
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
	return status, spec.Nonce
}

func (q *Queue) recordStatus(id job.ID, record job.Record) Status {
	return Status{
		ID: id, Queue: q.name, Task: record.Task, Quotas: record.Quotas, Priority: record.Priority,
		State: record.State, By: record.By, Put: record.Put, Due: record.Due, Record: &record,
	}
}

// performer asks who has a job, where its lane has given out any.
func (q *Queue) performer(ctx context.Context, opened *stream.Queue, status *Status) error {
	assigned, err := opened.Assigned(ctx, stream.LaneOf(status.Task, status.Quotas, status.Priority))
	if err != nil || !assigned {
		return err
	}
	who, found, err := opened.Performer(ctx, status.ID, performerPatience)
	if err != nil || !found {
		return err
	}
	for _, running := range who.Jobs {
		if running.ID == status.ID {
			status.Running, status.Dispatcher = &running, who.Dispatcher
		}
	}
	if status.State == job.Pending {
		status.State = job.Assigned
	}
	return nil
}

// Jobs lists up to limit jobs of the queue in one of the states given, or in
// any where none is: those not completed first, oldest first, then the
// completed ones, newest first.
func (q *Queue) Jobs(ctx context.Context, limit int, states ...job.State) ([]Status, error) {
	opened, err := q.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	wanted := func(state job.State) bool {
		for _, s := range states {
			if s == state {
				return true
			}
		}
		return len(states) == 0
	}
	listed, err := q.waitingJobs(ctx, opened, limit, wanted)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	if len(listed) < limit && wanted(job.Completed) {
		recent, err := opened.Recent(ctx, limit-len(listed), func(r stream.KeptRecord) bool {
			return r.Record.State.Ended()
		})
		if err != nil {
			return nil, fmt.Errorf("asyncnats: %w", err)
		}
		for _, kept := range recent {
			listed = append(listed, q.recordStatus(kept.ID, kept.Record))
		}
	}
	return listed, nil
}

// waitingJobs lists jobs that are not completed. Which of them are assigned,
// the dispatchers say.
func (q *Queue) waitingJobs(ctx context.Context, opened *stream.Queue, limit int, wanted func(job.State) bool) ([]Status, error) {
	if !wanted(job.Pending) && !wanted(job.Assigned) && !wanted(job.Active) && !wanted(job.Retrying) && !wanted(job.Waiting) {
		return nil, nil
	}
	waiting, err := opened.Waiting(ctx, limit)
	if err != nil || len(waiting) == 0 {
		return nil, err
	}
	who, err := opened.Who(ctx, whoPatience)
	if err != nil {
		return nil, err
	}
	type performed struct {
		running    stream.Running
		dispatcher string
	}
	assigned := make(map[job.ID]performed)
	for _, presence := range who {
		for _, running := range presence.Jobs {
			assigned[running.ID] = performed{running, presence.Dispatcher}
		}
	}
	var listed []Status
	for _, message := range waiting {
		status, _ := q.waitingStatus(message)
		if has, ok := assigned[status.ID]; ok {
			status.State = job.Assigned
			status.Running, status.Dispatcher = &has.running, has.dispatcher
		}
		if wanted(status.State) {
			listed = append(listed, status)
		}
	}
	return listed, nil
}
