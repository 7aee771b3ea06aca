//go:build unix

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// TestCompositions puts compositions and callbacks from the command line, and shows
// their trees.
func TestCompositions(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.write("fail.sh", failScript)
	x.ok("queue", "add", "default")
	d := x.start("err", "dispatch", "--log-format", "json", "--handle", "shout=tr a-z A-Z", "--handle", "fail=sh fail.sh",
		"--handle", "join=tr -d '\\n'", "--handle", "heard=cat")
	d.line("dispatcher runs")

	r := x.run("", "put", "shout", `"a"`, `"b"`, "--parallel", "--wait")
	if r.code != exitOK || r.out != `[{"result":"A"},{"result":"B"}]`+"\n" {
		t.Errorf("parallel: %+v", r)
	}
	r = x.run("", "put", "fail", "1", "2", "--serial", "--then", "join", "--on-success", "heard", "--id", "whole", "--wait")
	if r.code != exitOK || strings.Count(r.out, `"cannot open thing"`)+strings.Count(r.out, "exit status 7: cannot open thing") != 2 {
		t.Errorf("serial: %+v", r)
	}
	tree := x.until("(?s)then  completed.*on success:  heard  completed", "job", "tree", "whole")
	for _, line := range []string{
		`(?m)^.─ then  completed  2 of 2 parts  \S+  whole$`,
		`(?m)^   ├─ serial  completed  2 of 2 parts  \S+  part/`,
		`(?m)^   │  ├─ fail  completed  failed \(exit status 7: cannot open thing\)  \S+  part/`,
		`(?m)^   ├─ join  completed  \S+  part/`,
		`(?m)^   ╰─ on success:  heard  completed  \S+  callback/|(?m)^   └─ on success:  heard  completed  \S+  callback/`,
	} {
		if !regexp.MustCompile(line).MatchString(tree) {
			t.Errorf("no line like %s in\n%s", line, tree)
		}
	}
	contains(t, x.ok("job", "tree", "whole", "--limit", "1"), "… and 1 more (--limit)")
	var node asyncnats.Node
	x.json(&node, "job", "tree", "whole")
	if node.State != job.Completed || len(node.Parts) != 2 || len(node.Parts[0].Parts) != 2 || len(node.Callbacks) != 1 {
		t.Errorf("tree: %+v", node)
	}
	contains(t, x.ok("job", "show", "whole"), "2 of 2")
	contains(t, x.ok("put", "shout", `"a"`, `"b"`, "--parallel", "--json"), `"task": "parallel"`)

	if r := x.run("", "put", "fail", "1", "--on-failure", "heard", "--on-done", "heard", "--id", "alone", "--wait"); r.code != exitJobFailed {
		t.Errorf("failure: %+v", r)
	}
	x.until("on any:  heard  completed", "job", "tree", "alone")
	x.until("on failure:  heard  completed", "job", "tree", "alone")

	r = x.run("", "put", "fail", "1", "--then", "join", "--id", "broken", "--wait")
	if r.code != exitJobFailed {
		t.Errorf("failure: %+v", r)
	}
	if r := x.run("", "job", "show", "broken"); r.code != exitOK || strings.Contains(r.err, "dead show") {
		t.Errorf("a whole that failed is not among the dead: %+v", r)
	}
	for _, task := range []string{"shout", "join"} {
		x.ok("put", task, `"a"`, "--then", "join", "--unique", "main", "--in", "1h")
		if r := x.run("", "put", task, `"a"`, "--then", "join", "--unique", "main", "--in", "1h"); r.code != exitFailed {
			t.Errorf("a second of its task and key: %+v", r)
		}
	}

	for want, args := range map[string][]string{
		"give it to its parts": {"put", "shout", "1", "--parallel", "--then", "join", "--id", "a b"},
		"unknown quota":        {"put", "shout", "1", "--parallel", "--quota", "nothing"},
		"no such job":          {"job", "tree", "nothing"},
		"--limit":              {"job", "tree", "whole", "--limit", "-1"},
	} {
		r := x.run("", args...)
		if r.code == exitOK {
			t.Errorf("%q: %+v", args, r)
		}
		if want != "give it to its parts" {
			contains(t, r.err, want)
		}
	}
}

// TestTreeOfPartsWithoutRecord says what is known of parts that have no record.
func TestTreeOfPartsWithoutRecord(t *testing.T) {
	serial := asyncnats.Node{
		ID: "whole", Queue: "default", Task: "serial", State: job.Waiting, Count: 3, Done: 1, Parts: []asyncnats.Node{
			{ID: "p0", Queue: "default", Task: "shout", State: job.Completed},
			{ID: "p1", Queue: "default", State: job.Pending},
			{ID: "p2", Queue: "default", State: job.Pending},
		},
	}
	var out strings.Builder
	printTree(&out, serial)
	for _, want := range []string{"├─ shout  completed  p0", "├─ pending or running  p1", "└─ not put yet  p2"} {
		contains(t, out.String(), want)
	}
	parallel := serial
	parallel.Task = "parallel"
	out.Reset()
	printTree(&out, parallel)
	contains(t, out.String(), "└─ pending or running  p2")
	serial.State = job.Completed
	out.Reset()
	printTree(&out, serial)
	contains(t, out.String(), "└─ never put  p2")
}
