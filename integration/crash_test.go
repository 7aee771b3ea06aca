package integration

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// Two dispatcher processes share a backlog that a third process put: every
// job is performed once, and both do their part.
func TestProcessesShareJobs(t *testing.T) {
	const count = 2000
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{})
	log := filepath.Join(t.TempDir(), "log")
	for range 2 {
		startWorker(t, workerConfig{URL: url, Size: 8, Log: log})
	}
	// perform has n jobs performed, and tells how many by each.
	perform := func(n int) (share map[string]int) {
		calls := make([]asyncnats.Call[asyncnats.None], n)
		for i := range calls {
			calls[i] = nap.Call(time.Millisecond)
		}
		jobs, err := asyncnats.PutMany(t.Context(), queue, calls...)
		if err != nil {
			t.Fatal(err)
		}
		waitAll(t, jobs, time.Minute)
		performers := make(map[job.ID][]string)
		for _, e := range events(t, log) {
			if e.Event == "start" {
				performers[e.Job] = append(performers[e.Job], e.Dispatcher)
			}
		}
		share = make(map[string]int)
		for _, j := range jobs {
			by := performers[j.ID()]
			if len(by) != 1 {
				t.Fatalf("job %s was started %d times", j.ID(), len(by))
			}
			share[by[0]]++
		}
		return share
	}
	await(t, func() bool { return len(perform(20)) == 2 }) // until both take such jobs
	share := perform(count)
	if len(share) != 2 {
		t.Fatalf("work was not shared: %v", share)
	}
	for who, n := range share {
		if n < count/10 {
			t.Errorf("dispatcher %s did only %d of %d jobs: %v", who, n, count, share)
		}
	}
}

// A dispatcher process that dies with 20 jobs running loses none of them: all
// end elsewhere within the ack wait and two seconds, with one outcome each.
func TestKilledDispatcher(t *testing.T) {
	t.Parallel()
	const ackWait = 4 * time.Second
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{AckWait: ackWait})
	log := filepath.Join(t.TempDir(), "log")
	victim, heir := uuid.New(), uuid.New()
	doomed := startWorker(t, workerConfig{URL: url, UUID: victim, Size: 20, Log: log})

	// Jobs that would take for ever with the victim and end at once with the
	// heir, which knows them by their second attempt.
	var jobs []*asyncnats.Job[string]
	for range 20 {
		j, err := asyncnats.Put(t.Context(), queue, endless.Call(victim.String()))
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, j)
	}
	awaitStarts(t, log, 20)
	startWorker(t, workerConfig{URL: url, UUID: heir, Size: 20, Log: log})
	doomed.signal(t, syscall.SIGKILL)
	killed := time.Now()

	for _, who := range waitAll(t, jobs, ackWait+patience(2*time.Second)) {
		if who != heir.String() {
			t.Errorf("job was ended by %s, want the heir %s", who, heir)
		}
	}
	t.Logf("all jobs ended elsewhere %v after the kill (ack wait %v)", time.Since(killed), ackWait)
	for _, j := range jobs {
		if n := starts(events(t, log))[j.ID()]; n != 2 {
			t.Errorf("job %s was started %d times, want once by each", j.ID(), n)
		}
	}
}

// A dispatcher process that is stopped for longer than its lease and then goes
// on is told so, and its late outcome is refused.
func TestStoppedDispatcher(t *testing.T) {
	t.Parallel()
	const ackWait = 3 * time.Second
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{AckWait: ackWait})
	log := filepath.Join(t.TempDir(), "log")
	sleeper, heir := uuid.New(), uuid.New()
	stopped := startWorker(t, workerConfig{URL: url, UUID: sleeper, Size: 1, Log: log})
	j, err := asyncnats.Put(t.Context(), queue, stubborn.Call(ackWait)) // it is stopped before that
	if err != nil {
		t.Fatal(err)
	}
	awaitStarts(t, log, 1)
	stopped.signal(t, syscall.SIGSTOP)
	startWorker(t, workerConfig{URL: url, UUID: heir, Size: 1, Log: log})
	who := waitAll(t, []*asyncnats.Job[string]{j}, 2*ackWait+patience(2*time.Second))[0]
	if who != heir.String() {
		t.Fatalf("job was ended by %s, want the heir %s", who, heir)
	}
	before, err := j.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	stopped.signal(t, syscall.SIGCONT)
	awaitLog(t, stopped, "outcome dropped", job.ErrLeaseLost.Error())
	after, err := j.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.Record.Attempt != after.Record.Attempt {
		t.Errorf("the record was written again: %+v, before %+v", after.Record, before.Record)
	}
	// It goes on as if nothing had been.
	again, err := asyncnats.Put(t.Context(), queue, stubborn.Call(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	waitAll(t, []*asyncnats.Job[string]{again}, patience(ackWait))
}

// A dispatcher process that is asked to stop lets the jobs go on that fit its
// grace, hands the others back at once, and counts them as interrupted.
func TestTerminatedDispatcher(t *testing.T) {
	const ackWait = 30 * time.Second // longer than the test: no job may wait for it
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{AckWait: ackWait})
	log := filepath.Join(t.TempDir(), "log")
	leaving := uuid.New()
	victim := startWorker(t, workerConfig{URL: url, UUID: leaving, Size: 4, Grace: 500 * time.Millisecond, Log: log})
	var short []*asyncnats.Job[string]
	var long []*asyncnats.Job[string]
	for range 2 {
		s, err := asyncnats.Put(t.Context(), queue, stubborn.Call(250*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		l, err := asyncnats.Put(t.Context(), queue, endless.Call(leaving.String()))
		if err != nil {
			t.Fatal(err)
		}
		short, long = append(short, s), append(long, l)
	}
	awaitStarts(t, log, 4)
	victim.signal(t, syscall.SIGTERM)
	for _, who := range waitAll(t, short, 5*time.Second) {
		if who != leaving.String() {
			t.Errorf("a job that fits the grace was ended by %s, want %s", who, leaving)
		}
	}
	if err := victim.Wait(); err != nil {
		t.Errorf("stop: %v\n%s", err, victim.Log())
	}
	heir := uuid.New()
	startWorker(t, workerConfig{URL: url, UUID: heir, Size: 4, Log: log})
	for _, who := range waitAll(t, long, 5*time.Second) {
		if who != heir.String() {
			t.Errorf("job was ended by %s, want the heir %s", who, heir)
		}
	}
	for _, j := range long {
		status, err := j.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status.Record.Interrupts != 1 || status.Record.Attempt.Number != 2 {
			t.Errorf("record %+v: want one interrupt, and the second attempt", status.Record)
		}
	}
}

// patience is how long a test gives what may take up to d: more with the race detector,
// which makes processes slow.
func patience(d time.Duration) time.Duration {
	if raceDetector {
		return 4 * d
	}
	return d
}

// waitAll waits for jobs and returns their results. It fails the test where
// they take longer than patience together.
func waitAll[R any](tb testing.TB, jobs []*asyncnats.Job[R], patience time.Duration) []R {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	results := make([]R, len(jobs))
	for i, j := range jobs {
		var err error
		if results[i], err = j.Wait(ctx); err != nil {
			tb.Fatalf("job %d of %d: %v", i, len(jobs), err)
		}
	}
	return results
}

// awaitStarts waits until handlers have written that n jobs were started.
func awaitStarts(tb testing.TB, log string, n int) {
	tb.Helper()
	await(tb, func() bool {
		return len(starts(eventsSoFar(log))) >= n
	})
}

// awaitLog waits until a process has logged a line with all the words.
func awaitLog(tb testing.TB, p *process, words ...string) {
	tb.Helper()
	await(tb, func() bool {
		for line := range strings.Lines(p.Log()) {
			missing := false
			for _, word := range words {
				missing = missing || !strings.Contains(line, word)
			}
			if !missing {
				return true
			}
		}
		return false
	})
}

// await looks again and again whether what another process does is done.
func await(tb testing.TB, done func() bool) {
	tb.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(30 * time.Second); !done(); {
		select {
		case <-ticker.C:
		case <-deadline:
			tb.Fatal("waited in vain")
		}
	}
}
