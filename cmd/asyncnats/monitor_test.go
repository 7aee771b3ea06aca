//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

const (
	firstUUID  = "6f1c9a52-3d0e-4b5b-9a7e-2f3f1f6a1c01"
	secondUUID = "6f1cffff-58a6-4a8e-8a43-0c6a4f0d2e02"
)

func TestMonitor(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	open := x.barrier("proceed")
	x.write("fail.sh", failScript)
	x.ok("queue", "add", "default")
	x.ok("quota", "create", "gpu")
	const nobody = "no dispatcher answers in namespace async: start one (asyncnats dispatch)\n"
	if r := x.run("", "monitor", "status"); r.code != exitOK || r.out != "" || r.err != nobody {
		t.Errorf("nobody: %+v", r)
	}
	if out := x.ok("monitor", "polls", "--json"); out != "{}\n" {
		t.Errorf("nobody: %s", out)
	}
	if r := x.run("", "monitor", "job", "x"); r.code != exitNotFound || r.err != "asyncnats: job x: "+nobody {
		t.Errorf("nobody: %+v", r)
	}
	var ds []*process
	for uuid, task := range map[string]string{firstUUID: "shout=tr a-z A-Z", secondUUID: "wait=cat proceed"} {
		d := x.start("err", "dispatch", "--uuid", uuid, "--handle", task, "--handle", "fail=sh fail.sh", "--agent", "name=main,size=2")
		d.line("dispatcher runs")
		ds = append(ds, d)
	}
	x.ok("put", "wait", "1", "--id", "active", "--quota", "gpu")
	x.ok("put", "shout", `{"text":"hello"}`, "--id", "done", "--wait")
	if r := x.run("", "put", "fail", "--id", "bad", "--wait"); r.code != exitJobFailed {
		t.Errorf("%+v", r)
	}

	var status map[string]dispatcher.Status
	for range 200 {
		status = nil
		if x.json(&status, "monitor", "status"); len(status) == 2 {
			break
		}
	}
	if len(status) != 2 || status[firstUUID].State != dispatcher.StateRunning || status[secondUUID].UUID != secondUUID {
		t.Errorf("%+v", status)
	}
	x.until(`DISPATCHER +HOST +PID +STATUS +UPTIME +LAST POLL +INTERVAL\n`+
		firstUUID+` +\S+ +\d+ +RUNNING +\S+s +\S+s ago +5s\n`+secondUUID+` `, "monitor", "status")
	if out := x.until("RUNNING", "monitor", "status", firstUUID[:8]); strings.Count(out, "RUNNING") != 1 || !strings.Contains(out, firstUUID) {
		t.Errorf("one: %s", out)
	}

	x.until(`^JOB +QUEUE +TASK +ATTEMPT +FOR +AGENT +DISPATCHER\nactive +default +wait +1 +\S+ +main +`+secondUUID+`\n$`, "monitor", "jobs")
	if r := x.run("", "monitor", "jobs", "--agent", "none"); r.code != exitOK || r.out != "" || r.err != "no such jobs are performed now\n" {
		t.Errorf("no jobs: %+v", r)
	}
	x.until(`^{\n  "`+secondUUID+`": \[\]\n}\n$`, "monitor", "jobs", secondUUID, "--queue", "none", "--json")

	x.until(`^dispatcher `+firstUUID+` on \S+, pid \d+\njob +done\nqueue +default\nagent +main\n`+
		`call +shout\(\{"text":"hello"\}\)\nattempt +1\nstarted +\S+ \S+\n(poll +\d+\n)?completed +\S+ \S+, after \S+\nresult +\{"TEXT":"HELLO"\}\n$`, "monitor", "job", "done")
	x.until(`\nfailure +exit status 7: cannot open thing\n`, "monitor", "job", "bad")
	x.until(`(?s)\nquotas +gpu\n.*\nactive +for \S+\n$`, "monitor", "job", "active")
	infos := make(map[string]dispatcher.JobInfo)
	if err := json.Unmarshal([]byte(x.until("{", "monitor", "job", "bad", "--json")), &infos); err != nil || len(infos) != 1 {
		t.Errorf("%+v %v", infos, err)
	}

	// Until the poll that shows all three as new.
	var stats map[string]dispatcher.JobStats
	for range 100 {
		stats = nil
		x.json(&stats, "monitor", "jobstats", "--agent", "main", "--since", "1h")
		if stats[firstUUID].Started+stats[secondUUID].Started == 3 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if f, s := stats[firstUUID], stats[secondUUID]; f.Successful != 1 || f.Failed+s.Failed != 1 || s.LongestActive == nil || s.LongestActive.ID != "active" {
		t.Errorf("%+v", stats)
	}
	x.until(`\nstatistics +\S+ \S+ to \S+ \S+\nstarted +[12]\nsuccessful +1\nfailed +[01]\nunknown +0\n(?s:.*)`+
		`\nshortest successful \S+s, job done of queue default\n$`, "monitor", "jobstats", firstUUID)
	x.until(`\nno polls of that time\n$`, "monitor", "jobstats", firstUUID, "--before", "1h")

	// The last poll is another one by now.
	x.until(`\n\npoll \d, \S+ \S+\n(?s:.*)`+
		`\nQUEUE +AGENT +BUSY +STARTED +ACTIVE JOBS +NEW JOBS\ndefault +main +1 of 2 +[12] +active +active(?s:.*)`+
		`\n\npoll 1, \S+ \S+\nno agents\n$`, "monitor", "polls", secondUUID, "--count", "400")
	var poll map[string]dispatcher.Poll
	asked := x.until(secondUUID, "monitor", "poll", "--queue", "default", "--at", time.Now().Format(time.RFC3339Nano), "--json")
	if err := json.Unmarshal([]byte(asked), &poll); err != nil {
		t.Fatal(err)
	}
	if a := poll[secondUUID].Results["default"]["main"]; a.Len != 1 || a.Size != 2 {
		t.Errorf("%+v", poll)
	}
	x.until(` pid \d+\n\npoll \d`, "monitor", "poll", secondUUID)

	t.Run("errors", func(t *testing.T) {
		for _, row := range []struct {
			args string
			code int
			text string
		}{
			{"job none", exitNotFound, `asyncnats: job "none": not remembered: a dispatcher knows`},
			{"job a b", exitUsage, "must be a UUID"},
			{"job a*b", exitUsage, "illegal job ID"},
			{"job", exitUsage, `expected "<id>`},
			{"status 0000", exitNotFound, "no dispatcher 0000 answers in namespace async"},
			{"job done --namespace other", exitNotFound, "job done: no dispatcher answers in namespace other"},
			{"status --namespace UPPER", exitUsage, "illegal namespace"},
			{"status x", exitUsage, "must be a UUID, or at least the first 4 characters"},
			{"status 6f1c", exitUsage, "may be " + firstUUID + " or " + secondUUID},
			{"poll --at 1h --before 1h", exitUsage, "--at and --before can't be used together"},
			{"poll --before 1h", exitNotFound, "poll: not remembered"},
			{"polls --since yesterday", exitUsage, "must be a time like 2026-01-02T15:04:05Z"},
			{"polls --count 0", exitUsage, "must be from 1 to 400"},
			{"polls --count 401", exitUsage, "must be from 1 to 400"},
			{"status --server nats://127.0.0.1:1", exitUnreachable, "no server answers"},
		} {
			var r result
			for range 20 { // as until
				if r = x.run("", append([]string{"monitor"}, strings.Fields(row.args)...)...); r.code == row.code {
					break
				}
			}
			if r.code != row.code || r.out != "" || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, row.text) {
				t.Errorf("%s: %+v, want exit %d with %q", row.args, r, row.code, row.text)
			}
		}
	})
	t.Run("halted", func(t *testing.T) {
		if err := ds[0].Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer ds[0].Process.Signal(syscall.SIGCONT)
		if out := x.ok("monitor", "status"); strings.Count(out, "RUNNING") != 1 {
			t.Errorf("%s", out)
		}
		if err := ds[1].Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer ds[1].Process.Signal(syscall.SIGCONT)
		if r := x.run("", "monitor", "status", "--timeout", "500ms"); r.code != exitNotFound || !strings.Contains(r.err, "do not answer") {
			t.Errorf("both: %+v", r)
		}
	})
	open()
	for _, d := range ds {
		if code := d.stop(syscall.SIGTERM); code != exitOK {
			t.Errorf("dispatch: exit %d", code)
		}
	}
	if r := x.run("", "monitor", "status"); r.err != nobody {
		t.Errorf("stopped: %+v", r)
	}
}

// What is shown of what some dispatchers answered and others did not.
func TestVerdict(t *testing.T) {
	forgotten := fmt.Errorf("dispatcher a: %w", &refusal{dispatcher.CodeForgotten, "unknown"})
	late, refused := errors.New("late"), fmt.Errorf("dispatcher b: %w", &refusal{dispatcher.CodeBadQuery, "bad"})
	tooLarge := &refusal{dispatcher.CodeTooLarge, "too large"}
	for _, row := range []struct {
		name     string
		answered int
		errs     []error
		code     int
		text     string
	}{
		{"nobody was asked", 0, nil, exitOK, ""},
		{"all know", 2, nil, exitOK, ""},
		{"one knows", 1, []error{forgotten}, exitOK, ""},
		{"none knows", 0, []error{forgotten, forgotten}, exitNotFound, "unknown"},
		{"one does not answer", 1, []error{late}, exitFailed, "late"},
		{"one that may know does not answer", 0, []error{forgotten, late}, exitFailed, "late"},
		{"refused", 0, []error{late, refused}, exitUsage, "dispatcher b: bad"},
		{"too large", 1, []error{tooLarge}, exitFailed, "too large"},
	} {
		err := verdict(row.answered, row.errs)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if code(err) != row.code || text != row.text {
			t.Errorf("%s: exit %d, %q", row.name, code(err), text)
		}
	}
}

func TestPrintStatus(t *testing.T) {
	second := new(stream.Duration(time.Second))
	from := respondent{UUID: "u", Host: "h", PID: "1"}
	running := dispatcher.Status{State: dispatcher.StateRunning, UUID: "u", PollInterval: stream.Duration(5 * time.Second), SinceLastPoll: second, Uptime: second}
	pauses, suspended := running, running
	pauses.Paused = []dispatcher.Pause{{Queue: "media"}, {Queue: "mail", Task: "mail.send"}, {Queue: "mail", Agent: "main"}}
	suspended.Suspended, suspended.State = true, dispatcher.StateStuck
	var out bytes.Buffer
	printStatus(&app{out: &out}, []reply[dispatcher.Status]{{from: from, answer: running}, {from: from, answer: pauses}, {from: from, answer: suspended}})
	const want = `
DISPATCHER  HOST  PID  STATUS   UPTIME  LAST POLL  INTERVAL  TAKES NO JOBS OF
u           h       1  RUNNING      1s     1s ago        5s
u           h       1  RUNNING      1s     1s ago        5s  media, mail: mail.send, mail: agent main
u           h       1  STUCK        1s     1s ago        5s  any queue: suspended
`
	if diff := cmp.Diff(want[1:], out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPrintJobInfo(t *testing.T) {
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	info := dispatcher.JobInfo{
		ActiveJob: dispatcher.ActiveJob{ID: "x", Queue: "media", Agent: "main", Attempt: 2, Started: started}, Call: "image.thumbnail()",
		Completed: new(started.Add(time.Second)), PollID: new(7),
	}
	lost, failed := info, info
	lost.Reassigned = true
	failed.Failed, failed.Result = true, new("panic: oops\nmain.go:7")
	var out bytes.Buffer
	for _, each := range []dispatcher.JobInfo{info, lost, failed} {
		printJobInfo(&app{out: &out}, []reply[dispatcher.JobInfo]{{from: respondent{UUID: "u", Host: "h", PID: "1"}, answer: each}})
	}
	const same = `dispatcher u on h, pid 1
job                 x
queue               media
agent               main
call                image.thumbnail()
attempt             2
started             2026-01-02 03:04:05
poll                7
completed           2026-01-02 03:04:06, after 1s
`
	want := same + "result              none: it was handed back\n" + same + "reassigned          its lease was lost: another attempt has it, or will\n" +
		same + "failure             panic: oops\n                    main.go:7\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPrintPoll(t *testing.T) {
	poll := dispatcher.Poll{Key: 7, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local), Results: dispatcher.PollResults{
		"media": {"main": {Size: 9, Len: 3, ActiveJobs: []job.ID{"a", "b", "c"}, Started: 4, NewJobs: []job.ID{"c", "d", "e", "f"}}, "idle": {Size: 1, Paused: true}},
		"mail":  {"main": {Size: 2, Error: "lane lost", Started: 2, NewJobs: []job.ID{"x", "y"}}},
	}}
	var out bytes.Buffer
	printPoll(&out, poll)
	const want = `
poll 7, 2026-01-02 03:04:05
QUEUE  AGENT  BUSY    STARTED  ACTIVE JOBS     NEW JOBS
mail   main   0 of 2        2                  x y             lane lost
media  idle   0 of 1        0                                  paused
media  main   3 of 9        4  a b and 1 more  c d and 2 more
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// A dispatcher may be named by how its UUID begins.
func TestWhom(t *testing.T) {
	var w whom
	for text, legal := range map[string]bool{firstUUID: true, strings.ToUpper(firstUUID): true, "6f1c": true, "6f1": false, "": false, "none": false, "6f1c9a52-": true} {
		if err := w.UnmarshalText([]byte(text)); legal != (err == nil) || legal && string(w) != strings.ToLower(text) {
			t.Errorf("%q: %q %v", text, w, err)
		}
	}
	if data, err := json.Marshal(dispatcher.Query{}); err != nil || string(data) != "{}" {
		t.Errorf("empty query: %s %v", data, err)
	}
}
