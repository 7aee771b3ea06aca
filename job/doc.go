// Package job is the vocabulary of asyncnats: what a job is called, what it
// carries, which states it passes through and what is kept of it.
//
// It does no I/O and imports nothing else of this module, so producers,
// workers and tools share it without sharing anything more.
//
//   - [ID], [Nonce] and the Check functions: names and identity
//   - [State]: the states and the table of legal transitions
//   - [Spec]: what travels in a queue, and its wire forms (docs/protocol.md)
//   - [Record] and [Outcome]: what is kept after a job began to matter
//   - [Failure]: why a job has no result
//   - [Retry]: what happens to a job whose worker died
//   - [Call], [Callback] and [Parts]: jobs within others, that are put when it is their
//     turn, and how far those have come that wait for them
//   - [Handler]: the code that performs a task
//   - [Value]: an argument or a result, encoded
//
// # Identity
//
// A job's ID names it among the jobs that exist now and may be used again once
// the job is over. Its nonce is drawn once, by the put, and copied by every
// retry; it is never used again. IDs and nonces of parts and callbacks follow from the
// nonce of the job that they belong to, so that putting one again is putting the same.
// Whoever writes about a job names both, and
// the attempt on whose behalf it writes.
package job
