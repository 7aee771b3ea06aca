// Package quotas limits how many jobs run at once, or start in a period: strictly,
// over all dispatchers of a queue, by name.
//
// A quota is one key of a key-value bucket. Its value, [Slots], says who holds
// its slots and who waits for one, and is changed by compare-and-set only. A
// [Set] creates, resizes and shows quotas; a [Gate] is a dispatcher process's
// way in and out.
//
// # Protocol
//
// An attempt that was delivered a job enters with a [Claim] for each quota that
// the job names: it becomes a holder where a slot is free and nobody waits, else
// a waiter. When its job is over it leaves, and the write by which it leaves
// gives the slot to the first waiter, whose gate is told and lets it in. Waiters are
// served in the order of the queue, jobs that were interrupted first.
//
// A holder does not expire. The job's un-acked message is its lease: if the
// worker dies, the server gives the job to another attempt, whose claim takes the
// place of the old one in whatever position that had. The worker that lost the
// lease has stopped by its own clock before. So a slot is never free while
// somebody may run in it, and never lost with a process. Two rules keep it so: a
// slot is given back before the job's outcome is recorded and its message acked,
// and by nothing else, except that a claim which was not started is withdrawn
// before its job is handed back.
//
// One gate, the quota's keeper, writes for all (keeper.go), one change at a time,
// and puts into it all that is wanted (line.go). Each step is worked out anew from
// the last value known and from what is wanted, so a write that was refused, or
// not answered, is not repeated but worked out again after a reading. Nothing but
// speed rests on there being a keeper.
//
// A job that names several quotas gets a slot in all of them in one atomic write,
// or none (several.go). While it waits, others pass it; after a number of those,
// slots are kept free for it.
//
// A quota with a period is a rate limit (rate.go). Its claims are the same, but a
// waiter is served where fewer starts than the size were granted within the period
// that ends now, by the clock of the server (clock.go); a grant expires, whatever
// becomes of its job. A job that is granted a start and surely not started, because
// its agent has no place for it or stops, withdraws and gives it back. Where a worker
// dies, is stopped, or loses its lease, the grant is spent, and the job's next attempt
// takes another, before all who never started. When a grant expires the keeper looks,
// and a little later whoever else waits (watch.go).
//
// # Guarantees
//
// In every revision of the value a holder is added only where there are fewer
// than the quota's size, or where the quota is removed. Of a rate limit, no window
// of its period has more grants than its size, by the times that the server stored
// them at, but for those that were given back. Each slot, and each start, comes with a
// fencing token, higher than all before it in the quota. A waiter is served
// before all who stand behind it, except that one which needs several quotas can
// be passed by eight jobs in each. Slots survive their holders' processes and
// servers, as far as the server's storage does.
//
// # Limits
//
// A job starts when it is granted that or a moment later, so that starts may be a
// little closer to each other than grants. A rate limit relies on the server's clock
// as clock.go says. While its size or period is changed a window has no more than the
// larger, by what is known: what expired by the old period is forgotten.
//
// Two jobs that are claimed by two dispatchers at the same moment, while a slot
// is free, may start in either order. A slot whose holder was killed is idle until the
// job is delivered again, an ack wait later; where nobody takes jobs of its task any
// more, until somebody does or the job is cancelled. Where somebody deletes jobs, or
// the quota's key, behind the dispatchers' backs, claims without job are swept after two
// ack waits. Where the server loses what was written, the quota stands still for an ack
// wait, fencing tokens may be given again, and for that time more jobs may run than the
// size.
package quotas
