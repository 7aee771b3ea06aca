package dispatcher

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/job"
)

// ActiveJob is a job that is performed now (FEATURES 217).
type ActiveJob struct {
	ID      job.ID    `json:"id"`
	Queue   string    `json:"queue"`
	Agent   string    `json:"agent"`
	Task    string    `json:"task"`
	Attempt int       `json:"attempt"` // counted from 1
	Started time.Time `json:"started"`
}

// JobInfo is what a dispatcher remembers of a job: of its own last attempt at it
// (FEATURES 216).
type JobInfo struct {
	ActiveJob
	// Call is the task with its argument, in JSON: image.thumbnail("cat.png").
	Call string `json:"call"`
	// Quotas names the quotas that the job has a slot in while it runs.
	Quotas   []string     `json:"quota_names"`
	Priority job.Priority `json:"priority"`
	// Completed is when the attempt was over; nil while it is not.
	Completed *time.Time `json:"completed"`
	// Failed says that the outcome is a failure.
	Failed bool `json:"failed"`
	// Reassigned says that the lease was lost, so that the outcome is another
	// attempt's to give.
	Reassigned bool `json:"reassigned"`
	// Result is the result in JSON, or the failure with its stack. It is nil while
	// the job runs, and where the attempt ended without an outcome: the job was
	// reassigned, or handed back because the dispatcher stopped.
	Result *string `json:"result"`
	// PollID is the key of the poll that showed the job as new; nil where none did
	// so far.
	PollID *int `json:"poll_id"`
}

// Jobs lists the jobs that are performed now, the newest first. The query's Queue
// and Agent count.
func (d *Dispatcher) Jobs(q Query) ([]ActiveJob, error) {
	if err := q.only("queue", "agent"); err != nil {
		return nil, err
	}
	return d.history.jobs(q), nil
}

func (h *history) jobs(q Query) []ActiveJob {
	list := []ActiveJob{}
	h.mu.Lock()
	for _, r := range h.active {
		if q.takes(r.Queue, r.Agent) {
			list = append(list, r.job())
		}
	}
	h.mu.Unlock()
	slices.SortFunc(list, func(a, b ActiveJob) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Job tells what the dispatcher remembers of the job with the query's ID. Where it
// had jobs with that ID in several queues the query's Queue says which is meant.
// The error is [ErrForgotten] where it had none lately.
func (d *Dispatcher) Job(q Query) (JobInfo, error) {
	if err := q.only("id", "queue"); err != nil {
		return JobInfo{}, err
	}
	if q.ID == "" {
		return JobInfo{}, fmt.Errorf("%w: id is missing: give the ID of a job", ErrQuery)
	}
	return d.history.job(q)
}

func (h *history) job(q Query) (JobInfo, error) {
	var newest remembered
	h.mu.Lock()
	last := h.last
	for r := range h.attempts(q) {
		switch {
		case r.ID != q.ID:
		case newest.ID == "", newest.Queue == r.Queue && r.Started.After(newest.Started):
			newest = r
		case newest.Queue != r.Queue:
			h.mu.Unlock()
			return JobInfo{}, fmt.Errorf("%w: job %q is in queue %s and in queue %s: give one of them", ErrQuery, q.ID, newest.Queue, r.Queue)
		}
	}
	h.mu.Unlock()
	if newest.ID == "" {
		return JobInfo{}, fmt.Errorf("job %q: %w: a dispatcher knows the jobs that it performs now and its last %d (asyncnats job show knows the others)",
			q.ID, ErrForgotten, keptJobs)
	}
	return newest.info(last), nil
}

func (r remembered) job() ActiveJob {
	return ActiveJob{
		ID: r.ID, Queue: r.Queue, Agent: r.Agent, Task: r.Task, Attempt: r.Attempt.Number, Started: r.Started.UTC(),
	}
}

// info shows the attempt. polled is the key of the last poll.
func (r remembered) info(polled int) JobInfo {
	info := JobInfo{ActiveJob: r.job(), Call: shorten(r.Task + "(" + argument(r.Arg) + ")"), Quotas: r.Quotas, Priority: r.Priority, Reassigned: r.Reassigned}
	if info.Quotas == nil {
		info.Quotas = []string{} // not null in JSON
	}
	if !r.Ended.IsZero() {
		info.Completed = new(r.Ended.UTC())
	}
	if r.Outcome != nil {
		info.Failed = !r.Outcome.Succeeded()
		info.Result = new(shorten(result(*r.Outcome)))
	}
	if r.poll <= polled {
		info.PollID = new(r.poll)
	}
	return info
}

func argument(v job.Value) string {
	if v.IsNone() {
		return ""
	}
	return text(v)
}

func result(o job.Outcome) string {
	switch f := o.Failure; {
	case f == nil:
		return text(o.Result)
	case f.Stack == "":
		return f.Error()
	default:
		return f.Error() + "\n" + f.Stack
	}
}

// text is a value as it is shown.
func text(v job.Value) string {
	if v.Encoding == shortened {
		return string(v.Data)
	}
	shown, err := v.AsJSON()
	if err != nil {
		return "?: " + err.Error()
	}
	return string(shown)
}

const (
	// longestText is how many characters are shown of a call or a result
	// (FEATURES 157).
	longestText = 10_000
	cutMark     = "\n[...TRUNCATED...]"
	// bulk is how many bytes of a value are remembered as they are.
	bulk = 16 << 10
	// shortened marks a value of which only the text is remembered.
	shortened job.Encoding = "shortened"
)

func shorten(text string) string {
	characters := 0
	for i := range text {
		if characters == longestText {
			return text[:i] + cutMark
		}
		characters++
	}
	return text
}

// withoutBulk has the report of an attempt that is over keep only what is shown of
// a large argument or result.
func withoutBulk(r agents.Report) agents.Report {
	if len(r.Arg.Data) > bulk {
		r.Arg = job.Value{Encoding: shortened, Data: []byte(shorten(text(r.Arg)))}
	}
	if r.Outcome != nil && len(r.Outcome.Result.Data) > bulk {
		r.Outcome = &job.Outcome{Result: job.Value{Encoding: shortened, Data: []byte(shorten(text(r.Outcome.Result)))}}
	}
	return r
}
