//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// shell returns a command for the system's shell, in a process group of its
// own: so a Ctrl-C on the terminal does not reach it, and a signal to the
// group reaches whatever it has started.
func shell(line string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// terminate asks a command and all it has started to end.
func terminate(cmd *exec.Cmd) { signalGroup(cmd, syscall.SIGTERM) }

// kill ends a command and all it has started.
func kill(cmd *exec.Cmd) { signalGroup(cmd, syscall.SIGKILL) }

func signalGroup(cmd *exec.Cmd, signal syscall.Signal) {
	_ = syscall.Kill(-cmd.Process.Pid, signal) // a group that is gone needs no signal
}
