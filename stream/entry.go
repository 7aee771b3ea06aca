package stream

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
)

// batchHeaders is what membership in an atomic batch adds to a message, at most.
const batchHeaders = 96

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
