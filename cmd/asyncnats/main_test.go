package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// asTool in the environment makes the test binary the program itself.
const asTool = "ASYNCNATS_TEST_AS_TOOL"

func TestMain(m *testing.M) {
	if os.Getenv(asTool) != "" {
		main()
	}
	natstest.WideParallel()
	os.Exit(m.Run())
}

// tool runs the program as other processes, away from the contexts and the
// environment of whoever runs the tests.
type tool struct {
	t   *testing.T
	dir string // working folder
	env []string
}

// newTool returns a tool that connects to url unless told otherwise.
func newTool(t *testing.T, url string) *tool {
	t.Helper()
	dir := t.TempDir()
	return &tool{t: t, dir: dir, env: []string{
		"GORACE=atexit_sleep_ms=0", // else each run of a binary built with -race takes a second longer
		asTool + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "NATS_URL=" + url,
	}}
}

func (x *tool) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(x.t.Context(), os.Args[0], args...)
	cmd.Dir, cmd.Env = x.dir, x.env
	return cmd
}

// result is what a run of the program left.
type result struct {
	out, err string
	code     int
}

// run runs the program to its end, with in on its stdin.
func (x *tool) run(in string, args ...string) result {
	x.t.Helper()
	var out, errOut bytes.Buffer
	cmd := x.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errOut
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		x.t.Fatal(err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// ok runs the program, which has to succeed, and returns its stdout.
func (x *tool) ok(args ...string) string {
	x.t.Helper()
	r := x.run("", args...)
	if r.code != exitOK {
		x.t.Fatalf("asyncnats %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// json runs the program with --json, which has to succeed.
func (x *tool) json(into any, args ...string) {
	x.t.Helper()
	out := x.ok(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		x.t.Fatalf("asyncnats %s: %v in\n%s", strings.Join(args, " "), err, out)
	}
}

// write writes a file in the working folder.
func (x *tool) write(name, text string) {
	x.t.Helper()
	path := filepath.Join(x.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
}

// process is a run of the program that goes on.
type process struct {
	*exec.Cmd
	t     *testing.T
	lines *bufio.Scanner
	seen  []string
}

// start starts the program. Its stdout is left unread unless follow is "out";
// then, or for "err", lines are those of that stream.
func (x *tool) start(follow string, args ...string) *process {
	x.t.Helper()
	p := &process{Cmd: x.command(args...), t: x.t}
	pipe := p.StderrPipe
	if follow == "out" {
		pipe = p.StdoutPipe
	}
	stream, err := pipe()
	if err != nil {
		x.t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		x.t.Fatal(err)
	}
	p.lines = bufio.NewScanner(stream)
	x.t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return p
}

// line reads up to the line that holds text, and returns it.
func (p *process) line(text string) string {
	p.t.Helper()
	for p.lines.Scan() {
		p.seen = append(p.seen, p.lines.Text())
		if strings.Contains(p.lines.Text(), text) {
			return p.lines.Text()
		}
	}
	p.t.Fatalf("no line with %q:\n%s", text, strings.Join(p.seen, "\n"))
	return ""
}

// stop sends a signal, reads what comes still, and returns the exit code.
func (p *process) stop(signal os.Signal) int {
	p.t.Helper()
	if err := p.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	return p.end()
}

func (p *process) end() int {
	p.t.Helper()
	for p.lines.Scan() {
		p.seen = append(p.seen, p.lines.Text())
	}
	err := p.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited && !errors.Is(err, io.EOF) {
		p.t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}
