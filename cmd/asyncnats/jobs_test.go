//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

const failScript = `
cat >/dev/null
echo result that does not count
echo "cannot open thing" >&2
exit 7
`

func TestJobs(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.write("fail.sh", failScript)
	contains(t, x.ok("queue", "add", "default"), "queue default created")
	contains(t, x.ok("queue", "add", "default"), "exists already")
	if r := x.run("", "queue", "add", "default", "--ack-wait", "5s"); r.code != exitFailed {
		t.Errorf("other ack wait: %+v", r)
	}
	x.ok("put", "nobody", "1", "--id", "stays")
	d := x.start("err", "dispatch", "--log-format", "json", "--handle", "shout=tr a-z A-Z",
		"--handle", "fail=sh fail.sh", "--handle", "env=env", "--agent", "name=main,size=2,filter=shout|fail|env")
	d.line("dispatcher runs")

	t.Run("results", func(t *testing.T) {
		for _, row := range []struct {
			name, in, want string
			args           []string
		}{
			{"argument", "", `"HELLO"`, []string{`"hello"`}},
			{"stdin", `{"a": [1]}`, `{"A":[1]}`, []string{"-"}},
			{"stdin, unasked", " \"x\"\n", `"X"`, nil},
			{"none", "", "null", nil},
			{"several", "", "\"A\"\n\"B\"", []string{`"a"`, `"b"`}},
			{"count", "", "\"A\"\n\"A\"", []string{`"a"`, "--count", "2"}},
			{"negative", "", "-5", []string{"--", "-5"}},
		} {
			r := x.run(row.in, append([]string{"put", "--wait", "shout"}, row.args...)...)
			if r.code != exitOK || r.out != row.want+"\n" {
				t.Errorf("%s: %+v, want %s", row.name, r, row.want)
			}
		}
	})
	t.Run("environment", func(t *testing.T) {
		contains(t, x.ok("put", "env", "--wait", "--id", "this"), "ASYNCNATS_JOB=this", "ASYNCNATS_QUEUE=default",
			"ASYNCNATS_TASK=env", "ASYNCNATS_ATTEMPT=1", "ASYNCNATS_AGENT=main", "ASYNCNATS_DISPATCHER=")
	})
	t.Run("failure", func(t *testing.T) {
		r := x.run("", "put", "fail", "1", "--wait", "--id", "failed")
		if r.code != exitJobFailed || r.out != "" {
			t.Errorf("%+v", r)
		}
		contains(t, r.err, "job failed failed: exit status 7: cannot open thing")
		if r := x.run("", "put", "fail", "1", "2", "--wait", "--json"); r.code != exitJobFailed {
			t.Errorf("several: %+v", r)
		}
		if r := x.run("", "job", "wait", "failed"); r.code != exitJobFailed {
			t.Errorf("job wait: %+v", r)
		}
		contains(t, x.ok("job", "show", "failed"), "completed: failed", "cannot open thing")
		var shown view
		x.json(&shown, "job", "show", "failed")
		if shown.Record == nil || shown.Record.Outcome.Failure.Message != "exit status 7: cannot open thing" {
			t.Errorf("%+v", shown)
		}
	})
	t.Run("later", func(t *testing.T) {
		id := strings.TrimSpace(x.ok("put", "shout", `"later"`))
		if out := x.ok("job", "wait", id, "--timeout", "5s"); out != "\"LATER\"\n" {
			t.Errorf("job wait printed %s", out)
		}
		var waited awaited
		x.json(&waited, "job", "wait", id)
		var shown view
		x.json(&shown, "job", "show", id)
		if string(waited.Result) != `"LATER"` || string(shown.Result) != `"LATER"` || shown.State != job.Completed {
			t.Errorf("%+v %+v", waited, shown)
		}
		contains(t, x.ok("job", "show", id), "result      \"LATER\"", "agent       main")
	})
	t.Run("lists", func(t *testing.T) {
		var pending, all []view
		x.json(&pending, "job", "ls", "--state", "pending")
		x.json(&all, "job", "ls", "--limit", "5")
		if len(pending) != 1 || pending[0].ID != "stays" || string(pending[0].Arg) != "1" || len(all) != 5 {
			t.Errorf("%+v %+v", pending, all)
		}
		contains(t, x.ok("job", "ls"), "stays", "completed", "completed: failed", "exit status 7")
		var infos []asyncnats.QueueInfo
		x.json(&infos, "queue", "ls")
		var info asyncnats.QueueInfo
		for range 200 {
			if x.json(&info, "queue", "info", "default"); len(info.Dispatchers) == 1 {
				break
			}
		}
		if len(infos) != 1 || infos[0].Messages != 1 || len(info.Dispatchers) != 1 || len(info.Lanes) != 4 {
			t.Errorf("%+v %+v", infos, info)
		}
		contains(t, x.ok("queue", "ls"), "default")
		out := x.until("0 of 2 .*env, fail, shout", "queue", "info", "default")
		contains(t, out, "1 job,", "nobody        1         0          0  no dispatcher takes this task")
	})
	t.Run("ID taken", func(t *testing.T) {
		r := x.run("", "put", "nobody", "2", "--id", "stays")
		if r.code != exitFailed {
			t.Errorf("%+v", r)
		}
		contains(t, r.err, "job stays in queue default", "it is pending, of task nobody", "by asyncnats CLI put")
		r = x.run("", "job", "wait", "stays", "--timeout", "200ms")
		if r.code != exitFailed {
			t.Errorf("%+v", r)
		}
		contains(t, r.err, "job stays is not completed yet")
	})
	t.Run("fence", func(t *testing.T) {
		x.ok("quota", "create", "a-lock")
		contains(t, x.ok("put", "env", "--wait", "--quota", "a-lock"), "ASYNCNATS_FENCE_a_lock=")
	})
	t.Run("priority", func(t *testing.T) {
		if strings.Contains(x.ok("queue", "info", "default")+x.ok("job", "ls"), "PRIORITY") {
			t.Error("a column of priorities where all are normal")
		}
		x.ok("put", "shout", `"now"`, "--priority", "high", "--id", "urgent", "--wait")
		x.ok("put", "shout", `"then"`, "--priority", "normal", "--id", "usual", "--wait")
		var urgent, usual view
		x.json(&urgent, "job", "show", "urgent")
		x.json(&usual, "job", "show", "usual")
		if urgent.Priority != job.High || urgent.State != job.Completed || usual.Priority != job.Normal {
			t.Errorf("%+v %+v", urgent, usual)
		}
		contains(t, x.ok("job", "show", "urgent"), "priority    high")
		contains(t, x.ok("job", "ls"), "PRIORITY", "shout   high      completed")
		contains(t, x.ok("queue", "info", "default"), "PRIORITY", "shout           high")
		contains(t, x.ok("monitor", "job", "urgent"), "priority            high")
		for _, out := range []string{x.ok("job", "show", "usual"), x.ok("monitor", "job", "usual"), x.ok("job", "show", "usual", "--json")} {
			if strings.Contains(out, "priority") {
				t.Errorf("a normal priority is shown: %s", out)
			}
		}
	})
	t.Run("remove", func(t *testing.T) {
		r := x.run("", "queue", "rm", "default")
		if r.code != exitFailed {
			t.Errorf("%+v", r)
		}
		contains(t, r.err, "queue default has 1 job that would be lost", "--force")
		var put struct{ ID, Queue, Task string }
		x.json(&put, "put", "nobody", "3")
		var puts []struct{ ID, Queue, Task string }
		x.json(&puts, "put", "nobody", "3", "--count", "3")
		if put.ID == "" || put.Task != "nobody" || len(puts) != 3 {
			t.Errorf("%+v %+v", put, puts)
		}
	})
	if code := d.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("dispatch: exit %d", code)
	}
	x.ok("queue", "rm", "default", "--force")
	if out := x.ok("queue", "ls", "--json"); out != "[]\n" {
		t.Errorf("queue ls --json: %s", out)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	x.ok("quota", "create", "one")
	const nowhere = "nats://name:secret@127.0.0.1:1"
	const nobody = "2b708999-3bfb-46af-8b52-9417daf66d66"
	x.ok("agent", "add", nobody, "there")
	if err := os.Mkdir(filepath.Join(x.dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"no command", nil, exitUsage, "asyncnats: expected one of"},
		{"unknown command", []string{"nonsense"}, exitUsage, "see asyncnats --help"},
		{"unknown flag", []string{"put", "a", "--nonsense"}, exitUsage, "unknown flag --nonsense: see asyncnats put --help"},
		{"no task", []string{"put"}, exitUsage, `expected "<task>`},
		{"illegal task", []string{"put", "a..b"}, exitUsage, "illegal task name"},
		{"illegal queue", []string{"queue", "add", "a.b"}, exitUsage, "illegal queue name"},
		{"unknown priority", []string{"put", "a", "--priority", "urgent"}, exitUsage, `unknown priority "urgent": must be high, normal or low`},
		{"illegal ID", []string{"put", "a", "--id", "a b"}, exitUsage, "illegal job ID"},
		{"illegal namespace", []string{"queue", "ls", "--namespace", "UPPER"}, exitUsage, "illegal namespace"},
		{"not JSON", []string{"put", "a", "hello"}, exitUsage, `hello is not JSON (invalid character 'h' looking for beginning of value): text needs quotes, like '"hello"'`},
		{"ID of several", []string{"put", "a", "--id", "x", "--count", "2"}, exitUsage, "--id and --unique are for one job"},
		{"count", []string{"put", "a", "--count", "0"}, exitUsage, "--count 0"},
		{"keep", []string{"put", "a", "--keep", "long"}, exitUsage, "must be none, default or a positive duration"},
		{"once and again", []string{"put", "a", "--once", "--retry-interrupts", "2"}, exitUsage, "--retry-interrupts and --once can't be used together"},
		{"state", []string{"job", "ls", "--state", "lost"}, exitUsage, "must be one of pending"},
		{"limit", []string{"job", "ls", "--limit", "0"}, exitUsage, "--limit 0"},
		{"ack wait", []string{"queue", "add", "new", "--ack-wait", "1s"}, exitFailed, "must be at least 3s"},
		{"no queue, put", []string{"put", "a", "--queue", "none"}, exitNotFound, "asyncnats queue add none"},
		{"no queue, info", []string{"queue", "info", "none"}, exitNotFound, "does not exist"},
		{"no queue, rm", []string{"queue", "rm", "none"}, exitNotFound, "does not exist"},
		{"no queue, rm forced", []string{"queue", "rm", "none", "--force"}, exitNotFound, "does not exist"},
		{"no queue, ls", []string{"job", "ls", "--queue", "none"}, exitNotFound, "does not exist"},
		{"no queue, dispatch", []string{"dispatch", "--handle", "a=cat", "--queue", "none"}, exitNotFound, "asyncnats queue add none"},
		{"no job, show", []string{"job", "show", "none"}, exitNotFound, "no such job"},
		{"no job, wait", []string{"job", "wait", "none"}, exitNotFound, "no such job"},
		{"quota exists", []string{"quota", "create", "one", "--size", "2"}, exitFailed, "quota exists: its size is 1"},
		{"illegal quota, create", []string{"quota", "create", "a.b"}, exitUsage, "illegal quota name"},
		{"illegal quota, info", []string{"quota", "info", "a b"}, exitUsage, "illegal quota name"},
		{"illegal quota, put", []string{"put", "a", "--quota", "a b"}, exitUsage, "illegal quota name"},
		{"negative size, create", []string{"quota", "create", "new", "--size=-1"}, exitUsage, "must be at least 0"},
		{"negative size, set", []string{"quota", "set", "one", "--", "-1"}, exitUsage, "must be at least 0"},
		{"no size, set", []string{"quota", "set", "one"}, exitUsage, `expected "<size>"`},
		{"no quota, set", []string{"quota", "set", "none", "2"}, exitNotFound, `unknown quota "none" in queue default`},
		{"no quota, info", []string{"quota", "info", "none"}, exitNotFound, `unknown quota "none" in queue default`},
		{"no quota, rm", []string{"quota", "rm", "none"}, exitNotFound, `unknown quota "none" in queue default`},
		{"no quota, clean", []string{"quota", "clean", "none"}, exitNotFound, `unknown quota "none" in queue default`},
		{"no quota, put", []string{"put", "a", "--quota", "one", "--quota", "none"}, exitNotFound, `put a: unknown quota "none" in queue default`},
		{"no quota, put of several", []string{"put", "a", "1", "2", "--quota", "none", "--json"}, exitNotFound, `unknown quota "none" in queue default`},
		{"no queue, quota create", []string{"quota", "create", "new", "--queue", "none"}, exitNotFound, "asyncnats queue add none"},
		{"no queue, quota ls", []string{"quota", "ls", "--queue", "none"}, exitNotFound, "asyncnats queue add none"},
		{"nobody there, quota", []string{"quota", "ls", "--server", nowhere}, exitUnreachable, "no server answers"},
		{"handle", []string{"dispatch", "--handle", "a"}, exitUsage, "must be TASK=COMMAND"},
		{"no handle", []string{"dispatch"}, exitUsage, "--handle=TASK=COMMAND"},
		{"two handlers", []string{"dispatch", "--handle", "a=cat", "--handle", "a=wc"}, exitUsage, "two handlers"},
		{"agent", []string{"dispatch", "--handle", "a=cat", "--agent", "size=3"}, exitUsage, "name is missing: must be like name=main"},
		{"agent of no queue", []string{"dispatch", "--handle", "a=cat", "--queue", "default", "--agent", "name=a,queue=none"}, exitUsage, "not among the dispatcher's"},
		{"UUID", []string{"dispatch", "--handle", "a=cat", "--uuid", "x"}, exitUsage, "UUID"},
		{"death before two pings", []string{"dispatch", "--handle", "a=cat", "--ping-interval", "2s", "--ping-death-interval", "3s"}, exitUsage, "twice the former"},
		{"no dispatcher, info", []string{"dispatcher", "info", "abcd"}, exitNotFound, "dispatcher abcd: no such dispatcher"},
		{"no dispatcher, info of a UUID", []string{"dispatcher", "info", nobody}, exitNotFound, "no such dispatcher (asyncnats dispatcher ls"},
		{"no dispatcher, rm", []string{"dispatcher", "rm", nobody}, exitNotFound, "no such dispatcher"},
		{"short dispatcher", []string{"dispatcher", "info", "abc"}, exitUsage, `dispatcher "abc": must be a UUID, or at least the first 4 characters`},
		{"illegal dispatcher", []string{"dispatcher", "rm", "first"}, exitUsage, `dispatcher "first": must be a UUID`},
		{"no dispatcher, agent ls", []string{"agent", "ls", "--dispatcher", "abcd"}, exitNotFound, "no such dispatcher"},
		{"no queue, agent ls", []string{"agent", "ls", "--queue", "none"}, exitNotFound, "asyncnats queue add none"},
		{"no queue, agent add", []string{"agent", "add", nobody, "main", "--queue", "none"}, exitNotFound, "asyncnats queue add none"},
		{"agent exists", []string{"agent", "add", nobody, "there"}, exitFailed, "agent exists: change it (asyncnats agent set)"},
		{"illegal agent, add", []string{"agent", "add", nobody, "a.b"}, exitUsage, "illegal agent name"},
		{"illegal agent, pause", []string{"agent", "pause", nobody, "a.b"}, exitUsage, "illegal agent name"},
		{"illegal filter, add", []string{"agent", "add", nobody, "main", "--filter", ">.a"}, exitUsage, "illegal filter"},
		{"illegal preference, set", []string{"agent", "set", nobody, "main", "--prefer", ">.a"}, exitUsage, "illegal preference"},
		{"agent of size 0, add", []string{"agent", "add", nobody, "main", "--size", "0"}, exitUsage, "must be at least 1; asyncnats agent pause"},
		{"agent of size 0, set", []string{"agent", "set", nobody, "main", "--size", "0", "--no-filter"}, exitUsage, "must be at least 1"},
		{"nothing to set", []string{"agent", "set", nobody, "main"}, exitUsage, "nothing to change: give --size"},
		{"filter and none", []string{"agent", "set", nobody, "main", "--filter", "a", "--no-filter"}, exitUsage, "can't be used together"},
		{"no agent, set", []string{"agent", "set", nobody, "main", "--size", "2"}, exitNotFound, "no such agent (asyncnats agent ls"},
		{"no agent, rm", []string{"agent", "rm", nobody, "main"}, exitNotFound, "no such agent"},
		{"no agent, drain", []string{"agent", "rm", nobody, "main", "--drain"}, exitNotFound, "no such agent"},
		{"no agent, pause", []string{"agent", "pause", nobody, "main"}, exitNotFound, "no such agent"},
		{"no agent, resume", []string{"agent", "resume", nobody, "main"}, exitNotFound, "no such agent"},
		{"no dispatcher, agent add", []string{"agent", "add", "abcd", "main"}, exitNotFound, "no such dispatcher"},
		{"no queue, pause", []string{"queue", "pause", "none"}, exitNotFound, "asyncnats queue add none"},
		{"no queue, resume", []string{"queue", "resume", "none"}, exitNotFound, "asyncnats queue add none"},
		{"illegal task, pause", []string{"queue", "pause", "--task", "a..b"}, exitUsage, "illegal task name"},
		{"nobody there, dispatchers", []string{"dispatcher", "ls", "--server", nowhere}, exitUnreachable, "no server answers"},
		{"nobody there", []string{"queue", "ls", "--server", nowhere}, exitUnreachable, "no server answers at nats://name:xxxxx@127.0.0.1:1: start one"},
		{"nobody there, dispatch", []string{"dispatch", "--handle", "a=cat", "--server", nowhere}, exitUnreachable, "no server answers"},
		{"unknown context", []string{"queue", "ls", "--context", "none"}, exitUsage, `unknown context "none"`},
		{"certificate without key", []string{"queue", "ls", "--tlscert", "x"}, exitUsage, "need each other"},
		{"no seed", []string{"queue", "ls", "--nkey", "none"}, exitUsage, "none"},
		{"demo, no folder", []string{"demo", "none"}, exitUsage, "no folder none"},
		{"demo, empty", []string{"demo", "empty"}, exitFailed, "no files in empty"},
		{"demo, file", []string{"demo", "/dev/null"}, exitUsage, "is not a folder"},
		{"demo, rows", []string{"demo", "--rows", "0"}, exitUsage, "must be at least 1"},
		{"server, address", []string{"server", "--listen", "here"}, exitUsage, "must be HOST:PORT"},
		{"server, port", []string{"server", "--listen", ":x"}, exitUsage, `"x" is not a port`},
		{"server, port taken", []string{"server", "--listen", strings.TrimPrefix(s.ClientURL(), "nats://")}, exitFailed, "is a server running there already?"},
		{"server, sync", []string{"server", "--sync", "never"}, exitUsage, "must be always, or a positive duration"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := x.run("", row.args...)
			if r.code != row.code || r.out != "" || strings.Count(r.err, "\n") != 1 {
				t.Errorf("exit %d, want %d and one line on stderr\n%s%s", r.code, row.code, r.out, r.err)
			}
			contains(t, r.err, row.text)
		})
	}
	if out := x.ok("job", "ls", "--json"); out != "[]\n" {
		t.Errorf("jobs were put all the same: %s", out)
	}
	// A restart may mend what is wrong with a file, as it does not mend wrong usage.
	x.write("words.uuid", "production-3\n")
	x.env = append(x.env, "ASYNCNATS_UUID=words.uuid")
	if r := x.run("", "dispatch", "--handle", "a=cat"); r.code != exitFailed || !strings.Contains(r.err, "want a UUID") {
		t.Errorf("%+v", r)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, "")
	x.write("nats/context/here.json", `{"url": "`+s.ClientURL()+`"}`)
	x.ok("queue", "add", "default", "--context", "here")
	if r := x.run("", "queue", "ls", "--server", "127.0.0.1:1", "--context", "here"); r.code != exitUnreachable {
		t.Errorf("--server goes before the context's: %+v", r)
	}
	x.write("nats/context.txt", "here")
	contains(t, x.ok("queue", "ls"), "default")
	x.write("nats/context/here.json", `{"url": "`+s.ClientURL()+`", "jetstream_api_prefix": "x"}`)
	if r := x.run("", "queue", "ls"); r.code != exitUsage {
		t.Errorf("API prefix: %+v", r)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	x := newTool(t, "")
	contains(t, x.ok("--help"), "queue info", "quota create", "--context=NAME", "Exit codes:")
	contains(t, x.ok("put", "--help"), "--retry-interrupts", "asyncnats put text.count", "  3  the job failed")
	contains(t, x.ok("--version"), "asyncnats ")
}
