package integration

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// Recurring jobs and deadlines of a queue with three replicas, whose leader dies:
// no tick is lost or comes twice, and what is not begun ends.
func TestClusterKeepsTimers(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers in real time")
	}
	t.Parallel()
	c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client, err := asyncnats.Connect(ctx, c.connect(t), asyncnats.Config{})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := client.CreateQueue(ctx, job.DefaultQueue, asyncnats.QueueConfig{Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	for range 2 {
		c.dispatch(t, handlers(log)...)
	}
	if err := asyncnats.Repeat(ctx, queue, "pulse", "@every 1s", nap.Call(0), asyncnats.RecurringConfig{}); err != nil {
		t.Fatal(err)
	}
	untaken := asyncnats.Define[asyncnats.None, asyncnats.None]("story.untaken")
	lonely, err := asyncnats.Put(ctx, queue, untaken.Call(asyncnats.None{}).Within(4*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ticks := func() int { return len(starts(eventsSoFar(log))) }
	await(t, func() bool { return ticks() >= 2 })
	leader := c.leader(t, "ASYNC_default")
	c.stop(leader)
	if _, err := lonely.Wait(ctx); !errors.Is(err, job.ErrTimeout) {
		t.Errorf("job that nobody takes ended as %v", err)
	}
	c.start(t, leader)
	await(t, func() bool { return ticks() >= 8 })
	if err := queue.RemoveRecurring(ctx, "pulse"); err != nil {
		t.Fatal(err)
	}
	// What the leader's death has delayed comes within the ack wait.
	await(t, func() bool {
		info, err := queue.Info(ctx)
		return err == nil && info.Messages == 0
	})
	runs := starts(events(t, log))
	first, last := time.Now().Unix(), int64(0)
	for id, n := range runs {
		_, tick, _ := strings.Cut(strings.TrimPrefix(string(id), "cron/"), "/")
		unix, err := strconv.ParseInt(tick, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, last = min(first, unix), max(last, unix)
		if n != 1 {
			t.Errorf("%s ran %d times", id, n)
		}
	}
	if n := int64(len(runs)); n < 8 || n != last-first+1 {
		t.Errorf("%d ticks ran between %d and %d", n, first, last)
	}
}
