//go:build unix

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// Jobs that failed are listed, shown, put again and removed.
func TestDead(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	if r := x.run("", "dead", "ls"); r.code != exitOK || r.out != "" {
		t.Errorf("none: %+v", r)
	}
	dispatch := func() *process {
		d := x.start("err", "dispatch", "--handle", `fail=echo "no harbour" >&2; exit 7`, "--handle", "sink=exit 3", "--handle", "fine=cat")
		d.line("dispatcher runs")
		return d
	}
	d := dispatch()
	for i, task := range []string{"fail", "sink", "fail", "fine", "sink"} {
		x.run("", "put", task, `{"port":7}`, "--wait", "--id", fmt.Sprint("job-", i))
	}
	ids := func(args ...string) (list string) {
		t.Helper()
		var views []deadView
		x.json(&views, append([]string{"dead", "ls"}, args...)...)
		for _, v := range views {
			list += strings.TrimPrefix(v.ID.String(), "job-")
		}
		return list
	}
	for flags, want := range map[string]string{
		"": "4210", "--task fail": "20", "--task *": "4210", "--error harbour": "20", "--kind error": "4210", "--kind panic": "",
		"--since 1h": "4210", "--until 1h": "", "--limit 1": "4",
	} {
		if got := ids(strings.Fields(flags)...); got != want {
			t.Errorf("dead ls %s: jobs %q, want %q", flags, got, want)
		}
	}
	contains(t, x.ok("dead", "ls"), "JOB ", "job-4  sink", "exit status 7: no harbour")
	contains(t, x.run("", "dead", "ls", "--limit", "1").err, "there may be more")
	contains(t, x.ok("dead", "show", "job-0"), "job         job-0", `argument    {"port":7}`, "errors      1", "ATTEMPT", "exit status 7: no harbour")
	contains(t, x.run("", "dead", "show", "job-0").err, "asyncnats dead retry job-0\n")
	contains(t, x.run("", "job", "show", "job-0").err, "asyncnats dead show job-0\n")
	if r := x.run("", "job", "show", "job-3"); strings.Contains(r.err, "dead") {
		t.Errorf("a job that succeeded: %+v", r)
	}

	for _, args := range [][]string{
		{"retry"}, {"rm"}, {"retry", "job-0", "--all"}, {"rm", "--task", "fail", "--all"}, {"rm", "job-0", "--error", "x"},
		{"ls", "--limit", "0"}, {"ls", "--since=-1h"}, {"rm", "--until", "x"},
		{"ls", "--kind", "cancelled"}, {"rm", "--task", "a b"},
	} {
		if r := x.run("", append([]string{"dead"}, args...)...); r.code != exitUsage {
			t.Errorf("dead %q: %+v, want exit code %d", args, r, exitUsage)
		}
	}
	for _, args := range [][]string{{"show", "none"}, {"rm", "none"}, {"retry", "none"}, {"ls", "--queue", "none"}} {
		if r := x.run("", append([]string{"dead"}, args...)...); r.code != exitNotFound || r.out != "" {
			t.Errorf("dead %q: %+v, want exit code %d", args, r, exitNotFound)
		}
	}

	d.stop(os.Interrupt)
	if out := x.ok("dead", "retry", "--task", "fail"); out != "2 jobs put again\n" {
		t.Errorf("retry: %s", out)
	}
	x.ok("put", "sink", "--id", "job-1")
	r := x.run("", "dead", "retry", "job-1", "job-4")
	if r.code != exitFailed || r.out != "1 job put again\n" || !strings.Contains(r.err, "retry job job-1: put sink: job job-1 in queue default: a job with this ID exists") {
		t.Errorf("one of them taken: %+v", r)
	}
	if got := ids(); got != "1" {
		t.Errorf("left %q, want 1", got)
	}
	dispatch()
	for _, id := range []string{"job-0", "job-1", "job-2", "job-4"} {
		x.run("", "job", "wait", id, "--timeout", "10s")
	}
	if out := x.ok("job", "retry", "job-4"); out != "1 job put again\n" {
		t.Errorf("job retry: %s", out)
	}
	x.run("", "job", "wait", "job-4", "--timeout", "10s")
	if r := x.run("", "dead", "rm", "job-0", "none"); r.code != exitNotFound || r.out != "1 failed job removed\n" {
		t.Errorf("%+v", r)
	}
	if out := x.ok("dead", "rm", "--error", "harbour"); out != "1 failed job removed\n" {
		t.Errorf("%s", out)
	}
	if out := x.ok("dead", "rm", "--all"); out != "2 failed jobs removed\n" {
		t.Errorf("%s", out)
	}
	if got := ids(); got != "" {
		t.Errorf("left %q", got)
	}
}
