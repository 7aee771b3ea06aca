//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// TestBroadcasts puts broadcasts from the command line, and shows what each dispatcher
// replied.
func TestBroadcasts(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.write("fail.sh", failScript)
	contains(t, x.ok("queue", "add", "fleet", "--broadcast", "--grace", "5s"), "queue fleet created")
	if r := x.run("", "queue", "add", "fleet"); r.code == exitOK || !strings.Contains(r.err, "of kind broadcast") {
		t.Errorf("ordinary queue of that name: %+v", r)
	}
	contains(t, x.ok("queue", "add", "fleet", "--broadcast"), "queue fleet exists already")
	if r := x.run("", "queue", "add", "fleet", "--broadcast", "--grace", "6s"); r.code != exitFailed || !strings.Contains(r.err, "exists, with grace 5s, ack wait 15s") {
		t.Errorf("with another grace: %+v", r)
	}
	if r := x.run("", "put", "shout", `"a"`, "--queue", "fleet", "--then", "heard"); r.code != exitUsage || !strings.Contains(r.err, "queue fleet is a broadcast queue") {
		t.Errorf("then: %+v", r)
	}
	if r := x.run("", "put", "shout", `"a"`, "--queue", "fleet", "--wait"); r.code != exitOK || !strings.Contains(r.err, "nobody performed it") {
		t.Errorf("to nobody: %+v", r)
	}
	for _, name := range []string{"first", "second"} {
		x.env = append(x.env, "ASYNCNATS_UUID="+name+".uuid")
		d := x.start("err", "dispatch", "--log-format", "json", "--handle", "shout=tr a-z A-Z", "--handle", "fail=sh fail.sh", "--handle", "heard=cat")
		d.line("dispatcher runs")
	}
	x.until(`"A"`, "put", "shout", `"a"`, "--queue", "fleet", "--wait")
	out := ""
	for strings.Count(out, "\n") < 2 {
		out = x.ok("put", "shout", `"a"`, "--queue", "fleet", "--wait")
	}
	if strings.Count(out, `  "A"`) != 2 {
		t.Errorf("replies:\n%s", out)
	}
	replies := 0
	for lines := bufio.NewScanner(strings.NewReader(x.ok("put", "shout", `"b"`, "--queue", "fleet", "--wait", "--json"))); lines.Scan(); {
		var reply copyReply
		if err := json.Unmarshal(lines.Bytes(), &reply); err != nil || string(reply.Result) != `"B"` || len(reply.Dispatcher) != 36 {
			t.Errorf("%s: %v", lines.Text(), err)
		}
		replies++
	}
	if replies != 2 {
		t.Errorf("%d replies in JSON, want 2", replies)
	}
	r := x.run("", "put", "fail", "1", "--queue", "fleet", "--wait")
	if r.code != exitJobFailed || strings.Count(r.out, "failed: exit status 7: cannot open thing") != 2 || !strings.Contains(r.err, "2 of 2 dispatchers failed") {
		t.Errorf("failures: %+v", r)
	}
	if out := x.ok("put", "shout", `"c"`, `"d"`, "--queue", "fleet", "--parallel", "--wait"); strings.Count(out, `"C"`) != 2 || strings.Count(out, `"D"`) != 2 {
		t.Errorf("two in parallel: %s", out)
	}
	x.ok("put", "shout", `"e"`, "--queue", "fleet", "--on-success", "heard", "--id", "told")
	x.until("on success:  heard  completed", "job", "tree", "told", "--queue", "fleet")
	contains(t, x.ok("queue", "info", "fleet"), "broadcast")
}
