// Package integration holds the tests of asyncnats as a whole, through its
// public packages alone: real processes and clusters, their crashes and races,
// random histories of quotas, and benchmarks against the bare JetStream loop.
// Stories in fake time are in package stories.
package integration
