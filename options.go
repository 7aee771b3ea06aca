package asyncnats

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// options is what a task or a call says of its jobs.
type options struct {
	task      string
	id        string
	arg       any
	queue     string
	timeout   time.Duration
	keep      job.Keep
	retry     job.Retry
	quotas    []string
	priority  job.Priority
	begin     time.Time
	delay     time.Duration
	within    time.Duration
	unique    func() (string, error) // the key
	replace   bool
	callbacks []callback
	form      job.Form // of a composition
	parts     []options
	answered  bool // there is nothing to do: arg is the result
}

// call returns the call as it travels.
func (o options) call() (job.Call, error) {
	if o.answered {
		return job.Call{}, errors.New("a result is no call: Return is for handlers")
	}
	if o.within < 0 {
		return job.Call{}, fmt.Errorf("deadline of %v after its begin: must not be negative", o.within)
	}
	arg, err := encodeValue(o.arg, job.MsgPack)
	if err != nil {
		return job.Call{}, fmt.Errorf("argument of %s: %w", o.task, err)
	}
	call := job.Call{
		Task: o.task, Arg: arg, Queue: o.queue, Quotas: o.quotas, Priority: o.priority,
		Timeout: o.timeout, Keep: o.keep, Retry: o.retry, Begin: o.begin, Delay: max(0, o.delay), Within: o.within,
	}
	for _, c := range o.callbacks {
		made, err := c.call()
		if err != nil {
			return job.Call{}, err
		}
		call.Callbacks = append(call.Callbacks, made)
	}
	if o.form == "" {
		return call, nil
	}
	call.Arg = job.Value{}
	if o.form == job.FormBroadcast {
		one, err := o.parts[0].inner()
		if err != nil {
			return job.Call{}, err
		}
		call.Parts = &job.Parts{Form: o.form, Calls: []job.Call{one}}
		return call, nil
	}
	parts := job.Parts{Form: o.form, Count: len(o.parts), Calls: make([]job.Call, len(o.parts))}
	for i, part := range o.parts {
		if parts.Calls[i], err = part.inner(); err != nil {
			return job.Call{}, fmt.Errorf("part %d: %w", i, err)
		}
	}
	call.Parts = &parts
	return call, nil
}

// inner returns the call of a job that belongs to another, from which it has its
// ID.
func (o options) inner() (job.Call, error) {
	if o.id != "" || o.unique != nil || o.replace {
		return job.Call{}, fmt.Errorf("%s: a job that belongs to another has its ID from that: it chooses none, is not unique, and replaces nothing", o.task)
	}
	return o.call()
}

// jobID returns the ID that the call chooses, empty for none.
func (o options) jobID() (job.ID, error) {
	switch {
	case o.unique != nil && o.id != "":
		return "", fmt.Errorf("ID %s: a unique job has an ID of its own", o.id)
	case o.unique != nil:
		key, err := o.unique()
		if err != nil {
			return "", fmt.Errorf("key of a unique job: %w", err)
		}
		return job.UniqueID(o.task, key), nil
	case o.id != "":
		return job.ParseID(o.id)
	case o.replace:
		return "", errors.New("a job can replace another only by its ID: choose one, or make it unique")
	}
	return "", nil
}

// quotaNames returns the names sorted, each once; nil for none.
func quotaNames(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}
