package kv

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Config describes a bucket. Only Bucket is required.
type Config struct {
	Bucket      string
	Description string
	// MaxAge is how long a value lives where its write does not say; 0 is
	// forever.
	MaxAge time.Duration
	// Markers is how long an expired key leaves a marker behind, by which
	// watchers learn of the expiry; 0 leaves none, and watchers do not. A
	// marker costs one more message per expired key.
	Markers time.Duration
	// Replicas defaults to 1.
	Replicas int
}

// streamConfig is the stream of a NATS KV bucket (ADR-8 of the NATS
// architecture), always with per-message time to live. It is built here since
// jetstream.KeyValueConfig cannot say "time to live without markers".
func streamConfig(c Config) jetstream.StreamConfig {
	duplicates := 2 * time.Minute
	if c.MaxAge > 0 {
		duplicates = min(duplicates, c.MaxAge)
	}
	return jetstream.StreamConfig{
		Name:                   "KV_" + c.Bucket,
		Description:            c.Description,
		Subjects:               []string{"$KV." + c.Bucket + ".>"},
		Storage:                jetstream.FileStorage,
		Replicas:               max(1, c.Replicas),
		MaxAge:                 c.MaxAge,
		MaxMsgsPerSubject:      1,
		MaxMsgs:                -1,
		MaxBytes:               -1,
		MaxMsgSize:             -1,
		MaxConsumers:           -1,
		Duplicates:             duplicates,
		Discard:                jetstream.DiscardNew,
		AllowRollup:            true,
		DenyDelete:             true,
		AllowDirect:            true,
		AllowMsgTTL:            true,
		SubjectDeleteMarkerTTL: c.Markers,
	}
}
