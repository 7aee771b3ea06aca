package integration

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// Two worker processes have a queue of three replicas to themselves. While jobs
// come in one of them is killed, and then the server that leads the queue, which
// does not come back: every job ends with one outcome, and at no time do two
// attempts of one live, nor more jobs than their quotas allow.
func TestClusterLosesAWorkerAndALeader(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers in real time")
	}
	const count = 300
	c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	nc := c.connect(t)
	js, err := jetstream.New(nc)
	if err == nil {
		err = keepRevisions(ctx, js, len(c.nodes))
	}
	if err != nil {
		t.Fatal(err)
	}
	client, err := asyncnats.Connect(ctx, nc, asyncnats.Config{})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := client.CreateQueue(ctx, job.DefaultQueue, asyncnats.QueueConfig{Replicas: len(c.nodes), AckWait: quotaAckWait})
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"one": 1, "three": 3} {
		if err := queue.CreateQuota(ctx, name, size); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(t.TempDir(), "log")
	victim := uuid.New()
	doomed := startWorker(t, workerConfig{URL: c.urls(), UUID: victim, Size: 8, Log: log})
	startWorker(t, workerConfig{URL: c.urls(), Size: 8, Log: log})

	h := quotaHistory{Jobs: make(map[job.ID][]string), Again: true}
	var jobs []*asyncnats.Job[asyncnats.None]
	kinds := [][]string{nil, nil, nil, nil, {"one"}, {"three"}, {"three"}, {"one", "three"}}
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for i := range count {
		switch i {
		case count / 3:
			doomed.signal(t, syscall.SIGKILL)
			killed := time.Now()
			_ = doomed.Wait()
			appendEvent(log, event{Dispatcher: victim.String(), Event: "killed", At: killed})
		case count * 2 / 3:
			c.stop(c.leader(t, "ASYNC_default"))
		}
		quotas := kinds[i%len(kinds)]
		j, err := asyncnats.Put(ctx, queue, limited[i%len(limited)].Call(time.Duration(i%20)*time.Millisecond).Quota(quotas...))
		if err != nil {
			c.tell(t, "ASYNC_default", recordsStream, quotasStream)
			t.Fatalf("put %d over %s, %v: %v", i, nc.ConnectedUrl(), nc.Status(), err)
		}
		jobs, h.Jobs[j.ID()] = append(jobs, j), quotas
		<-pause.C
	}
	waitAll(t, jobs, time.Minute)
	awaitReplicas(t, js, quotasStream, recordsStream)
	h.Log = events(t, log)
	var err2 error
	h.Revisions, err = readRevisions(t.Context(), js)
	h.Outcomes, err2 = readOutcomes(t.Context(), js)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for _, err := range h.check() {
		t.Error(err)
		if id := h.blamed(err); id != "" {
			t.Log(h.tell(id))
		}
	}
	t.Logf("%d jobs were started %d times", count, len(starts(h.Log)))
}

// tell logs which nodes live and lead, where something is stuck.
func (c *cluster) tell(t *testing.T, streams ...string) {
	for _, node := range c.nodes {
		for _, name := range streams {
			t.Logf("%s: running %t, leads %s %t, is current in it %t", node.ClientURL(), node.Running(), name,
				node.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, name), node.JetStreamIsStreamCurrent(server.DEFAULT_GLOBAL_ACCOUNT, name))
		}
	}
}

// awaitReplicas waits until all replicas of streams whose servers live have
// everything, since any of them may be read from.
func awaitReplicas(t *testing.T, js jetstream.JetStream, streams ...string) {
	t.Helper()
	await(t, func() bool {
		for _, name := range streams {
			found, err := js.Stream(t.Context(), name)
			if err != nil {
				return false
			}
			for _, peer := range found.CachedInfo().Cluster.Replicas {
				if !peer.Offline && (!peer.Current || peer.Lag > 0) {
					return false
				}
			}
		}
		return true
	})
}
