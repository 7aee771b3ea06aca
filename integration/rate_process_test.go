package integration

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/quotas"
)

// grantTimes are when the starts of a rate limit were granted, by fencing token and
// by the server's clock.
func grantTimes(t *testing.T, js jetstream.JetStream, name string) map[uint64]time.Time {
	t.Helper()
	revisions, err := readRevisions(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	times := make(map[uint64]time.Time)
	for _, r := range revisions {
		if r.Quota != name {
			continue
		}
		for _, c := range r.Holders {
			if _, known := times[c.Fence]; !known {
				times[c.Fence] = r.At
			}
		}
	}
	return times
}

// mostWithin is the most of some instants that lie in one window.
func mostWithin(instants []time.Time, window time.Duration) (most int) {
	slices.SortFunc(instants, time.Time.Compare)
	first := 0
	for i, at := range instants {
		for at.Sub(instants[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// Four worker processes under a rate limit, of which one is killed: all jobs are
// done, no window has more starts than the limit, counted by when the server stored
// their grants, and the work takes little longer than the limit has it.
func TestRateOfProcesses(t *testing.T) {
	const (
		ackWait = 3 * time.Second
		size    = 20
		period  = 500 * time.Millisecond
		jobs    = 200
	)
	_, url := startServer(t)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err == nil {
		err = keepRevisions(t.Context(), js, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, queue := connect(t, url, asyncnats.QueueConfig{AckWait: ackWait})
	if err := queue.RateLimit(t.Context(), "api", size, period); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	var crew []*process
	for range 4 {
		crew = append(crew, startWorker(t, workerConfig{URL: url, UUID: uuid.New(), Size: 8, Log: log}))
	}
	calls := make([]asyncnats.Call[string], jobs)
	for i := range calls {
		calls[i] = stubborn.Call(20 * time.Millisecond).Quota("api")
	}
	began := time.Now()
	put, err := asyncnats.PutMany(t.Context(), queue, calls...)
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return len(starts(eventsSoFar(log))) > 2*size })
	crew[0].signal(t, syscall.SIGKILL)
	waitAll(t, put, 30*time.Second)
	took := time.Since(began)

	granted := grantTimes(t, js, "api")
	var instants []time.Time
	var lag time.Duration
	for _, e := range events(t, log) {
		if e.Event != "start" {
			continue
		}
		at, known := granted[e.fence("api")]
		if !known || e.At.Before(at) {
			t.Fatalf("%+v: its start was granted at %v (%t)", e, at, known)
		}
		instants, lag = append(instants, at), max(lag, e.At.Sub(at))
	}
	t.Logf("%d starts in %v, at most %v after their grants", len(instants), took, lag)
	if most := mostWithin(instants, period); most != size {
		t.Errorf("%d starts were granted within %v, want %d", most, period, size)
	}
	// Ten windows, the first of which begins at once. The victim's jobs come
	// back an ack wait after it died.
	if least := 9 * period; took < least || took > least+ackWait+2*time.Second {
		t.Errorf("%d jobs took %v", jobs, took)
	}
	quota, err := queue.Quota(t.Context(), "api")
	if err != nil || quota.Period != quotas.Period(period) || quota.Rate == nil || len(quota.Holders) > 0 {
		t.Errorf("%+v, %v", quota, err)
	}
}
