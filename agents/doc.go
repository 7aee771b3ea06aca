// Package agents chooses jobs and performs them.
//
// An [Agent] is a stored policy: which tasks (filter) and how many jobs at
// once (size). A [Runner] carries one out in one queue: it pulls from the
// lanes that the agent's filter and the process's handlers both match, and
// performs what it is given.
//
// # Protocol
//
// Claiming is the server's: a lane hands each job to one of those who pull
// from it, and the claim costs no write. The runner decides only whom to ask
// for how much, in a pure function (plan.go): while nothing is to be had it
// waits on every lane; while a lane is known to hold more it takes from those
// in turn, and looks into the others ten times a second.
//
// Lanes of a higher priority come first, and among those of one priority the
// agent's preference counts. Lanes that come later are passed over while there
// is more to be had of earlier ones; but every tenth job that the agent takes
// meanwhile is of one that was passed over, the one that was not looked into for
// longest first. So of L such lanes that have work, each gets a job out of 10·L
// at the latest.
//
// A job that waits for a slot has no place (admit.go). Of a lane no more wait here
// than the agent has places, the first in line of those that were delivered
// (relief.go).
//
// Performing (perform.go) is three steps: look at the job's record, if this may
// not be the first attempt; run the handler under the lease; write the outcome
// on the condition that nobody else wrote one, and ack. On a first attempt the
// record is not looked at and nothing is written before the outcome, so a job
// costs one record and one ack. One that fails costs one write more, between the
// two: what is kept of it for people (bury.go). One with callbacks is in state callbacks
// until they are put; one that is a part of another is acked when that knows, for which
// the agent's place is not kept; and one whose handler returned a call waits for that
// instead of having an outcome (delegate.go). What a crash leaves between two
// steps is said where the steps are.
//
// # Guarantees
//
// At no time do more jobs run than the agent's size. A job is started at least
// once and has exactly one recorded outcome. A handler's context ends before
// its job can be given to somebody else. What was claimed and not started is
// handed back at once when the runner stops, and counts as no interruption.
//
// # Limits
//
// The interruption of a first attempt leaves no trace to be counted; it is
// counted from the second on.
//
// Priority and preference count where the agent chooses. A job that it has
// claimed, in advance or since it waited on all lanes, starts when there is a
// place for it; work on an earlier lane is seen within a tenth of a second;
// slots of a quota are given in the order of the queue.
package agents
