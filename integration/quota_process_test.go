package integration

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// putQuota puts a job that names the quota, and fails the test where it cannot.
func putQuota[R any](tb testing.TB, queue *asyncnats.Queue, call asyncnats.Call[R]) *asyncnats.Job[R] {
	tb.Helper()
	j, err := asyncnats.Put(tb.Context(), queue, call.Quota("gpu"))
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

// awaitQuota waits until a quota has so many holders and waiters.
func awaitQuota(tb testing.TB, queue *asyncnats.Queue, holders, waiters int) {
	tb.Helper()
	await(tb, func() bool {
		quota, err := queue.Quota(tb.Context(), "gpu")
		if err != nil {
			tb.Fatal(err)
		}
		return len(quota.Holders) == holders && len(quota.Waiters) == waiters
	})
}

// mostAtOnce returns how many handlers ran at once at most, by their own log.
// Those of a dispatcher that died ran until then.
func mostAtOnce(log []event, victim uuid.UUID, died time.Time) (most int) {
	type edge struct {
		at time.Time
		by int
	}
	var edges []edge
	ended := make(map[event]bool)
	for _, e := range log {
		if e.Event == "end" {
			edges = append(edges, edge{e.At, -1})
			e.Event, e.At = "start", time.Time{}
			ended[e] = true
		}
	}
	for _, e := range log {
		if e.Event != "start" {
			continue
		}
		edges = append(edges, edge{e.At, 1})
		if e.At = (time.Time{}); e.Dispatcher == victim.String() && !ended[e] {
			edges = append(edges, edge{died, -1})
		}
	}
	slices.SortStableFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	running := 0
	for _, e := range edges {
		running += e.by
		most = max(most, running)
	}
	return most
}

// A dispatcher process that dies with all slots of a quota, and with jobs that
// wait for one, takes nothing with it: all jobs end elsewhere, at no time more
// at once than the quota allows, and nobody holds it in the end.
func TestKilledHolder(t *testing.T) {
	t.Parallel()
	const ackWait, size = 3 * time.Second, 2
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{AckWait: ackWait})
	if err := queue.CreateQuota(t.Context(), "gpu", size); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	victim := uuid.New()
	doomed := startWorker(t, workerConfig{URL: url, UUID: victim, Size: 8, Log: log})
	var jobs []*asyncnats.Job[string]
	for range size {
		jobs = append(jobs, putQuota(t, queue, endless.Call(victim.String())))
	}
	awaitStarts(t, log, size)
	for range 8 {
		jobs = append(jobs, putQuota(t, queue, stubborn.Call(50*time.Millisecond)))
	}
	awaitQuota(t, queue, size, size+1)
	doomed.signal(t, syscall.SIGKILL)
	killed := time.Now()
	for range 2 {
		startWorker(t, workerConfig{URL: url, Size: 4, Log: log})
	}
	for _, who := range waitAll(t, jobs, 2*ackWait+5*time.Second) {
		if who == victim.String() {
			t.Error("the dead dispatcher ended a job")
		}
	}
	t.Logf("all jobs ended %v after the kill (ack wait %v)", time.Since(killed), ackWait)
	if most := mostAtOnce(events(t, log), victim, killed); most != size {
		t.Errorf("%d ran at once, want %d", most, size)
	}
	awaitQuota(t, queue, 0, 0)
}

// A dispatcher process that is stopped for longer than its leases, with slots
// and with jobs that wait, has lost both when it goes on: its handlers' contexts
// end, what they return is dropped, and nothing that it waited for starts there
// again.
func TestStoppedHolder(t *testing.T) {
	t.Parallel()
	const size = 10
	ackWait := 3 * time.Second
	if raceDetector {
		ackWait *= 3 // the heir is not to lose its leases
	}
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{AckWait: ackWait})
	if err := queue.CreateQuota(t.Context(), "gpu", size); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	sleeper, heir := uuid.New(), uuid.New()
	stopped := startWorker(t, workerConfig{URL: url, UUID: sleeper, Size: size + 1, Log: log})
	var jobs []*asyncnats.Job[string]
	for range size {
		jobs = append(jobs, putQuota(t, queue, endless.Call(sleeper.String())))
	}
	awaitStarts(t, log, size)
	for range size {
		jobs = append(jobs, putQuota(t, queue, stubborn.Call(time.Second)))
	}
	awaitQuota(t, queue, size, size)
	// Its last place: with it the sleeper asks for no more jobs.
	if _, err := asyncnats.Put(t.Context(), queue, endless.Call(sleeper.String())); err != nil {
		t.Fatal(err)
	}
	awaitStarts(t, log, size+1)
	stopped.signal(t, syscall.SIGSTOP)
	at := time.Now()
	startWorker(t, workerConfig{URL: url, UUID: heir, Size: 4 * size, Log: log})
	var those []event // of jobs that name the quota, with the heir
	await(t, func() bool {
		those = slices.DeleteFunc(eventsSoFar(log), func(e event) bool {
			ours := slices.ContainsFunc(jobs, func(j *asyncnats.Job[string]) bool { return j.ID() == e.Job })
			return !ours || e.Dispatcher != heir.String()
		})
		return len(starts(those)) == 2*size
	})
	if took := those[0].At.Sub(at); took < ackWait/2 { // of its lease two thirds were left, or a bit less
		t.Errorf("a slot was taken over %v after its holder had stopped", took)
	}
	stopped.signal(t, syscall.SIGCONT)
	for _, who := range waitAll(t, jobs, 2*ackWait+5*time.Second) {
		if who != heir.String() {
			t.Errorf("job was ended by %s, want the heir %s", who, heir)
		}
	}
	awaitLog(t, stopped, "outcome dropped", "task=story.endless", job.ErrLeaseLost.Error())
	written := events(t, log)
	for i, j := range jobs {
		if n, want := starts(written)[j.ID()], []int{2, 1}[i/size]; n != want {
			t.Errorf("job %d was started %d times, want %d", i, n, want)
		}
	}
	if most := mostAtOnce(those, uuid.Nil, at); most > size {
		t.Errorf("%d ran at once with the heir", most)
	}
	awaitQuota(t, queue, 0, 0)
}
