// Package dispatcher performs jobs: it runs a process's agents over its
// queues, with the handlers that the process brings.
//
// A [Dispatcher] wires and loops; it decides nothing. Which lane to pull from
// and what to do with a job is the agents' (package agents); who is alive is the
// roster's (package internal/roster). A site (site.go) is all that a dispatcher
// works on, a station (station.go) its work in one queue: it follows the agents and
// pauses that are stored, and looks after the timers of the queue that have fired
// (attend.go). Any number of dispatchers, in any number of processes,
// share the queues of a namespace.
//
// # Guarantees
//
// A dispatcher is never given a job whose task it has no handler for. Without
// an agent in a queue it performs no job of that queue. [Dispatcher.Run]
// returns only after the jobs it had begun are done or handed back.
package dispatcher
