package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// putPatience is how long a put is repeated where its context sets no
	// deadline.
	putPatience = 30 * time.Second
	// tryPatience is how long one try waits for its answer.
	tryPatience = 3 * time.Second
	// tryPause lies between tries that fail at once.
	tryPause = 100 * time.Millisecond
	// batchHeaders is what membership in an atomic batch adds to a message, at
	// most.
	batchHeaders = 96
	// MaxBatch is how many jobs the server stores in one atomic batch.
	MaxBatch = 1000
)

// Entry is a job about to be put.
type Entry struct {
	ID job.ID
	// Chosen says that the caller chose the ID, so that the whole queue must
	// be free of it; an ID made by job.NewID is free by construction, and its
	// subject alone is cheaper to check.
	Chosen bool
	// Replaces says that the job takes the place of a pending one, and that
	// another may take its own until it is due.
	Replaces bool
	Spec     job.Spec

	beside []besides // what is stored with it
}

func (e Entry) lane() Lane {
	lane := LaneOf(e.Spec.Task, e.Spec.Quotas, e.Spec.Priority)
	lane.To = e.Spec.To
	return lane
}

// prepared returns the entry of a composition with its parts as they are stored.
func (q *Queue) prepared(e Entry) (Entry, error) {
	if e.Spec.Parts == nil || e.beside != nil {
		return e, nil
	}
	parts := *e.Spec.Parts
	parts.Base = e.Spec.Nonce
	parts, beside, err := stow(e.ID, parts, q.chunkSize())
	parts.Beside = parts.Beside || len(beside) > 0
	e.Spec.Parts, e.beside = &parts, beside
	if err == nil && e.size() > MaxBatch {
		err = fmt.Errorf("composition is %w: it would be %d messages, and one put stores %d at most: pass smaller arguments, or put it with some parts and add the others (AddParts)",
			ErrTooLarge, e.size(), MaxBatch)
	}
	return e, err
}

// size is how many messages the entry is stored as.
func (e Entry) size() int {
	if e.Spec.Parts == nil {
		return 1
	}
	return 2 + len(e.beside)
}

// errInvalidEntry: a job that cannot be put as it is.
var errInvalidEntry = errors.New("illegal job")

func (e Entry) check() error {
	_, err := job.ParseID(string(e.ID))
	if err = errors.Join(e.Spec.Check(), err); err != nil {
		return &invalidEntryError{err}
	}
	return nil
}

// invalidEntryError is errInvalidEntry, and reads like what it wraps.
type invalidEntryError struct{ error }

func (e *invalidEntryError) Unwrap() []error { return []error{e.error, errInvalidEntry} }

// Put stores a job. It repeats the publish while the server does not answer,
// until ctx ends (30 s where ctx has no deadline), and however often it does,
// the job is stored once: a repeated publish is refused where the first was
// stored, and the nonce tells whose job it is.
//
// Errors: [*ExistsError] where a job with a chosen ID is not completed;
// [*TooLargeError]; [ErrPermission]; [ErrUnanswered] where ctx ended without
// an answer, so that the job may or may not be stored.
func (q *Queue) Put(ctx context.Context, e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	e, err := q.prepared(e)
	if err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	if err := q.registerOf(ctx, e); err != nil {
		return fmt.Errorf("put %s: %w", e.Spec.Task, err)
	}
	for {
		msgs, err := q.messages(e, e.size() > 1)
		if err != nil {
			return fmt.Errorf("put %s: %w", e.Spec.Task, err)
		}
		if err = q.setDeadlines(ctx, e); err == nil {
			err = q.publishAll(ctx, msgs)
		}
		subject := msgs[0].Subject
		switch {
		case err == nil:
			return nil
		case kv.Refused(err):
			var stored bool
			if stored, err = q.resolve(ctx, e); err == nil && stored {
				return nil
			}
		case kv.Unanswered(err):
			e.Spec.Again = true
			if err = q.lost(ctx, e, subject, err); err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, errRepeat) {
			if errors.Is(err, ErrExists) {
				q.DropDeadline(e.ID, e.Spec)
			}
			return explain(q.conn(), "put "+e.Spec.Task, err, subject)
		}
	}
}

// registerOf registers the lane of a job; a composition has none.
func (q *Queue) registerOf(ctx context.Context, e Entry) error {
	if e.Spec.Parts != nil {
		return nil
	}
	return q.Register(ctx, e.lane())
}

// errRepeat says that a put is to be repeated.
var errRepeat = errors.New("repeat")

// lost decides what to do about a put without an answer: nil if its job turns
// out to be stored, errRepeat if it is to be repeated, else why not.
//
// The job may have been stored, performed and acked, and its ID be free, so the
// put is not repeated before the record was read. (One that is completed
// between that read and the repeated publish is stored again; whoever claims it
// sees Again, reads the record, and acks.)
func (q *Queue) lost(ctx context.Context, e Entry, subject string, err error) error {
	if ctx.Err() != nil || denied(q.conn(), subject) {
		return err
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		if _, err := q.ns.Queue(ctx, q.names.queue); errors.Is(err, ErrNoQueue) {
			return err
		}
	}
	for {
		record, err := q.latest(ctx, e.ID)
		switch {
		case err == nil && record.Nonce == e.Spec.Nonce:
			return nil
		case !kv.Unanswered(err):
			return errRepeat
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(tryPause):
		}
	}
}

// latest reads a record, waiting a while for the answer.
func (q *Queue) latest(ctx context.Context, id job.ID) (job.Record, error) {
	try, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	entry, err := q.records.Latest(try, q.names.record(id))
	return entry.Value, err
}

// resolve looks at the holder of an ID after the server refused to store a
// second job with it. stored says that the holder is this very job, stored by
// a try whose answer was lost. A nil error otherwise says that the holder is
// gone, and the put is to be repeated.
func (q *Queue) resolve(ctx context.Context, e Entry) (stored bool, err error) {
	try, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	found, err := q.Find(try, e.ID)
	switch {
	case errors.Is(err, ErrNoJob):
		return false, nil
	case errors.Is(err, ErrUnanswered) && ctx.Err() == nil:
		return false, errRepeat
	case err != nil:
		return false, err
	}
	// A body that cannot be read has a nonce too, made of its place.
	holder, _ := found.Spec()
	if holder.Nonce == e.Spec.Nonce {
		return true, nil
	}
	record, err := q.latest(ctx, e.ID)
	switch {
	case err == nil && record.Nonce == holder.Nonce && record.State.Final() && found.Waits:
		// It owes more than that its message goes.
		return false, q.Advance(ctx, e.ID, holder.Nonce, time.Now())
	case err == nil && record.Nonce == holder.Nonce && record.State.Final():
		// The holder is completed and its ack is on its way: remove what the
		// ack would remove.
		_, err := q.remove(ctx, found.Sequence)
		return false, err
	case err == nil || errors.Is(err, kv.ErrNotFound):
		return false, &ExistsError{Queue: q.names.queue, ID: e.ID, Nonce: holder.Nonce}
	case kv.Unanswered(err) && ctx.Err() == nil:
		return false, errRepeat
	}
	return false, err
}

// publish sends one message and waits a while for its answer.
func (q *Queue) publish(ctx context.Context, msg *nats.Msg) error {
	try, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	_, err := kv.Publish(try, q.ns.js, msg)
	if tooLarge(err) {
		return &TooLargeError{What: "job", Size: payload(msg), Max: q.maxMsgSize}
	}
	return err
}

// publishAll stores messages, all or none, and waits a while for the answer.
func (q *Queue) publishAll(ctx context.Context, msgs []*nats.Msg) error {
	if len(msgs) == 1 {
		return q.publish(ctx, msgs[0])
	}
	try, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	_, err := jetstreamext.PublishMsgBatch(try, q.ns.js, msgs, jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: tryPatience})
	return err
}

// tooLarge reports whether a write was refused for its size, by the client or
// by the stream.
func tooLarge(err error) bool {
	if err == nil {
		return false
	}
	var refused *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) ||
		errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum
}

// payload is the size of a message as the server's limits count it.
func payload(msg *nats.Msg) int { return msg.Size() - len(msg.Subject) - len(msg.Reply) }

// messages makes the messages of an entry that is prepared, the first of them
// that of the job itself. batch says that they are stored in an atomic batch.
func (q *Queue) messages(e Entry, batch bool) ([]*nats.Msg, error) {
	extra := 0
	if batch {
		extra = batchHeaders
	}
	msg, err := q.message(e, extra)
	if err != nil || e.Spec.Parts == nil {
		return []*nats.Msg{msg}, err
	}
	msgs := []*nats.Msg{msg}
	for _, b := range e.beside {
		chunk, err := q.chunkMessage(b)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, chunk)
	}
	if msgs = append(msgs, q.names.advanceMessage(e.ID, e.Spec.Nonce, e.Spec.Begin, time.Now())); len(msgs) > MaxBatch {
		return nil, fmt.Errorf("composition of %d messages is %w in one batch (%d): divide it", len(msgs), ErrTooLarge, MaxBatch)
	}
	return msgs, nil
}

// limit is how many bytes a message of the queue may have, headers included.
func (q *Queue) limit() int {
	limit := int(q.conn().MaxPayload())
	if q.maxMsgSize > 0 {
		limit = min(limit, q.maxMsgSize)
	}
	return limit
}

// message makes the message of a job, conditional on its ID being free. extra is
// how many bytes of headers will be added to it.
func (q *Queue) message(e Entry, extra int) (*nats.Msg, error) {
	body, err := job.EncodeSpec(e.Spec)
	if err != nil {
		return nil, err
	}
	msg := nats.NewMsg(q.names.job(e.lane(), e.ID))
	msg.Data = body
	if e.Spec.Parts != nil {
		msg.Subject = q.names.wait(e.lane(), e.ID)
	} else {
		at := aim(e.Spec)
		if e.Replaces {
			at = e.Spec.Begin
		}
		q.names.schedule(msg, e.lane(), e.ID, e.Spec, at, time.Now())
	}
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.Itoa(0))
	if e.Chosen || !e.Spec.Begin.IsZero() { // a schedule has other subjects before it is due and after
		msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, q.names.anywhere(e.ID))
	}
	if size, limit := payload(msg)+extra, q.limit(); size > limit {
		return nil, &TooLargeError{What: "job", Size: size, Max: limit}
	}
	return msg, nil
}

// PutMany stores jobs in atomic batches of up to [MaxBatch], in order. stored
// says how many, from the first on, were stored; where err is not nil the
// others were not, except after [ErrUnanswered], where the batch that follows
// may have been. Each batch is repeated as Put repeats a job.
func (q *Queue) PutMany(ctx context.Context, entries []Entry) (stored int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for b := range q.batches(ctx, entries) {
		if b.err != nil {
			return stored, fmt.Errorf("put job %d: %w", stored, b.err)
		}
		if err := q.putBatch(ctx, b); err != nil {
			return stored, err
		}
		stored += len(b.entries)
	}
	if stored < len(entries) {
		return stored, explain(q.conn(), fmt.Sprintf("put job %d", stored), ctx.Err())
	}
	return stored, nil
}

// batch is jobs that are stored together.
type batch struct {
	entries []Entry
	msgs    []*nats.Msg
	err     error // of the first entry after it that cannot be put
}

// batches makes batches of entries, one while the one before is stored, until there is
// an error or ctx ends.
func (q *Queue) batches(ctx context.Context, entries []Entry) <-chan batch {
	made := make(chan batch)
	go func() {
		defer close(made)
		for len(entries) > 0 {
			b := q.nextBatch(entries)
			if b.err == nil {
				b.msgs, b.err = q.messagesOf(ctx, b.entries)
			}
			select {
			case made <- b:
			case <-ctx.Done():
				return
			}
			if b.err != nil {
				return
			}
			entries = entries[len(b.entries):]
		}
	}()
	return made
}

// nextBatch returns the first entries, prepared, that are stored as up to MaxBatch
// messages; one at least.
func (q *Queue) nextBatch(entries []Entry) (b batch) {
	size := 0
	for _, e := range entries {
		e, err := q.prepared(e)
		if err != nil {
			return batch{err: err}
		}
		if size += e.size(); size > MaxBatch && len(b.entries) > 0 {
			break
		}
		b.entries = append(b.entries, e)
	}
	return b
}

// messagesOf makes the messages of a batch, and registers its lanes. There are none for
// a single entry, which is put by itself.
func (q *Queue) messagesOf(ctx context.Context, entries []Entry) (msgs []*nats.Msg, err error) {
	if len(entries) == 1 {
		return nil, nil
	}
	for i, e := range entries {
		err := e.check()
		if err == nil {
			err = q.registerOf(ctx, e)
		}
		if err != nil {
			return nil, fmt.Errorf("job %d of the batch: %w", i, err)
		}
		made, err := q.messages(e, true)
		if err != nil {
			return nil, fmt.Errorf("job %d of the batch: %w", i, err)
		}
		msgs = append(msgs, made...)
	}
	return msgs, nil
}

// putBatch stores one batch, wholly or not at all.
func (q *Queue) putBatch(ctx context.Context, b batch) error {
	entries, msgs := b.entries, b.msgs
	if len(entries) == 1 {
		return q.Put(ctx, entries[0])
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	if err := q.distinct(entries); err != nil {
		return fmt.Errorf("put a batch of %d jobs: %w", len(entries), err)
	}
	for {
		err := q.setDeadlines(ctx, entries...)
		if err == nil {
			err = q.publishAll(ctx, msgs)
		}
		switch {
		case err == nil:
			return nil
		case kv.Refused(err):
			entries, err = q.missing(ctx, entries)
		case kv.Unanswered(err):
			entries, err = q.unrecorded(ctx, entries, msgs[0].Subject, err)
		}
		if err == nil && len(entries) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, errRepeat) {
			return explain(q.conn(), fmt.Sprintf("put a batch of %d jobs", len(entries)), err, msgs[0].Subject)
		}
		if entries = again(entries); len(entries) == 1 {
			return q.Put(ctx, entries[0])
		}
		if msgs, err = q.messagesOf(ctx, entries); err != nil {
			return fmt.Errorf("put a batch of %d jobs: %w", len(entries), err)
		}
	}
}

// again marks entries as put again, and leaves those that are given as they are.
func again(entries []Entry) []Entry {
	marked := slices.Clone(entries)
	for i := range marked {
		marked[i].Spec.Again = true
	}
	return marked
}

// distinct reports an ID that occurs twice. The server checks each message of a
// batch against what is stored, not against the batch.
func (q *Queue) distinct(entries []Entry) error {
	seen := make(map[job.ID]job.Nonce, len(entries))
	for _, e := range entries {
		if nonce, twice := seen[e.ID]; twice {
			return &ExistsError{Queue: q.names.queue, ID: e.ID, Nonce: nonce}
		}
		seen[e.ID] = e.Spec.Nonce
	}
	return nil
}

// unrecorded returns the entries of a batch without an answer that are to be put again;
// see [Queue.lost]. The first stands for all where it has no record. Where it has one, the
// batch may have been stored, or it was put alone by somebody else.
func (q *Queue) unrecorded(ctx context.Context, entries []Entry, subject string, why error) ([]Entry, error) {
	if err := q.lost(ctx, entries[0], subject, why); err != nil {
		return entries, err
	}
	var rest []Entry
	for _, e := range entries[1:] {
		switch err := q.lost(ctx, e, subject, why); {
		case errors.Is(err, errRepeat):
			rest = append(rest, e)
		case err != nil:
			return entries, err
		}
	}
	return rest, nil
}

// missing returns the entries of a refused batch that are not stored; the server
// does not say which was refused. Each is looked for: of a batch that another try has
// stored all are there, but parts of a composition are put by whoever goes on with it,
// some by one and some by another.
func (q *Queue) missing(ctx context.Context, entries []Entry) ([]Entry, error) {
	var rest []Entry
	for _, e := range entries {
		stored, err := q.resolve(ctx, e)
		if err != nil {
			return entries, err
		}
		if !stored {
			rest = append(rest, e)
		}
	}
	return rest, nil
}
