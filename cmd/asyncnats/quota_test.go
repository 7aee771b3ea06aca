//go:build unix

package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

func TestQuota(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "media")
	if r := x.run("", "quota", "ls", "-q", "media"); r.code != exitOK || r.out != "" ||
		!strings.Contains(r.err, "asyncnats quota create NAME --queue media") {
		t.Errorf("none: %+v", r)
	}
	if out := x.ok("quota", "ls", "-q", "media", "--json"); out != "[]\n" {
		t.Errorf("none: %s", out)
	}
	contains(t, x.ok("quota", "create", "disk", "-q", "media"), "quota disk created, size 1")
	contains(t, x.ok("quota", "create", "gpu", "--size", "2", "-q", "media"), "quota gpu created, size 2")
	const listed = `
QUOTA  SIZE  PER  RUNNING  WAITING
disk      1             0        0
gpu       2             0        0
`
	if diff := cmp.Diff(listed[1:], x.ok("quota", "ls", "-q", "media")); diff != "" {
		t.Error(diff)
	}
	const empty = `{
  "name": "gpu",
  "size": 2,
  "fence": 0,
  "holders": [],
  "waiters": [],
  "revision": 2
}
`
	if diff := cmp.Diff(empty, x.ok("quota", "info", "gpu", "-q", "media", "--json")); diff != "" {
		t.Error(diff)
	}
	contains(t, x.ok("quota", "ls", "-q", "media", "--json"), `"holders": []`, `"waiters": []`)

	contains(t, x.ok("quota", "set", "gpu", "0", "-q", "media"), "quota gpu has size 0 now: it starts nothing")
	contains(t, x.ok("quota", "info", "gpu", "-q", "media"), "quota gpu of queue media: size 0, 0 running, 0 waiting, 0 pending\nsize 0 starts nothing\n")
	contains(t, x.ok("quota", "set", "gpu", "3", "-q", "media"), "quota gpu has size 3 now\n")
	contains(t, x.ok("quota", "clean", "gpu", "-q", "media"), "quota gpu: 0 claims dropped")
	contains(t, x.ok("quota", "rm", "disk", "-q", "media"), "quota disk removed")
	var list []asyncnats.Quota
	x.json(&list, "quota", "ls", "-q", "media")
	if len(list) != 1 || list[0].Name != "gpu" || list[0].Size != 3 {
		t.Errorf("%+v", list)
	}

	x.ok("queue", "rm", "media")
	x.ok("queue", "add", "media")
	if out := x.ok("quota", "ls", "-q", "media", "--json"); out != "[]\n" {
		t.Errorf("quotas of a removed queue: %s", out)
	}
}

func TestQuotaRate(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "media")
	contains(t, x.ok("quota", "create", "api", "--size", "10", "--per", "1s", "-q", "media"), "quota api created, size 10 per 1s")
	x.ok("quota", "create", "gpu", "-q", "media")
	const listed = `
QUOTA  SIZE  PER  RUNNING  WAITING
api      10   1s        0        0  10 left
gpu       1             0        0
`
	if diff := cmp.Diff(listed[1:], x.ok("quota", "ls", "-q", "media")); diff != "" {
		t.Error(diff)
	}
	contains(t, x.ok("quota", "info", "api", "-q", "media"), "quota api of queue media: size 10 per 1s, 0 running, 0 waiting, 0 pending\n10 left\n")
	contains(t, x.ok("quota", "info", "api", "-q", "media", "--json"), `"period": "1s"`, `"rate": {`, `"left": 10`)
	contains(t, x.ok("quota", "set", "api", "3", "-q", "media"), "quota api has size 3 per 1s now\n")
	contains(t, x.ok("quota", "set", "api", "3", "--per", "1m", "-q", "media"), "quota api has size 3 per 1m0s now\n")
	contains(t, x.ok("quota", "set", "gpu", "2", "--per", "5s", "-q", "media"), "quota gpu has size 2 per 5s now\n")
	contains(t, x.ok("quota", "set", "api", "3", "--per", "0s", "-q", "media"), "quota api has size 3 now\n")
	for _, args := range [][]string{
		{"quota", "create", "bad", "--per", "1us", "-q", "media"},
		{"quota", "set", "api", "1", "--per=-1s", "-q", "media"},
	} {
		if r := x.run("", args...); r.code != exitUsage || !strings.Contains(r.err, "at least 1ms") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := x.run("", "quota", "set", "none", "1", "--per", "1s", "-q", "media"); r.code == exitOK || !strings.Contains(r.err, "unknown quota") {
		t.Errorf("%+v", r)
	}
}

// TestQuotaRateSpent: what a rate limit has granted is shown, and how long the next
// job has to wait.
func TestQuotaRateSpent(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	x.ok("quota", "create", "api", "--per", "1h")
	d := x.start("err", "dispatch", "--handle", "call=true")
	d.line("dispatcher runs")
	x.ok("put", "call", "1", "--quota", "api", "--wait", "--timeout", "20s")
	x.ok("put", "call", "1", "--quota", "api", "--id", "next")
	x.quotaUntil("api", func(q asyncnats.Quota) bool { return len(q.Holders) == 0 && len(q.Waiters) == 1 })
	out := x.ok("quota", "info", "api")
	if !regexp.MustCompile(`size 1 per 1h0m0s, 0 running, 1 waiting, 0 pending\nnone left, the next in (1h0m0s|59m\S*)\n`).MatchString(out) {
		t.Error(out)
	}
	contains(t, x.ok("quota", "ls"), "none left, the next in ")
	x.ok("quota", "set", "api", "2")
	x.ok("job", "wait", "next", "--timeout", "20s")
	if code := d.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("dispatch: exit %d", code)
	}
}

// barrier makes a file that commands cannot read to its end until open is
// called; whoever reads it later finds it empty.
func (x *tool) barrier(name string) (open func()) {
	x.t.Helper()
	path := x.fifo(name)
	writer, err := os.OpenFile(path, os.O_RDWR, 0) // does not wait for a reader
	if err != nil {
		x.t.Fatal(err)
	}
	open = sync.OnceFunc(func() {
		x.write(name+".open", "")
		if err := os.Rename(path+".open", path); err != nil {
			x.t.Error(err)
		}
		writer.Close()
	})
	x.t.Cleanup(open)
	return open
}

// quotaUntil asks for a quota until it is as wanted.
func (x *tool) quotaUntil(name string, wanted func(asyncnats.Quota) bool) asyncnats.Quota {
	x.t.Helper()
	var quota asyncnats.Quota
	for range 200 {
		x.json(&quota, "quota", "info", name)
		if wanted(quota) {
			return quota
		}
		time.Sleep(20 * time.Millisecond)
	}
	x.t.Fatalf("quota %s stays like this: %+v", name, quota)
	return quota
}

// TestQuotaFull: jobs that name a full quota wait, and it shows who has its
// slots and who waits.
func TestQuotaFull(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	open := x.barrier("proceed")
	x.ok("queue", "add", "default")
	x.ok("quota", "create", "gpu")
	x.ok("quota", "create", "disk", "--size", "9")
	d := x.start("err", "dispatch", "--handle", "render=cat proceed", "--agent", "name=main,size=3")
	d.line("dispatcher runs")
	ids := []string{"first", "second", "third", "fourth"}
	for _, id := range ids {
		x.ok("put", "render", "1", "--id", id, "--quota", "gpu")
	}
	quota := x.quotaUntil("gpu", func(q asyncnats.Quota) bool { return len(q.Holders) == 1 && len(q.Waiters) > 0 })
	if h, w := quota.Holders[0], quota.Waiters[0]; h.ID != "first" || h.Fence == 0 || w.ID != "second" || w.Fence != 0 {
		t.Errorf("%+v", quota)
	}
	x.ok("put", "render", "1", "--id", "both", "--quota", "gpu", "--quota", "disk")
	x.ok("put", "render", "1", "--id", "free")

	// All but the first wait or are pending, once none is between the two.
	var out string
	header := regexp.MustCompile(`^quota gpu of queue default: size 1, 1 running, (\d+) waiting, (\d+) pending\n`)
	for tries := 1; ; tries++ {
		out = x.ok("quota", "info", "gpu")
		counts := header.FindStringSubmatch(out)
		if counts == nil {
			t.Fatal(out)
		}
		waiting, _ := strconv.Atoi(counts[1])
		pending, _ := strconv.Atoi(counts[2])
		if waiting > 0 && waiting+pending == len(ids) && !strings.Contains(out, unanswered) {
			break
		}
		if tries == 20 {
			t.Fatalf("%d waiting and %d pending, want %d together:\n%s", waiting, pending, len(ids), out)
		}
	}
	dispatcher := quota.Holders[0].Dispatcher
	for _, row := range []string{
		`\nHOLDER +DISPATCHER +SINCE +FENCE\nfirst +` + dispatcher + ` +\S+s ago +\d+\n`,
		`\nWAITER +DISPATCHER +SINCE\b.*\nsecond +` + dispatcher + ` +\S+s ago\n`,
	} {
		if !regexp.MustCompile(row).MatchString(out) {
			t.Errorf("no %s in:\n%s", row, out)
		}
	}
	contains(t, x.ok("quota", "ls"), "gpu       1             1  ")
	contains(t, x.ok("job", "show", "second"), "quotas      gpu\n", "state       pending")
	contains(t, x.ok("job", "show", "both"), "quotas      disk, gpu\n")
	var jobs []view
	x.json(&jobs, "job", "ls", "--limit", "1")
	if len(jobs) != 1 || !cmp.Equal(jobs[0].Quotas, []string{"gpu"}) {
		t.Errorf("%+v", jobs)
	}
	out = x.until(`\nrender +\d+ +\d+ +1\n`, "queue", "info", "default")
	for _, row := range []string{
		`\nTASK +QUOTAS +PENDING +ASSIGNED +SERVED BY\n`, `\nrender +gpu +\d+ +\d+ +1\n`, `\nrender +disk, gpu +\d+ +\d+ +1\n`,
	} {
		if !regexp.MustCompile(row).MatchString(out) {
			t.Errorf("no %s in:\n%s", row, out)
		}
	}
	x.until(`\ndefault +6 +\d +1 +1 `, "queue", "ls") // 6 jobs, of 1 task in 3 lanes

	open()
	for _, id := range append(ids, "both", "free") {
		x.ok("job", "wait", id, "--timeout", "20s")
	}
	contains(t, x.ok("job", "show", "both"), "quotas      disk, gpu\n", "completed")
	x.quotaUntil("gpu", func(q asyncnats.Quota) bool { return len(q.Holders)+len(q.Waiters) == 0 })
	if code := d.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("dispatch: exit %d", code)
	}
}

// TestQuotaClean: a slot whose worker was killed stays with its job, and is
// dropped by hand where somebody deletes the job.
func TestQuotaClean(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.barrier("proceed")
	x.ok("queue", "add", "default", "--ack-wait", "3s")
	x.ok("quota", "create", "gpu")
	d := x.start("err", "dispatch", "--handle", "render=cat proceed")
	x.ok("put", "render", "1", "--id", "lost", "--quota", "gpu")
	x.quotaUntil("gpu", func(q asyncnats.Quota) bool { return len(q.Holders) == 1 })
	contains(t, x.ok("quota", "clean", "gpu"), "quota gpu: 0 claims dropped")
	if err := d.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.end()
	contains(t, x.ok("quota", "info", "gpu"), "1 running", "lost ", "its dispatcher does not answer")

	messages, err := s.JetStream(t).Stream(t.Context(), "ASYNC_default")
	if err != nil {
		t.Fatal(err)
	}
	if err := messages.Purge(t.Context(), jetstream.WithPurgeSubject("async.default.job.render==gpu.lost")); err != nil {
		t.Fatal(err)
	}
	r := x.run("", "quota", "clean", "gpu", "--timeout", "100ms")
	if r.code != exitFailed {
		t.Errorf("%+v", r)
	}
	contains(t, r.err, "not done within 100ms")
	contains(t, x.ok("quota", "clean", "gpu"), "quota gpu: 1 claim dropped")
	contains(t, x.ok("quota", "info", "gpu"), "0 running")
}

func TestPrintQuota(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	since := now.Add(-90 * time.Second)
	quota := asyncnats.Quota{Name: "gpu", Slots: quotas.Slots{
		Size: 1,
		Holders: []quotas.Claim{
			{ID: "runs", Dispatcher: "d1", Since: since, Fence: 7},
			{ID: "killed", Dispatcher: "d2", Since: now.Add(time.Second), Fence: 12},
		},
		Waiters: []quotas.Claim{
			{ID: "again", Dispatcher: "d1", Since: since, Interrupted: true},
			{ID: "kept", Dispatcher: "d1", Since: since, Several: true, Passed: 8, Reserves: true},
			{ID: "several", Dispatcher: "d1", Since: since, Several: true},
			{ID: "silent", Dispatcher: "d2", Since: since},
			{ID: "next", Dispatcher: "d1", Since: since},
		},
	}}
	info := asyncnats.QueueInfo{
		Name: "media", Dispatchers: []stream.Presence{{Dispatcher: "d1"}},
		Lanes: []stream.LaneInfo{
			{Task: "a", Quotas: []string{"disk", "gpu"}, Pending: 3, Assigned: 9},
			{Task: "a", Quotas: []string{"disk"}, Pending: 50}, {Task: "a", Pending: 70}, {Task: "b", Quotas: []string{"gpu"}, Pending: 1},
		},
	}
	const want = `
quota gpu of queue media: size 1, 2 running, 5 waiting, 4 pending
more run than its size: nothing starts until fewer do

HOLDER  DISPATCHER      SINCE  FENCE
runs    d1          1m30s ago      7
killed  d2             0s ago     12  its dispatcher does not answer

WAITER   DISPATCHER      SINCE
again    d1          1m30s ago  was interrupted: comes first
kept     d1          1m30s ago  needs several quotas: a slot is kept for it
several  d1          1m30s ago  needs several quotas
silent   d2          1m30s ago  its dispatcher does not answer
next     d1          1m30s ago
`
	var out bytes.Buffer
	printQuota(&out, quota, info, now)
	if diff := cmp.Diff(want[1:], out.String()); diff != "" {
		t.Error(diff)
	}
}
