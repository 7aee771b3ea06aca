package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/kv"
)

// metaVersion is the version of the meta message that this code writes and
// reads.
const metaVersion = 1

// Meta is the first message of a queue's stream, in JSON: what the queue is.
// No consumer's filter matches it, so it is never consumed; it keeps the
// stream's first sequence from moving, without which the server searches the
// whole backlog at each delivery (26 ms at a million jobs; docs/adr/0003).
type Meta struct {
	Version int       `json:"v"`
	Kind    string    `json:"kind"` // "jobs" or "broadcast"
	AckWait Duration  `json:"ack_wait"`
	Grace   Duration  `json:"grace,omitempty"` // of a broadcast queue
	Created time.Time `json:"created"`
}

// Kinds of queues.
const (
	kindJobs      = "jobs"
	kindBroadcast = "broadcast"
)

func (c Config) kind() string {
	if c.Broadcast {
		return kindBroadcast
	}
	return kindJobs
}

// Duration is a time.Duration that JSON shows as text: "15s".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// readMeta reads the meta message, and writes it where there is none: by a
// publish that expects none, so that of several writers one wins and all read
// what it wrote.
func (q *Queue) readMeta(ctx context.Context, c Config) (Meta, error) {
	stored, err := q.await(ctx, q.names.meta(), nats.ErrNoResponders)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		if err := q.writeMeta(ctx, c); err != nil {
			return Meta{}, explain(q.conn(), "install queue "+q.names.queue, err)
		}
		stored, err = q.await(ctx, q.names.meta(), nats.ErrNoResponders, jetstream.ErrMsgNotFound)
	}
	if err != nil {
		return Meta{}, explain(q.conn(), "open queue "+q.names.queue, err)
	}
	var meta Meta
	if err := json.Unmarshal(stored.Data, &meta); err != nil {
		return Meta{}, fmt.Errorf("open queue %s: its meta message cannot be read: %w", q.names.queue, err)
	}
	if meta.Version != metaVersion || meta.Kind != kindJobs && meta.Kind != kindBroadcast {
		return Meta{}, fmt.Errorf("open queue %s: it is of kind %q, version %d, which this release does not know: upgrade", q.names.queue, meta.Kind, meta.Version)
	}
	if time.Duration(meta.AckWait) < MinAckWait {
		return Meta{}, fmt.Errorf("open queue %s: its meta message asks for an ack wait of %v: must be at least %v", q.names.queue, time.Duration(meta.AckWait), MinAckWait)
	}
	return meta, nil
}

// await reads a message of a stream that is there, and waits while the answer is
// one that passes: in a cluster it takes a moment until a stream that was just
// made answers such readings, and until the replica that does has what was just
// written.
func (q *Queue) await(ctx context.Context, subject string, passing ...error) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, q.ns.js.Options().DefaultTimeout)
	defer cancel()
	for {
		stored, err := q.last(ctx, subject)
		if !slices.ContainsFunc(passing, func(each error) bool { return errors.Is(err, each) }) {
			return stored, err
		}
		if rest(ctx, 10*time.Millisecond) != nil {
			return nil, err
		}
	}
}

func (q *Queue) writeMeta(ctx context.Context, c Config) error {
	data, err := json.Marshal(Meta{
		Version: metaVersion, Kind: c.kind(), AckWait: Duration(c.AckWait), Grace: Duration(c.Grace), Created: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	msg := nats.NewMsg(q.names.meta())
	msg.Data = data
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.Itoa(0))
	_, err = q.ns.js.PublishMsg(ctx, msg)
	if kv.Refused(err) {
		return nil
	}
	return err
}
