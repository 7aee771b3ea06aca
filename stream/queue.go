package stream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// Queue is one queue, opened. It is safe for concurrent use.
type Queue struct {
	ns         *Namespace
	names      names
	buckets    // of the namespace
	meta       Meta
	maxMsgSize int // the stream's limit on a message; -1 for none
	known      laneSet
	dead       lateBucket[job.Dead]
	notes      lateBucket[job.Note]
}

// Name returns the queue's name.
func (q *Queue) Name() string { return q.names.queue }

// AckWait returns how long a lease of the queue lasts without being extended.
func (q *Queue) AckWait() time.Duration { return time.Duration(q.meta.AckWait) }

// Broadcast reports whether the queue's jobs are performed by every dispatcher that
// takes their task.
func (q *Queue) Broadcast() bool { return q.meta.Kind == kindBroadcast }

// Grace is how long a dispatcher may be away before what it was to perform of a
// broadcast is given up.
func (q *Queue) Grace() time.Duration { return cmp.Or(time.Duration(q.meta.Grace), DefaultGrace) }

// Quotas returns the bucket that holds the queue's quotas, and with which the
// subjects begin on which those who use them talk to each other.
func (q *Queue) Quotas() (bucket, subject string) {
	return quotasBucket(q.ns.name), q.names.quotas()
}

// Namespace returns the namespace that the queue is in.
func (q *Queue) Namespace() *Namespace { return q.ns }

func (q *Queue) conn() *nats.Conn { return q.ns.js.Conn() }

// Stored is a job's message as it lies in the queue.
type Stored struct {
	Lane     Lane
	ID       job.ID
	Sequence uint64
	Stored   time.Time // by the server's clock
	Body     []byte
	// Scheduled says that the message is a schedule still, which nobody can be
	// given.
	Scheduled bool
	// Waits says that the message is that of a job which waits for others, or of
	// a composition, and nobody can be given it either.
	Waits bool
}

// Spec decodes the body.
func (s Stored) Spec() (job.Spec, error) {
	spec, err := job.DecodeSpec(s.Body, s.Lane.Task, s.Lane.Quotas(), s.Lane.Priority, job.NonceAt(s.Sequence, s.Stored))
	if err == nil && spec.To != s.Lane.To {
		err = fmt.Errorf("body is for dispatcher %q and was published on a lane of dispatcher %q", spec.To, s.Lane.To)
	}
	return spec, err
}

// Find returns the message of the job with that ID, wherever in the queue it
// is, as the leader knows it. It returns [ErrNoJob] where there is none.
func (q *Queue) Find(ctx context.Context, id job.ID) (Stored, error) {
	found, stored, err := q.findLatest(ctx, id)
	if err == nil && !stored {
		err = fmt.Errorf("job %s in queue %s: %w", id, q.names.queue, ErrNoJob)
	}
	return found, err
}

// Peek is Find that reads any replica: it may be behind, so that what it finds is gone
// and what it misses is there, and costs the leader nothing.
func (q *Queue) Peek(ctx context.Context, id job.ID) (Stored, error) {
	found, err := q.last(ctx, q.names.anywhere(id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Stored{}, fmt.Errorf("job %s in queue %s: %w", id, q.names.queue, ErrNoJob)
	}
	if err != nil {
		return Stored{}, explain(q.conn(), fmt.Sprintf("look for job %s in queue %s", id, q.names.queue), err)
	}
	return q.stored(found)
}

// Gone reports whether no message of a job is left anywhere in the queue. It
// asks the leader, so that true is true.
func (q *Queue) Gone(ctx context.Context, id job.ID, nonce job.Nonce) (bool, error) {
	found, stored, err := q.findLatest(ctx, id)
	switch {
	case errors.Is(err, ErrNoQueue):
		return true, nil
	case err != nil:
		return false, err
	}
	holder, _ := found.Spec() // a body that cannot be read has a nonce too
	return !stored || holder.Nonce != nonce, nil
}

// findLatest returns the last message of the job with that ID, wherever in the
// queue it is, as the leader knows it. stored is false where there is none.
func (q *Queue) findLatest(ctx context.Context, id job.ID) (found Stored, stored bool, err error) {
	step := fmt.Sprintf("look for job %s in queue %s", id, q.names.queue)
	message, err := q.latestOn(ctx, step, q.names.anywhere(id))
	if err != nil || message == nil {
		return Stored{}, false, err
	}
	if found, err = q.stored(message); err != nil {
		return Stored{}, false, fmt.Errorf("%s: %w", step, err)
	}
	return found, true, nil
}

// latestOn returns the last message on a subject, wildcards allowed, as the
// leader knows it; nil where there is none.
func (q *Queue) latestOn(ctx context.Context, step, last string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := withTimeout(ctx, q.ns.js.Options().DefaultTimeout)
	defer cancel()
	subject := kv.APIPrefix(q.ns.js) + "STREAM.MSG.GET." + q.names.stream()
	reply, err := q.conn().RequestWithContext(ctx, subject, []byte(`{"last_by_subj":`+strconv.Quote(last)+`}`))
	if err != nil {
		return nil, explain(q.conn(), step, err, subject)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	switch {
	case answer.Error == nil:
	case errors.Is(answer.Error, jetstream.ErrMsgNotFound):
		return nil, nil
	case errors.Is(answer.Error, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("%s: %w", step, ErrNoQueue)
	default:
		return nil, explain(q.conn(), step, answer.Error)
	}
	return &jetstream.RawStreamMsg{
		Subject: answer.Message.Subject, Sequence: answer.Message.Sequence, Time: answer.Message.Time, Data: answer.Message.Data,
	}, nil
}

func (q *Queue) stored(found *jetstream.RawStreamMsg) (Stored, error) {
	lane, id, err := q.names.parseJob(found.Subject)
	return Stored{
		Lane: lane, ID: id, Sequence: found.Sequence, Stored: found.Time, Body: found.Data,
		Scheduled: strings.HasPrefix(found.Subject, q.names.subject("later.")),
		Waits:     strings.HasPrefix(found.Subject, q.names.subject("wait.")),
	}, err
}

// codeSequenceNotFound is what the server answers to the deletion of a message
// that is gone. The client has no name for it, and its method to delete a
// message loses the code.
const codeSequenceNotFound jetstream.ErrorCode = 10043

// remove deletes a message by its sequence. removed is false where it was gone
// already.
func (q *Queue) remove(ctx context.Context, sequence uint64) (removed bool, err error) {
	ctx, cancel := withTimeout(ctx, q.ns.js.Options().DefaultTimeout)
	defer cancel()
	step := fmt.Sprintf("remove message %d of queue %s", sequence, q.names.queue)
	subject := kv.APIPrefix(q.ns.js) + "STREAM.MSG.DELETE." + q.names.stream()
	reply, err := q.conn().RequestWithContext(ctx, subject, fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, sequence))
	if err != nil {
		return false, explain(q.conn(), step, err, subject)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return false, fmt.Errorf("%s: %w", step, err)
	}
	switch {
	case answer.Error == nil:
		return true, nil
	case answer.Error.ErrorCode == codeSequenceNotFound, answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return false, nil
	}
	return false, fmt.Errorf("%s: %w", step, answer.Error)
}

// last reads the last message on a subject, wildcards allowed, by direct get.
// (jetstream.Stream's own method puts the subject into the request's subject,
// where wildcards are not allowed.)
func (q *Queue) last(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	return q.lastOf(ctx, q.names.stream(), subject)
}

// lastOf is last in any stream.
func (q *Queue) lastOf(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := withTimeout(ctx, q.ns.js.Options().DefaultTimeout)
	defer cancel()
	request := kv.APIPrefix(q.ns.js) + "DIRECT.GET." + stream
	reply, err := q.conn().RequestWithContext(ctx, request, []byte(`{"last_by_subj":`+strconv.Quote(subject)+`}`))
	if err != nil {
		return nil, err
	}
	if reply.Header.Get("Status") == "404" && len(reply.Data) == 0 {
		return nil, jetstream.ErrMsgNotFound
	}
	return storedMessage(reply)
}
