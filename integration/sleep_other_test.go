//go:build !linux

package integration

import "time"

// sleep takes as long as it is told, or somewhat longer.
func sleep(d time.Duration) { time.Sleep(d) }
