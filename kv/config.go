package kv

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Config describes a bucket. Only Bucket is required.
type Config struct {
	Bucket      string
	Description string
	// Markers is how long an expired key leaves a marker behind, by which
	// watchers learn of the expiry; 0 leaves none, and watchers do not. A
	// marker costs one more message per expired key.
	Markers time.Duration
	// Atomic lets the bucket take several keys in one write; see
	// [Bucket.UpdateAll].
	Atomic bool
	// MaxAge is how long the server keeps an entry, whatever its own time to
	// live; 0 is for ever. Such a bucket is opened with [OpenAging].
	MaxAge time.Duration
	// Replicas defaults to 1.
	Replicas int
}

// streamConfig is the stream of a NATS KV bucket (ADR-8 of the NATS
// architecture), always with per-message time to live, and with a maximum age
// only where that is asked for: the server removes a message at that age even
// where the message's own time to live is longer (docs/adr/0005). It is built
// here since jetstream.KeyValueConfig cannot say "time to live without markers".
func streamConfig(c Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:                   "KV_" + c.Bucket,
		Description:            c.Description,
		Subjects:               []string{"$KV." + c.Bucket + ".>"},
		Storage:                jetstream.FileStorage,
		Replicas:               max(1, c.Replicas),
		MaxMsgsPerSubject:      1,
		MaxMsgs:                -1,
		MaxBytes:               -1,
		MaxMsgSize:             -1,
		MaxConsumers:           -1,
		MaxAge:                 c.MaxAge,
		Duplicates:             2 * time.Minute,
		Discard:                jetstream.DiscardNew,
		AllowRollup:            true,
		DenyDelete:             true,
		AllowDirect:            true,
		AllowMsgTTL:            true,
		AllowAtomicPublish:     c.Atomic,
		SubjectDeleteMarkerTTL: c.Markers,
	}
}
