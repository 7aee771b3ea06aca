//go:build unix

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/internal/natstest"
)

// until runs the program until its output is as wanted: dispatchers that are asked have
// only a moment to answer.
func (x *tool) until(wanted string, args ...string) string {
	x.t.Helper()
	pattern := regexp.MustCompile(wanted)
	var r result
	for range 200 {
		if r = x.run("", args...); r.code == exitOK && pattern.MatchString(r.out) {
			return r.out
		}
		time.Sleep(20 * time.Millisecond)
	}
	x.t.Fatalf("asyncnats %s has no %s: exit %d\n%s%s", strings.Join(args, " "), wanted, r.code, r.out, r.err)
	return ""
}

// TestDispatcher: a dispatcher is seen and changed while it runs, and its agents
// outlive it.
func TestDispatcher(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	if r := x.run("", "dispatcher", "ls"); r.code != exitOK || r.out != "" || !strings.Contains(r.err, "asyncnats dispatch") {
		t.Errorf("none: %+v", r)
	}
	if out := x.ok("dispatcher", "ls", "--json") + x.ok("agent", "ls", "--json"); out != "[]\n[]\n" {
		t.Errorf("none: %s", out)
	}
	if r := x.run("", "agent", "ls"); r.code != exitOK || r.out != "" || !strings.Contains(r.err, "no such agents") {
		t.Errorf("no agents: %+v", r)
	}
	open := x.barrier("proceed")
	x.ok("queue", "add", "default")
	x.ok("queue", "add", "media")
	const id = "2b708999-3bfb-46af-8b52-9417daf66d66"
	dispatch := []string{"dispatch", "--handle", "slow=cat proceed", "--handle", "other=cat", "--uuid", id,
		"--agent", "name=main,size=1", "--agent", "name=spare,size=2,filter=spare,queue=media", "--log-format", "json"}
	d := x.start("err", dispatch...)
	d.line("dispatcher runs")
	x.until(id+` +active +\S+ +\d+ +default, media +\S+ \S+\n`, "dispatcher", "ls")
	x.until(`(?s)AGENT.*default +main +1 +0\n.*media +spare +2 +spare +0\n`, "agent", "ls", "--dispatcher", "2B70")
	if out := x.ok("agent", "ls", "-q", "default"); strings.Contains(out, "media") {
		t.Errorf("other queue:\n%s", out)
	}

	t.Run("set", func(t *testing.T) {
		x.ok("put", "slow", "1", "2", "3")
		x.until(`default +main +1 +1\n`, "agent", "ls")
		contains(t, x.ok("agent", "set", "2b70", "main", "--size", "3", "--filter", "slow,other", "--prefer", "other"),
			"agent main of dispatcher "+id+" in queue default\n\n", `        BEFORE  NOW
size    1       3
filter  none    slow, other
prefer  none    other
`)
		var shown dispatcherView
		for range 200 {
			if x.json(&shown, "dispatcher", "info", "2b70"); len(shown.Jobs) == 3 {
				break
			}
		}
		if len(shown.Jobs) != 3 || shown.Jobs[0].Queue != "default" || shown.Jobs[0].Task != "slow" ||
			shown.State != asyncnats.DispatcherActive || len(shown.Agents) != 3 || *shown.Agents[0].Active != 3 {
			t.Errorf("%+v", shown)
		}
		out := x.until(`(?s)\nQUEUE +AGENT +SIZE +FILTER +PREFER +ACTIVE\ndefault +main +3 +slow, other +other +3\n.*\nQUEUE +JOB +TASK +AGENT +ATTEMPT +SINCE\ndefault +\S+ +slow +main +1 +\S+ ago\n`, "dispatcher", "info", id)
		contains(t, out, "state       active\n", "queues      default, media\n")
		contains(t, x.ok("agent", "set", id, "main", "--no-filter", "--no-prefer"), "slow, other  none\n", "other        none\n")
	})
	t.Run("busy", func(t *testing.T) {
		r := x.run("", "agent", "rm", id, "main")
		if r.code != exitFailed {
			t.Errorf("%+v", r)
		}
		contains(t, r.err, "agent is busy, 3 running")
		r = x.run("", "dispatcher", "rm", id)
		if r.code != exitFailed {
			t.Errorf("%+v", r)
		}
		contains(t, r.err, "dispatcher is active on host", "stop it first")
		contains(t, x.ok("agent", "rm", id, "main", "--drain"), "takes no more jobs, and goes when those that it performs are done")
		contains(t, x.ok("agent", "ls", "-q", "default"), "LEAVING", "yes")
		open()
		x.until(`^$`, "agent", "ls", "-q", "default")
	})
	t.Run("pause", func(t *testing.T) {
		contains(t, x.ok("agent", "add", id, "new", "--filter", "other"), "agent new of dispatcher "+id+" in queue default added, size 3")
		contains(t, x.ok("agent", "pause", id, "new"), "is paused: it takes no jobs")
		x.until("0 of 3, paused", "queue", "info", "default")
		x.ok("put", "other", "7", "--id", "waits")
		x.until(`PAUSED(?s).* new +3 +other +yes +0\n`, "agent", "ls")
		contains(t, x.ok("job", "show", "waits"), "state       pending")
		contains(t, x.ok("agent", "resume", id, "new"), "is not paused")
		if out := x.ok("job", "wait", "waits"); out != "7\n" {
			t.Error(out)
		}
		x.until(`default +new +3 +other +0\n`, "agent", "ls")
		contains(t, x.ok("agent", "rm", id, "new", "--drain"), "agent new of dispatcher "+id+" in queue default removed")
	})

	if code := d.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit %d", code)
	}
	contains(t, x.ok("dispatcher", "info", id), "state       stopped\n", "deactivated ")
	x.until(`media +spare +2 +spare +-\n`, "agent", "ls")
	d = x.start("err", dispatch...)
	d.line("dispatcher runs")
	if out := x.ok("agent", "ls", "-q", "default", "--json"); out != "[]\n" {
		t.Errorf("removed agents are back: %s", out)
	}
	d.stop(syscall.SIGTERM)
	contains(t, x.ok("dispatcher", "rm", "2b70"), "dispatcher "+id+" removed, with its agents")
	if out := x.ok("dispatcher", "ls", "--json") + x.ok("agent", "ls", "--json"); out != "[]\n[]\n" {
		t.Errorf("removed: %s", out)
	}
}

// TestPrefix: a prefix that is that of several stands for none of them.
func TestPrefix(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	const first, second = "2b708999-3bfb-46af-8b52-9417daf66d66", "2b708999-3bfb-46af-8b52-9417daf66d67"
	for _, id := range []string{first, second} {
		d := x.start("err", "dispatch", "--handle", "a=cat", "--uuid", id, "--agent", "name=main")
		d.line("dispatcher runs")
		d.stop(syscall.SIGTERM)
	}
	r := x.run("", "agent", "set", "2b708999", "main", "--size", "2")
	if r.code != exitUsage {
		t.Errorf("%+v", r)
	}
	contains(t, r.err, "dispatcher 2b708999: may be any of "+first+", "+second+": give more of its UUID")
}

func TestQueuePause(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	contains(t, x.ok("queue", "resume"), "queue default: nothing is paused\n")
	contains(t, x.ok("queue", "pause", "--task", "b"), "queue default: task b is paused\n")
	contains(t, x.ok("queue", "pause", "default", "--task", "a"), "queue default: tasks a, b are paused\n")
	d := x.start("err", "dispatch", "--handle", "a=cat", "--handle", "b=cat", "--handle", "c=cat")
	d.line("tasks are paused")
	x.ok("put", "a", "1", "--id", "a")
	if out := x.ok("put", "c", "2", "--wait"); out != "2\n" {
		t.Error(out)
	}
	contains(t, x.ok("job", "show", "a"), "state       pending")
	contains(t, x.ok("queue", "ls"), "  PAUSED\n", "  a, b\n")
	contains(t, x.until("0 of 3  ", "queue", "info", "default"), "\ntasks a, b are paused\n", "  1  paused\n")
	contains(t, x.ok("queue", "pause"), "queue default: it is paused: no jobs are taken; besides tasks a, b are paused\n")
	d.line("queue is paused")
	contains(t, x.ok("queue", "ls"), "  yes\n")
	x.until("0 of 3, paused", "queue", "info", "default")
	var shown queueView
	x.json(&shown, "queue", "info", "default")
	if diff := cmp.Diff(pauses{Paused: true, PausedTasks: []string{"a", "b"}}, shown.pauses); diff != "" || shown.Name != "default" {
		t.Errorf("%+v\n%s", shown, diff)
	}
	contains(t, x.ok("queue", "resume"), "queue default: tasks a, b are paused\n")
	contains(t, x.ok("queue", "resume", "--task", "a"), "queue default: task b is paused\n")
	if out := x.ok("job", "wait", "a"); out != "1\n" {
		t.Error(out)
	}
	contains(t, x.ok("queue", "resume", "--task", "b"), "queue default: nothing is paused\n")
	if out := x.ok("queue", "ls"); strings.Contains(out, "PAUSED") {
		t.Error(out)
	}
}

// TestDispatchTwice: of two processes with one UUID file the second takes no job
// until the first is gone.
func TestDispatchTwice(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	x.env = append(x.env, "ASYNCNATS_UUID="+filepath.Join(x.dir, "same.uuid"))
	dispatch := []string{"dispatch", "--handle", "who=echo $PPID", "--ping-interval", "500ms"}
	first := x.start("err", dispatch...)
	first.line("dispatcher runs")
	text, err := os.ReadFile(filepath.Join(x.dir, "same.uuid"))
	if err != nil {
		t.Fatal(err)
	}
	id, _, _ := strings.Cut(string(text), "\n")
	contains(t, x.ok("dispatcher", "ls"), id)
	second := x.start("err", dispatch...)
	contains(t, second.line("this UUID is active already"), id, "level=ERROR")
	performers := x.ok("put", "who", "1", "2", "3", "4", "--wait")
	if want := strings.Repeat(strconv.Itoa(first.Process.Pid)+"\n", 4); performers != want {
		t.Errorf("performed by %s, want %s", performers, want)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.end()
	second.line("dispatcher runs")
	if got := x.ok("put", "who", "--wait"); got != strconv.Itoa(second.Process.Pid)+"\n" {
		t.Errorf("performed by %s", got)
	}
	if code := second.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit %d", code)
	}
}
