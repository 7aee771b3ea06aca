// Package integration holds the tests of asyncnats as a whole, through its
// public packages alone: stories in fake time, crashes of real processes, and
// benchmarks against the bare JetStream loop.
package integration
