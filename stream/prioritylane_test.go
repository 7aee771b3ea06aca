package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// Jobs of another priority than normal have a lane of their own, which is
// registered with it.
func TestPriorityLane(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		high, low := newEntry(), limited("")
		high.Spec.Priority, low.Spec.Priority = job.High, job.Low
		put(t, q, high, newEntry(), low)
		highLane, lowLane := LaneOf(task, nil, job.High), LaneOf(task, []string{"db", "gpu"}, job.Low)
		lanes, err := q.Lanes(t.Context())
		if err != nil || !slices.Equal(lanes, []Lane{lane, highLane, lowLane}) {
			t.Errorf("lanes %v, %v", lanes, err)
		}
		entry, err := q.lanes.Get(t.Context(), "lane.media.image=thumb==db==gpu===low")
		want := laneEntry{Task: task, Quotas: []string{"db", "gpu"}, Priority: job.Low, Created: time.Now().UTC()}
		if err != nil || !cmp.Equal(want, entry.Value) {
			t.Errorf("registered as %+v, %v", entry.Value, err)
		}
		if l := tapLane(t, q, highLane).take(t); l.ID != high.ID || l.Lane != highLane {
			t.Errorf("brought %s of lane %s", l.ID, l.Lane.Token())
		}
		if found := consumerOf(t, q, highLane); found.Description != "asyncnats lane of task image.thumb of priority high" || found.MaxAckPending != -1 {
			t.Errorf("consumer %q, flow %d", found.Description, found.MaxAckPending)
		}
		found, err := q.Find(t.Context(), low.ID)
		if err != nil || found.Lane != lowLane {
			t.Fatalf("stored on %s, %v", found.Lane.Token(), err)
		}
		if spec, err := found.Spec(); err != nil || spec.Priority != job.Low {
			t.Errorf("priority %v, %v", spec.Priority, err)
		}
		info, err := q.Info(t.Context(), time.Millisecond)
		if err != nil || len(info.Lanes) != 3 || info.Lanes[1].Priority != job.High || info.Lanes[2].Priority != job.Low || info.Strays != 0 {
			t.Errorf("info %+v, %v", info, err)
		}
	})
}

// A put of a priority that there is not is refused before anything is stored.
func TestPutWithUnknownPriority(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := newEntry()
		e.Spec.Priority = 2
		if err := q.Put(t.Context(), e); err == nil || !strings.Contains(err.Error(), "unknown priority 2: must be Low, Normal or High") {
			t.Errorf("%v", err)
		}
		if _, err := q.PutMany(t.Context(), []Entry{newEntry(), e}); err == nil {
			t.Error("in a batch: no error")
		}
		wantMessages(t, q, 0)
		if lanes, err := q.Lanes(t.Context()); err != nil || len(lanes) > 1 {
			t.Errorf("lanes %v, %v", lanes, err)
		}
	})
}

// A body by hand has its lane's priority, and must not contradict it.
func TestPriorityByHand(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		urgent := LaneOf(task, nil, job.High)
		for i, row := range []struct {
			lane Lane
			body string
			want string // of the error, empty for none
		}{
			{urgent, `{}`, ""},
			{urgent, `{"priority":"high"}`, ""},
			{lane, `{"priority":"normal"}`, ""},
			{urgent, `{"priority":"normal"}`, "body has priority normal and was published on a lane of priority high"},
			{lane, `{"priority":"high"}`, "body has priority high and was published on a lane of priority normal"},
		} {
			id := job.ID(fmt.Sprint("hand-", i))
			if _, err := q.ns.js.Publish(t.Context(), q.names.job(row.lane, id), []byte(row.body)); err != nil {
				t.Fatal(err)
			}
			found, err := q.Find(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			spec, err := found.Spec()
			switch {
			case row.want == "" && (err != nil || spec.Priority != row.lane.Priority):
				t.Errorf("%s on %s: priority %v, %v", row.body, row.lane.Token(), spec.Priority, err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("%s on %s: %v, want %s", row.body, row.lane.Token(), err, row.want)
			}
		}
	})
}
