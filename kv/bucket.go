package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrNoBucket: there is no bucket of that name.
	ErrNoBucket = errors.New("bucket does not exist")
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("key not found")
	// ErrConflict: the key was written by somebody else since it was read, or
	// exists where it was to be created.
	ErrConflict = errors.New("key was changed by somebody else")
	// ErrUnreadable: the key has a value that the bucket's codec cannot decode.
	ErrUnreadable = errors.New("value cannot be decoded")
)

// Forever, as the time to live of a value, keeps it until it is replaced.
const Forever time.Duration = 0

// Longest is the longest time to live of a value that is not kept [Forever]. A
// longer one is taken for it: the server adds it to a time in nanoseconds, and
// those of 64 bits end in 2262.
const Longest = 100 * 365 * 24 * time.Hour

// ttlHeader writes a time to live in whole seconds, rounded up.
func ttlHeader(ttl time.Duration) string {
	ttl = min(ttl, Longest)
	return strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10) + "s"
}

// Codec writes and reads the values of a bucket.
type Codec[T any] struct {
	Encode func(T) ([]byte, error)
	Decode func([]byte) (T, error)
}

// JSON is the codec of values that people may want to read with the nats
// command line.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		Encode: func(v T) ([]byte, error) { return json.Marshal(v) },
		Decode: func(data []byte) (v T, err error) { err = json.Unmarshal(data, &v); return v, err },
	}
}

// Entry is a value with its place in the bucket's history.
type Entry[T any] struct {
	Key      string
	Value    T
	Revision uint64
	Written  time.Time // by the server's clock
}

// Bucket is a KV bucket of values of one type. It is safe for concurrent use.
type Bucket[T any] struct {
	js      jetstream.JetStream
	store   jetstream.KeyValue
	name    string
	publish string // what stands before a key in a write's subject
	codec   Codec[T]
}

// Create creates the bucket that c describes, or opens the one of that name. A
// bucket that exists is used as it is, whatever else c says; see [Open].
func Create[T any](ctx context.Context, js jetstream.JetStream, c Config, codec Codec[T]) (*Bucket[T], error) {
	bucket, err := Open(ctx, js, c.Bucket, codec)
	if !errors.Is(err, ErrNoBucket) {
		return bucket, err
	}
	if err := Make(ctx, js, c); err != nil {
		return nil, err
	}
	return Open(ctx, js, c.Bucket, codec)
}

// Make creates the bucket that c describes, for another package to open. A
// bucket of that name that exists is left as it is.
func Make(ctx context.Context, js jetstream.JetStream, c Config) error {
	_, err := js.Stream(ctx, "KV_"+c.Bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = js.CreateStream(ctx, streamConfig(c))
	}
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("create bucket %s: %w", c.Bucket, err)
	}
	return nil
}

// Open opens a bucket that exists, provided that it allows times to live and
// direct reads and has no maximum age. It returns [ErrNoBucket] where there is
// none.
func Open[T any](ctx context.Context, js jetstream.JetStream, name string, codec Codec[T]) (*Bucket[T], error) {
	bucket, found, err := open(ctx, js, name, codec)
	if err == nil && (!found.AllowMsgTTL || !found.AllowDirect || found.MaxAge > 0) {
		return nil, fmt.Errorf("bucket %s was made by somebody else and lacks per-message TTL or direct reads, or has a maximum age: change that (nats stream edit KV_%s --allow-msg-ttl --allow-direct --max-age 0) or use another namespace", name, name)
	}
	return bucket, err
}

// OpenAging opens a bucket that exists, whose entries the server may remove at
// any age, and which so need no time to live of their own; provided that it
// allows direct reads. It returns [ErrNoBucket] where there is none.
func OpenAging[T any](ctx context.Context, js jetstream.JetStream, name string, codec Codec[T]) (*Bucket[T], error) {
	bucket, found, err := open(ctx, js, name, codec)
	if err == nil && !found.AllowDirect {
		return nil, fmt.Errorf("bucket %s was made by somebody else and lacks direct reads: change that (nats stream edit KV_%s --allow-direct) or use another namespace", name, name)
	}
	return bucket, err
}

func open[T any](ctx context.Context, js jetstream.JetStream, name string, codec Codec[T]) (*Bucket[T], jetstream.StreamConfig, error) {
	var found jetstream.StreamConfig
	store, err := js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, found, fmt.Errorf("%w: %s", ErrNoBucket, name)
	}
	if err != nil {
		return nil, found, fmt.Errorf("open bucket %s: %w", name, err)
	}
	stream, err := js.Stream(ctx, "KV_"+name)
	if err != nil {
		return nil, found, fmt.Errorf("open bucket %s: %w", name, err)
	}
	publish := "$KV." + name + "."
	if prefix := APIPrefix(js); prefix != jetstream.DefaultAPIPrefix {
		publish = prefix + publish
	}
	return &Bucket[T]{js: js, store: store, name: name, publish: publish, codec: codec}, stream.CachedInfo().Config, nil
}

// View returns the same bucket for values of another type, which have keys of their
// own. It asks the server nothing.
func View[T, U any](b *Bucket[U], codec Codec[T]) *Bucket[T] {
	return &Bucket[T]{js: b.js, store: b.store, name: b.name, publish: b.publish, codec: codec}
}

// Get reads a key, from any replica: the value may be behind by the time
// replication takes. It returns [ErrNotFound] where there is none.
func (b *Bucket[T]) Get(ctx context.Context, key string) (Entry[T], error) {
	found, err := b.store.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Entry[T]{}, ErrNotFound
	}
	if err != nil {
		return Entry[T]{}, fmt.Errorf("read %s of %s: %w", key, b.name, err)
	}
	return b.entry(key, found.Value(), found.Revision(), found.Created())
}

// Latest reads a key from the bucket's leader: what it returns was the last
// value at some moment during the call.
func (b *Bucket[T]) Latest(ctx context.Context, key string) (Entry[T], error) {
	revision, marker, data, written, err := b.leader(ctx, key)
	if err != nil {
		return Entry[T]{}, err
	}
	if revision == 0 || marker {
		return Entry[T]{}, ErrNotFound
	}
	return b.entry(key, data, revision, written)
}

// Now asks the bucket's leader, by whose clock entries are written, for the time.
// When the answer comes that clock has passed it.
func (b *Bucket[T]) Now(ctx context.Context) (time.Time, error) {
	stream, err := b.js.Stream(ctx, "KV_"+b.name)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the time of %s: %w", b.name, err)
	}
	return stream.CachedInfo().TimeStamp, nil
}

// Create writes a key that has no value, and returns its revision. The value
// is removed after ttl, unless that is [Forever]. Create returns [ErrConflict]
// where the key has a value.
func (b *Bucket[T]) Create(ctx context.Context, key string, value T, ttl time.Duration) (uint64, error) {
	revision, err := b.put(ctx, key, value, 0, ttl)
	if !errors.Is(err, ErrConflict) {
		return revision, err
	}
	last, marker, _, _, readErr := b.leader(ctx, key)
	if readErr != nil || !marker {
		return 0, errors.Join(err, readErr)
	}
	return b.put(ctx, key, value, last, ttl)
}

// Update writes a key whose revision is the one given, with a time to live of
// its own, and returns the new revision. It returns [ErrConflict] where the key has another.
func (b *Bucket[T]) Update(ctx context.Context, key string, value T, revision uint64, ttl time.Duration) (uint64, error) {
	return b.put(ctx, key, value, revision, ttl)
}

// Send writes as [Bucket.Update] does, and does not wait: the server's answer,
// which [Answered] reads, goes to the subject reply, and may never come.
func (b *Bucket[T]) Send(key string, value T, revision uint64, ttl time.Duration, reply string) error {
	msg, err := b.write(key, value, revision, ttl)
	if err == nil {
		msg.Reply = reply
		err = b.js.Conn().PublishMsg(msg)
	}
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", key, b.name, err)
	}
	return nil
}

// Delete removes a key whose revision is the one given. It returns
// [ErrConflict] where the key has another.
func (b *Bucket[T]) Delete(ctx context.Context, key string, revision uint64) error {
	return b.DeleteFor(ctx, key, revision, Forever)
}

// DeleteFor is Delete that leaves its marker, by which watchers learn of it, for
// so long and no longer. The bucket must have no Markers: they would follow it.
func (b *Bucket[T]) DeleteFor(ctx context.Context, key string, revision uint64, marker time.Duration) error {
	// Not jetstream.KeyValue's: it takes revision 0 for no condition.
	msg := b.message(key, revision)
	msg.Header.Set("KV-Operation", "DEL")
	if marker != Forever {
		msg.Header.Set(jetstream.MsgTTLHeader, ttlHeader(marker))
	}
	if _, err := Publish(ctx, b.js, msg); err != nil {
		return fmt.Errorf("delete %s of %s: %w", key, b.name, conflict(err))
	}
	return nil
}

// put publishes the value, conditional on the key's last revision (0 for a key
// without one).
func (b *Bucket[T]) put(ctx context.Context, key string, value T, revision uint64, ttl time.Duration) (uint64, error) {
	msg, err := b.write(key, value, revision, ttl)
	if err != nil {
		return 0, fmt.Errorf("write %s of %s: %w", key, b.name, err)
	}
	revision, err = Publish(ctx, b.js, msg)
	if err != nil {
		return 0, fmt.Errorf("write %s of %s: %w", key, b.name, conflict(err))
	}
	return revision, nil
}

// write makes the message of a value.
func (b *Bucket[T]) write(key string, value T, revision uint64, ttl time.Duration) (*nats.Msg, error) {
	data, err := b.codec.Encode(value)
	if err != nil {
		return nil, err
	}
	msg := b.message(key, revision)
	msg.Data = data
	if ttl != Forever {
		msg.Header.Set(jetstream.MsgTTLHeader, ttlHeader(ttl))
	}
	return msg, nil
}

// message makes a message for a key that is stored only if the key's last
// revision is the one given.
func (b *Bucket[T]) message(key string, revision uint64) *nats.Msg {
	msg := nats.NewMsg(b.publish + key)
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
	return msg
}

// Refused reports whether the server refused a publish since the sequence that
// it expected was not the last: by one code if it is alone, by another if it is
// one of a cluster.
func Refused(err error) bool {
	var refused *jetstream.APIError
	return errors.As(err, &refused) &&
		(refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

func conflict(err error) error {
	if Refused(err) {
		return ErrConflict
	}
	return err
}

func (b *Bucket[T]) entry(key string, data []byte, revision uint64, written time.Time) (Entry[T], error) {
	value, err := b.codec.Decode(data)
	if err != nil {
		return Entry[T]{}, fmt.Errorf("read %s of %s: %w: %w", key, b.name, ErrUnreadable, err)
	}
	return Entry[T]{Key: key, Value: value, Revision: revision, Written: written}, nil
}
