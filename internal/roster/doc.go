// Package roster knows the dispatchers of a namespace: who was ever registered,
// who is alive, who was found dead, and which agents each has in which queue.
//
// # Protocol
//
// Two keys of the dispatchers' bucket stand for a dispatcher. alive.<uuid> has a
// time to live, the death interval; the dispatcher writes it anew at each ping.
// While it exists nobody else can be a dispatcher with that UUID.
// dispatcher.<uuid> has none; it says what the dispatcher is, and whether it is
// active, stopped or dead.
//
// To be activated a process creates alive.<uuid>. Where it exists, another process
// has the UUID, or had it a moment ago: that one is asked, by core request. If
// nobody listens it is gone, and its key is taken over; if somebody does, or the
// answer is lost, the process waits until the key is gone. It performs no job
// meanwhile.
//
// The key of a dispatcher that died expires. Its siblings watch that, and the first
// of them who changes dispatcher.<uuid> from active to dead, by compare-and-set,
// tells of it; so it is told once. The next by UUID is first, the others wait a
// moment longer each. Once a minute they look for active entries without a key, since
// who was away may have missed that one expired. A dispatcher that has no sibling finds
// its own entry active when it comes back, and says of itself that it died (FEATURES
// 146 to 148).
//
// A dispatcher whose key is gone though it lives was late with its pings. It
// activates itself again, which is another event than an activation, and a warning
// (FEATURES 150). One that cannot ping for nearly the death interval is suspended:
// it takes no jobs until it can.
//
// Jobs do not rest on any of this: they come back when their leases end.
package roster
