// Package stream moves jobs: it names, builds and opens the JetStream stream of
// a queue, puts jobs into it, and delivers them under a lease.
//
//   - [Namespace]: all queues of one system, and the buckets they share
//   - [Queue]: one queue; put, look up, remove
//   - [Lane]: one disjoint part of a queue, with one durable consumer
//   - [Tap]: pull requests on one lane, whose deliveries are leases
//   - [Lease]: the right to perform a delivered job now
//   - [Self]: the job that is being performed, to its own handler: what it reports,
//     and what it answers
//   - [Note]: an annotation of a job, which anybody may set
//
// # Protocol
//
// A queue is a WorkQueue stream. Its first message, on the meta subject, says
// what the queue is and is never consumed: it is also the sentinel without
// which a long backlog makes each delivery slow (docs/adr/0003). Each job is
// one message on a subject of its own, published on the condition that the
// subject, or for an ID chosen by the caller the ID in the whole queue, is
// free.
//
// Consumers are not agents: JetStream refuses overlapping filters on a
// WorkQueue stream, and agents overlap freely. So each task has a lane, with a
// filter that is disjoint from all others and never edited, and whoever may
// perform the task pulls from it. A lane is registered, in the namespace's
// bucket, before the first job is put on it; the consumer is made by the first
// who pulls.
//
// A job that waits for others, its parts, is a message on a subject that nobody pulls
// from, and a record, with a bit for each part (whole.go). Whoever completes a part sets
// its bit ([Namespace.Pay]), goes on with the whole from where it finds it
// ([Queue.Advance]), and acks the part last: whoever dies between leaves the part's
// message, whose next receiver goes on. What begins, cancels or adds to a whole sets a
// timer before, which any dispatcher of the queue takes. Parts that are not put yet lie in
// the message, or beside it (parts.go). docs/adr/0017 says why.
//
// # Guarantees
//
// A put that returned without error is stored once, however often it had to be
// repeated. A delivered job belongs to its [Lease] until the lease is acked,
// handed back or lost; when it is lost is decided by the holder's own clock,
// before the server delivers the job to somebody else. Each part of a whole is counted
// once, and the whole has one outcome.
//
// # Limits
//
// Order is that of puts within a lane; there is none across lanes. A job that
// is handed back is delivered again before newer ones.
package stream
