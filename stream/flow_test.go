package stream

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// quotaLane is the lane of jobs that name quotas.
var quotaLane = LaneOf(task, []string{"db", "gpu"}, job.Normal)

// limited is a job of that lane.
func limited(id job.ID) Entry {
	e := chosen(id, task)
	e.Spec.Quotas = quotaLane.Quotas()
	return e
}

// consumerOf is the config of the lane's consumer as the server has it.
func consumerOf(t *testing.T, q *Queue, lane Lane) jetstream.ConsumerConfig {
	t.Helper()
	consumer, err := q.ns.js.Consumer(t.Context(), q.names.stream(), lane.Token())
	if err != nil {
		t.Fatal(err)
	}
	return consumer.CachedInfo().Config
}

func setFlow(t *testing.T, q *Queue, lane Lane, n int) {
	t.Helper()
	if err := q.SetFlow(t.Context(), lane, n); err != nil {
		t.Fatal(err)
	}
	if got := consumerOf(t, q, lane).MaxAckPending; got != n {
		t.Errorf("flow %d, want %d", got, n)
	}
}

// Setting a flow makes the consumer where there is none, and changes nothing
// else where there is one.
func TestSetFlow(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for _, lane := range []Lane{lane, quotaLane} {
			for _, n := range []int{1, 1, 10, -1, -1, 3} {
				setFlow(t, q, lane, n)
			}
			want := consumerConfig(q.names, lane, ackWait)
			want.MaxAckPending = 3
			got := consumerOf(t, q, lane)
			got.Metadata, got.Name, got.Replicas = nil, want.Name, want.Replicas
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("consumer of %s (-want +got):\n%s", lane.Token(), diff)
			}
		}
		// What an administrator changed stays.
		config := consumerOf(t, q, quotaLane)
		config.Description = "mine"
		if _, err := q.ns.js.UpdateConsumer(t.Context(), q.names.stream(), config); err != nil {
			t.Fatal(err)
		}
		setFlow(t, q, quotaLane, 7)
		if got := consumerOf(t, q, quotaLane); got.Description != "mine" {
			t.Errorf("altered: %+v", got)
		}
	})
}

// Setting what is set already costs no more than asking, and writes nothing.
func TestSetFlowIsCheap(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		other := s.Connect(t)
		advisories, err := other.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.>")
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Flush(); err != nil {
			t.Fatal(err)
		}
		setFlow(t, q, quotaLane, 5)
		synctest.Wait()
		before, told := q.conn().Stats().OutMsgs, messagesOf(t, advisories)
		if told == 0 {
			t.Fatal("not told that the consumer was made")
		}
		if err := q.SetFlow(t.Context(), quotaLane, 5); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if sent := q.conn().Stats().OutMsgs - before; sent > 2 || messagesOf(t, advisories) != told {
			t.Errorf("%d requests, %d events; want at most 2 and none", sent, messagesOf(t, advisories)-told)
		}
	})
}

// The server gives out as many as the flow lets it, and more when it is raised,
// to pulls that wait already.
func TestFlowLimitsDeliveries(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for range 6 {
			put(t, q, limited(""))
		}
		c := tapLane(t, q, quotaLane)
		c.pull(t, 6, true)
		synctest.Wait()
		wantLeases(t, c, "at first", initialFlow)
		setFlow(t, q, quotaLane, 3)
		synctest.Wait()
		wantLeases(t, c, "raised to 3", 3)
		setFlow(t, q, quotaLane, 1)
		lease := c.next(t)
		if err := lease.Ack(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantLeases(t, c, "lowered to 1, one acked", 2)
		for range 2 {
			if err := c.next(t).Ack(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		wantLeases(t, c, "all acked", 1)
		setFlow(t, q, quotaLane, -1)
		time.Sleep(time.Second)
		wantLeases(t, c, "no limit", 3)
	})
}

func wantLeases(t *testing.T, c *tapped, what string, want int) {
	t.Helper()
	if got := len(c.leases); got != want {
		t.Errorf("%s: %d were brought, want %d", what, got, want)
	}
}

func TestSetFlowRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		foreign := consumerConfig(q.names, quotaLane, ackWait)
		foreign.MaxDeliver = 5
		if _, err := q.ns.js.CreateConsumer(t.Context(), q.names.stream(), foreign); err != nil {
			t.Fatal(err)
		}
		if _, ok := errors.AsType[*ConfigError](q.SetFlow(t.Context(), quotaLane, 9)); !ok {
			t.Error("a consumer that cannot serve was taken")
		}
		if got := consumerOf(t, q, quotaLane).MaxAckPending; got != initialFlow {
			t.Errorf("its flow was set to %d", got)
		}
		cut, wire := wired(t, s)
		wire.Freeze()
		within(t, 2*tryPatience, "without answer", func() {
			if err := cut.SetFlow(t.Context(), lane, 1); !errors.Is(err, ErrUnanswered) {
				t.Errorf("%v, want ErrUnanswered", err)
			}
		})
		if err := q.ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Fatal(err)
		}
		if err := q.SetFlow(t.Context(), lane, 1); !errors.Is(err, ErrNoQueue) {
			t.Errorf("%v, want ErrNoQueue", err)
		}
	})
}

// A consumer whose folder the server has lost serves all the same. Its flow cannot
// be set, which says what to do, until it is removed and made again.
func TestFlowWithoutItsFolder(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		setFlow(t, q, quotaLane, initialFlow)
		folders, err := filepath.Glob(filepath.Join(s.StoreDir(), "jetstream", "*", "streams", q.names.stream(), "obs", quotaLane.Token()))
		if err != nil || len(folders) != 1 {
			t.Fatalf("folders %q, %v", folders, err)
		}
		if err := os.RemoveAll(folders[0]); err != nil {
			t.Fatal(err)
		}
		put(t, q, limited("a"))
		c := tapLane(t, q, quotaLane)
		c.pull(t, 1, true)
		if lease := c.next(t); lease.ID != "a" {
			t.Errorf("brought %s", lease.ID)
		}
		for range 2 {
			err := q.SetFlow(t.Context(), quotaLane, 5)
			if err == nil || !strings.Contains(err.Error(), "remove consumer "+quotaLane.Token()+" of stream ASYNC_media") {
				t.Errorf("%v: does not say what to do", err)
			}
		}
		if err := q.ns.js.DeleteConsumer(t.Context(), q.names.stream(), quotaLane.Token()); err != nil {
			t.Fatal(err)
		}
		setFlow(t, q, quotaLane, 5)
	})
}

// What the server cannot make at all is an error.
func TestTapWithoutAFolder(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		streams, err := filepath.Glob(filepath.Join(s.StoreDir(), "jetstream", "*", "streams", q.names.stream()))
		if err != nil || len(streams) != 1 {
			t.Fatalf("folders %q, %v", streams, err)
		}
		// A file where the folder of consumers would be.
		blocked := filepath.Join(streams[0], "obs")
		if err := os.RemoveAll(blocked); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blocked, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Tap(t.Context(), quotaLane, NewLink(q.conn(), time.Second), Sink{}); !unwritten(err) {
			t.Errorf("%v, want what the server says of its disk", err)
		}
	})
}
