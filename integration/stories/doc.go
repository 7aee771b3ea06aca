// Package stories tells what users see of asyncnats, through its public packages
// alone, in fake time: a server, dispatchers over wires that can be severed, and a
// clock that advances when everybody waits.
package stories
