// Package kv keeps facts at rest: typed values in a JetStream key-value
// bucket, changed by compare-and-set.
//
// A [Bucket] is an ordinary NATS KV bucket (the nats command line reads it),
// with what jetstream.KeyValue lacks: typed values, a time to live on every
// write and not on creation alone, reads that must come from the leader, and a
// watch that is a loop.
//
// # Guarantees
//
// Every write is conditional: [Bucket.Create] on the absence of the key,
// [Bucket.Update] and [Bucket.Delete] on the revision last read. Of several
// writers that saw the same revision one succeeds; the others get
// [ErrConflict]. A write whose answer was lost may have happened: who repeats
// it gets ErrConflict from its own first try, so values that are written
// concurrently must tell whose they are.
//
// # Limits
//
// Get may read a replica and be behind; [Bucket.Latest] asks the leader. Times
// to live are whole seconds.
package kv
