// Package dispatcher performs jobs: it runs a process's agents over its
// queues, with the handlers that the process brings.
//
// A [Dispatcher] wires and loops; it decides nothing. Which lane to pull from
// and what to do with a job is the agents' (package agents). Any number of
// dispatchers, in any number of processes, share the queues of a namespace
// without knowing of each other.
//
// # Guarantees
//
// A dispatcher is never given a job whose task it has no handler for. Without
// an agent in a queue it performs no job of that queue. [Dispatcher.Run]
// returns only after the jobs it had begun are done or handed back.
package dispatcher
