// Package natstest gives tests a real NATS server with JetStream: [Run] in fake time, [Start] in real time.
//
// Run puts the server, its clients and the test into one testing/synctest bubble. There is no network: clients reach the
// server through in-memory links. Time in the bubble starts at midnight UTC 2000-01-01 and jumps ahead whenever every
// goroutine in it waits, so acknowledgement waits, schedules, key TTLs and reconnects take no real time, and a test sleeps
// an hour for the price of the timers that fire in it.
//
// # Guarantees
//
// The server is shut down, and waited for, when the test ends. Connections made through [Server.Connect] and
// [Wire.Connect] come back by themselves after an outage, however long, and are closed at the end. A goroutine of the test
// that is still blocked after that aborts the test binary with the stacks of the bubble. A fatal error of the server fails
// the test.
//
// # Limits
//
// Inside a bubble:
//
//   - Use the *testing.T that the bubble was given, not the outer one, whose cleanups run too late. It has no Run and no
//     Parallel.
//   - Nothing may wait for the outside: no sockets, no child processes, no channel made before the bubble. Files are fine.
//   - Connect only through this package. nats.InProcessServer given a bare *server.Server uses a pipe without a buffer:
//     a client then writes while it holds its lock, and a goroutine waiting for a lock keeps fake time from moving.
//     For the same reason do not sleep or wait for the server with a mutex locked that somebody else wants.
//   - synctest.Wait returns when every goroutine waits, which includes the server's: what it had to do at this instant is
//     done. What it does after a delay (a schedule, a redelivery) needs a sleep, which is free.
//   - The file store compares a stream's maximum age with the real clock: what has one expires at once, or at the first
//     expiry of anything else in its stream. Times to live of single messages are right.
//   - Servers in a cluster need sockets: test clusters in real time.
//
// Bubbles run one at a time, and none while a server of Start runs, since nats.go shares timers between all connections of
// a process. Run and Start fail the test at once when that is broken; a test that calls Run is not parallel. Connections
// made past this package have to be closed by the end of the test that made them.
//
// The environment variable NATSTEST_LOG shows the server's log in the test's: "1" for errors, warnings and notices,
// "debug" or "trace" for more.
package natstest
