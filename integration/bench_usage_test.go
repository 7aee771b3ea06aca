package integration

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// used returns how long processors have worked for this process, and for that of the
// server, in which the system counts in steps of ten milliseconds; 0 where it does not say.
func (r *rig) used() (client, server time.Duration) {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		client = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.server.Process.Pid))
	if err != nil {
		return client, 0
	}
	// The fields after the name of the program, which is in parentheses.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var user, system int64
	if _, err := fmt.Sscan(fields[11], &user); err != nil {
		return client, 0
	}
	if _, err := fmt.Sscan(fields[12], &system); err != nil {
		return client, 0
	}
	return client, time.Duration(user+system) * 10 * time.Millisecond
}

// resident returns how much memory a process has, in MB; 0 where the system does not say.
func resident(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kilobytes float64
	if _, err := fmt.Sscan(fieldOf(string(status), "VmRSS:"), &kilobytes); err != nil {
		return 0
	}
	return kilobytes / 1024
}

// fieldOf returns what follows a name at the beginning of a line of a status file.
func fieldOf(status, name string) string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
