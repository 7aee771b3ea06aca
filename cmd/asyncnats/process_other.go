//go:build !unix

package main

import "os/exec"

// shell returns a command for the system's shell.
func shell(line string) *exec.Cmd { return exec.Command("cmd", "/C", line) }

// terminate ends a command, which cannot be asked to here. What it has started
// goes on.
func terminate(cmd *exec.Cmd) { kill(cmd) }

// kill ends a command. What it has started goes on.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // one that is gone needs no killing
}
