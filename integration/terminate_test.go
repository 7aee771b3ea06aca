package integration

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// A worker process that is asked to stop while it performs fifty jobs lets those
// that fit its grace end there. The others are started elsewhere within a second
// of being handed back. No job fails by it, nor is interrupted more than once, and
// a job keeps its slot on its way from one process to the other.
func TestTerminatedWithFiftyJobs(t *testing.T) {
	const (
		half    = 25
		slots   = 10
		grace   = 2 * time.Second
		ackWait = 30 * time.Second // longer than the test: no job may wait for it
	)
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{AckWait: ackWait})
	if err := queue.CreateQuota(t.Context(), "gpu", slots); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log, word := filepath.Join(dir, "log"), filepath.Join(dir, "word")
	leaving, heir := uuid.New(), uuid.New()
	victim := startWorker(t, workerConfig{URL: url, UUID: leaving, Size: 2 * half, Grace: grace, Log: log})
	put := func(call asyncnats.Call[string], i int) *asyncnats.Job[string] {
		if i < slots/2 {
			return putQuota(t, queue, call)
		}
		j, err := asyncnats.Put(t.Context(), queue, call)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	var short, long []*asyncnats.Job[string]
	for i := range half {
		long = append(long, put(endless.Call(leaving.String()), i))
		short = append(short, put(parked.Call(word), i))
	}
	awaitStarts(t, log, 2*half)
	victim.signal(t, syscall.SIGTERM)
	asked := time.Now()
	awaitLog(t, victim, "dispatcher stops")
	if err := os.WriteFile(word, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	startWorker(t, workerConfig{URL: url, UUID: heir, Size: 2 * half, Log: log})

	for _, who := range waitAll(t, short, grace+5*time.Second) {
		if who != leaving.String() {
			t.Errorf("a job that fits the grace was ended by %s, want %s", who, leaving)
		}
	}
	for _, who := range waitAll(t, long, grace+5*time.Second) {
		if who != heir.String() {
			t.Errorf("a job that does not fit the grace was ended by %s, want the heir %s", who, heir)
		}
	}
	if err := victim.Wait(); err != nil {
		t.Errorf("stop: %v\n%s", err, victim.Log())
	}
	t.Logf("all was over %v after the signal, with a grace of %v", time.Since(asked), grace)

	started, ended := make(map[job.ID][]event), make(map[job.ID][]event)
	for _, e := range events(t, log) {
		if e.Event == "start" {
			started[e.Job] = append(started[e.Job], e)
		} else {
			ended[e.Job] = append(ended[e.Job], e)
		}
	}
	check := func(j *asyncnats.Job[string], attempts int) {
		status, err := j.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r := status.Record; !r.Outcome.Succeeded() || r.Interrupts != attempts-1 || r.Attempt.Number != attempts {
			t.Errorf("record %+v: want %d attempts, all others interrupted", r, attempts)
		}
		if n := len(started[j.ID()]); n != attempts {
			t.Errorf("job was started %d times, want %d", n, attempts)
		}
	}
	for _, j := range short {
		check(j, 1)
	}
	var slowest time.Duration
	for _, j := range long {
		check(j, 2)
		if len(started[j.ID()]) == 2 {
			took := started[j.ID()][1].At.Sub(ended[j.ID()][0].At)
			slowest = max(slowest, took)
			if took < 0 || took > patience(time.Second) {
				t.Errorf("job was started elsewhere %v after it was stopped", took)
			}
		}
	}
	t.Logf("jobs were started elsewhere within %v", slowest)
	awaitQuota(t, queue, 0, 0)
}
