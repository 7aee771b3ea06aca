package integration

import (
	"syscall"
	"time"
)

// sleep takes as long as it is told. time.Sleep may take a millisecond more:
// what waits for the network beside it is woken in whole milliseconds.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(d.Nanoseconds())
	_ = syscall.Nanosleep(&t, nil)
}
