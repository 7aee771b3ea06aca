package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/asyncnats/asyncnats/job"
)

const (
	// stderrKept is how much of a command's stderr, from its end, becomes part
	// of the Failure. A Failure's message is cut at 10,000 bytes.
	stderrKept = 9_800
	// killAfter is how long a command that ran into its job's timeout has to
	// end after SIGTERM.
	killAfter = 5 * time.Second
	// killSoon is the same where the job may start elsewhere a second later.
	killSoon = 700 * time.Millisecond
	// leaveAfter is how long the output of a killed command is waited for: a
	// process that left the group may hold it.
	leaveAfter = time.Second
)

// commands performs jobs by running commands, and leaves none behind.
type commands struct {
	limit int      // of a result, in bytes
	env   []string // by which they find the server, beside what this process has

	mu      sync.Mutex
	running map[*exec.Cmd]struct{}
	ended   sync.WaitGroup
}

// handler returns the handler that performs a task by a line for the shell.
func (c *commands) handler(task, line string) job.Handler {
	return job.Handler{Task: task, Perform: func(ctx context.Context, arg job.Value) (job.Value, error) {
		return c.perform(ctx, line, arg)
	}}
}

// perform runs a command: argument on its stdin, result on its stdout. What
// becomes of a command that had to be stopped is never a result, whatever it
// says: it may have ended in the middle.
func (c *commands) perform(ctx context.Context, line string, arg job.Value) (job.Value, error) {
	cmd := shell(line)
	cmd.Env = slices.Concat(os.Environ(), c.env, environment(ctx))
	if !arg.IsNone() {
		text, err := arg.AsJSON()
		if err != nil {
			return job.Value{}, job.Invalidf("argument: %v", err)
		}
		cmd.Stdin = bytes.NewReader(text)
	}
	stdout, stderr := &head{most: c.limit}, &tail{most: stderrKept}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	stopped, err := c.run(ctx, cmd)
	switch {
	case stopped:
		return job.Value{}, errors.New("command was stopped" + stderr.appended())
	case err != nil:
		return job.Value{}, &job.Failure{Kind: job.KindError, Message: err.Error() + stderr.appended()}
	case stdout.size > c.limit:
		return job.Value{}, job.Invalidf("result of %d bytes is larger than the server takes (max_payload %d): store it elsewhere and print a reference", stdout.size, c.limit)
	}
	return parseResult(stdout.kept)
}

// run runs a command to its end, or until ctx ends; then it ends the command
// and all it has started.
func (c *commands) run(ctx context.Context, cmd *exec.Cmd) (stopped bool, err error) {
	if err := c.start(cmd); err != nil {
		return false, err
	}
	defer c.end(cmd)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return false, err
	case <-ctx.Done():
	}
	patience := killSoon
	if errors.Is(context.Cause(ctx), job.ErrTimeout) {
		patience = killAfter
	}
	terminate(cmd)
	select {
	case <-done: //nolint:errcheck // it had to be stopped: how it ended says nothing
		kill(cmd)
		return true, nil
	case <-time.After(patience):
	}
	kill(cmd)
	select {
	case <-done: //nolint:errcheck // as above
	case <-time.After(leaveAfter):
	}
	return true, nil
}

func (c *commands) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	if c.running == nil {
		c.running = make(map[*exec.Cmd]struct{})
	}
	c.running[cmd] = struct{}{}
	c.ended.Add(1)
	return nil
}

func (c *commands) end(cmd *exec.Cmd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, cmd)
	c.ended.Done()
}

// killAll ends all commands at once.
func (c *commands) killAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cmd := range c.running {
		kill(cmd)
	}
}

// environment says which job it is.
func environment(ctx context.Context) []string {
	info, ok := job.FromContext(ctx)
	if !ok {
		return nil
	}
	env := []string{
		"ASYNCNATS_JOB=" + info.ID.String(),
		"ASYNCNATS_QUEUE=" + info.Queue,
		"ASYNCNATS_TASK=" + info.Task,
		"ASYNCNATS_ATTEMPT=" + strconv.Itoa(info.Attempt),
		"ASYNCNATS_DISPATCHER=" + info.Dispatcher,
		"ASYNCNATS_AGENT=" + info.Agent,
	}
	for key, value := range job.TraceOf(ctx) {
		env = append(env, strings.ToUpper(key)+"="+value)
	}
	for quota, fence := range info.Fences {
		// Shells do not hand on a variable with - in its name.
		env = append(env, "ASYNCNATS_FENCE_"+strings.ReplaceAll(quota, "-", "_")+"="+strconv.FormatUint(fence, 10))
	}
	return env
}

// parseResult makes a value of what a command printed: JSON as it is, other
// text as a string, nothing as none.
func parseResult(printed []byte) (job.Value, error) {
	trimmed := bytes.TrimSpace(printed)
	switch {
	case len(trimmed) == 0:
		return job.Value{}, nil
	case json.Valid(trimmed):
		return job.Value{Encoding: job.JSON, Data: trimmed}, nil
	case !utf8.Valid(printed):
		return job.Value{}, job.Invalidf("command printed neither JSON nor text: encode binary data, as by base64")
	}
	text := bytes.TrimSuffix(bytes.TrimSuffix(printed, []byte("\n")), []byte("\r"))
	return job.Encode(string(text), job.JSON)
}

// head keeps the beginning of what is written to it, and counts it all.
type head struct {
	most int
	kept []byte
	size int
}

// Write implements [io.Writer].
func (h *head) Write(p []byte) (int, error) {
	h.size += len(p)
	h.kept = append(h.kept, p[:min(len(p), h.most-len(h.kept))]...)
	return len(p), nil
}

// tail keeps the end of what is written to it. It is read when nothing writes
// any more, or after a process that still might was given up.
type tail struct {
	most int

	mu   sync.Mutex
	kept []byte
	cut  bool
}

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.most; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// appended is the text to append to a message: nothing, or what was kept.
func (t *tail) appended() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(bytes.ToValidUTF8(bytes.TrimSpace(t.kept), []byte("\uFFFD")))
	switch {
	case text == "":
		return ""
	case t.cut:
		return ": …" + text
	}
	return ": " + text
}
