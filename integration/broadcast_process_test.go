package integration

import (
	"errors"
	"flag"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// Of five dispatcher processes one is killed before a broadcast and one during its copy,
// while another joins: the aggregate says who is gone, and is recorded once.
func TestBroadcastKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("waits in real time for dispatchers to be taken for dead")
	}
	t.Parallel()
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{})
	fleet, err := queue.Client().CreateQueue(t.Context(), "fleet", asyncnats.QueueConfig{Broadcast: true, Grace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	crew := make(map[string]*process)
	join := func() string {
		id := uuid.New()
		crew[id.String()] = startWorker(t, workerConfig{URL: url, UUID: id, Size: 3, Log: log})
		return id.String()
	}
	var ids []string
	for range 5 {
		ids = append(ids, join())
	}
	put := func(with string) *asyncnats.Job[map[string]asyncnats.Outcome[string]] {
		j, err := asyncnats.Put(t.Context(), fleet, asyncnats.ToAll(endless.Call(with)))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	await(t, func() bool {
		got, err := put("").Wait(t.Context())
		return err == nil && len(got) == 5
	})
	crew[ids[0]].signal(t, syscall.SIGKILL)
	j := put(ids[1])
	first, err := asyncnats.WaitReplies(t.Context(), j, 3)
	if err != nil {
		t.Fatal(err)
	}
	doomed := partOf(t, j, ids[1])
	await(t, func() bool { return startedBy(log, ids[1], doomed) })
	crew[ids[1]].signal(t, syscall.SIGKILL)
	late := join()
	got, err := j.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 {
		t.Errorf("%d replies, want 5: %+v", len(got), got)
	}
	for i, id := range ids {
		reply := got[id]
		switch {
		case i < 2 && (reply.Failure == nil || !errors.Is(reply.Failure, job.ErrAbsent)):
			t.Errorf("reply of a dispatcher that was killed: %+v", reply)
		case i >= 2 && (reply.Failure != nil || reply.Result != id || first[id].Result != id):
			t.Errorf("reply of dispatcher %s: %+v, %+v", id, reply, first[id])
		}
	}
	since := make(map[job.ID]bool) // copies of broadcasts that were put since
	await(t, func() bool {
		next := put("")
		got, err := next.Wait(t.Context())
		parts := partsOf(t, next)
		for i := range parts.Count {
			since[parts.PartID(i)] = true
		}
		_, performs := got[late]
		return err == nil && performs
	})
	for _, e := range events(t, log) {
		if e.Dispatcher == late && !since[e.Job] {
			t.Errorf("one who joined later performed it too: %+v", e)
		}
	}
}

// partOf is the ID of a dispatcher's copy of a broadcast.
func partOf(t *testing.T, j *asyncnats.Job[map[string]asyncnats.Outcome[string]], dispatcher string) job.ID {
	t.Helper()
	parts := partsOf(t, j)
	i := slices.Index(parts.To, dispatcher)
	if i < 0 {
		t.Fatalf("dispatcher %s has no copy: %+v", dispatcher, parts)
	}
	return parts.PartID(i)
}

func partsOf(t *testing.T, j *asyncnats.Job[map[string]asyncnats.Outcome[string]]) *job.Parts {
	t.Helper()
	status, err := j.Status(t.Context())
	if err != nil || status.Record == nil || status.Record.Parts == nil {
		t.Fatalf("broadcast without parts: %+v, %v", status, err)
	}
	return status.Record.Parts
}

// startedBy reports whether a dispatcher has started a job.
func startedBy(log, dispatcher string, id job.ID) bool {
	for _, e := range eventsSoFar(log) {
		if e.Event == "start" && e.Dispatcher == dispatcher && e.Job == id {
			return true
		}
	}
	return false
}

var manyBroadcasts = flag.Int("broadcasts", 80, "how many broadcasts are put; CI puts a thousand")

// Of many broadcasts to eight dispatchers none is lost, and none is performed twice
// by any of them.
func TestManyBroadcasts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const dispatchers = 8
	_, url := startServer(t)
	_, queue := connect(t, url, asyncnats.QueueConfig{})
	fleet, err := queue.Client().CreateQueue(t.Context(), "fleet", asyncnats.QueueConfig{Broadcast: true, AckWait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	for range dispatchers {
		startWorker(t, workerConfig{URL: url, UUID: uuid.New(), Size: 4, Log: log})
	}
	await(t, func() bool {
		j, err := asyncnats.Put(t.Context(), fleet, asyncnats.ToAll(noop.Call(asyncnats.None{})))
		if err != nil {
			t.Fatal(err)
		}
		got, err := j.Wait(t.Context())
		return err == nil && len(got) == dispatchers
	})
	var putting sync.WaitGroup
	for range 16 {
		putting.Go(func() {
			for range *manyBroadcasts / 16 {
				j, err := asyncnats.Put(t.Context(), fleet, asyncnats.ToAll(nap.Call(0)))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := j.Wait(t.Context())
				if err != nil || len(got) != dispatchers {
					t.Errorf("%d replies, %v, want %d", len(got), err, dispatchers)
				}
				for id, reply := range got {
					if reply.Failure != nil {
						t.Errorf("reply of %s: %v", id, reply.Failure)
					}
				}
			}
		})
	}
	putting.Wait()
	starts := make(map[job.ID]int)
	for _, e := range events(t, log) {
		if e.Event == "start" {
			starts[e.Job]++
		}
	}
	if want := *manyBroadcasts / 16 * 16 * dispatchers; len(starts) != want {
		t.Errorf("%d copies were performed, want %d", len(starts), want)
	}
	for id, n := range starts {
		if n != 1 {
			t.Errorf("copy %s was performed %d times", id, n)
		}
	}
}
