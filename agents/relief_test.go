package agents

import (
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// A full lane is waited on for one job while a place is free, unless it brought one
// in vain a moment ago.
func TestRelieve(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		queue, link := newQueue(t, s)
		sink := stream.Sink{Deliver: func(*stream.Pull, *stream.Lease) {}, End: func(*stream.Pull, error) {}}
		lane := stream.LaneOf("a", []string{"gpu"}, job.Normal)
		tap, err := queue.Tap(t.Context(), lane, link, sink)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tap.Close)
		every := queue.AckWait()
		for name, row := range map[string]struct {
			queued, running int
			before          time.Duration // since it brought one in vain
			shut, stopped   bool
			waited          bool
			rest            time.Duration
		}{
			"not full":                   {queued: 1, before: time.Hour, rest: time.Hour},
			"full":                       {queued: 2, before: time.Hour, waited: true, rest: time.Hour},
			"over full":                  {queued: 7, before: every, waited: true, rest: time.Hour},
			"in vain a moment ago":       {queued: 2, before: every - time.Second, rest: time.Second},
			"one place free":             {queued: 2, running: 1, before: time.Hour, waited: true, rest: time.Hour},
			"no place free":              {queued: 2, running: 2, before: time.Hour, rest: time.Hour},
			"shut":                       {queued: 2, shut: true, before: time.Hour, rest: time.Hour},
			"the agent takes no more":    {queued: 2, stopped: true, before: time.Hour, rest: time.Hour},
			"not full, in vain just now": {queued: 1, rest: time.Hour},
		} {
			now := time.Now()
			full := &laneState{lane: lane, tap: tap, shut: row.shut, queued: make([]*admission, row.queued), vain: now.Add(-row.before)}
			r := NewRunner(Config{Agent: Agent{Name: "main", Size: 2}, Queue: queue, Link: link})
			r.lanes, r.running, r.stopped = []*laneState{full}, row.running, row.stopped
			rest := r.relieve(now)
			if waited := full.waiting != nil && full.relief; waited != row.waited || rest != row.rest {
				t.Errorf("%s: waited on %t, left alone for %v; want %t, %v", name, waited, rest, row.waited, row.rest)
			}
			if again := r.relieve(now); full.waiting != nil && (again != time.Hour || full.asked != nil) {
				t.Errorf("%s: waited on again", name)
			}
			r.cancelPulls()
		}
	})
}

// Of a full lane that brings a job which has to wait, the last in line is handed
// back: it may be that job itself.
func TestSwap(t *testing.T) {
	gate := quotas.NewGate(new(quotas.Set), quotas.GateConfig{})
	ticket := func(sequence uint64, interrupted bool) *quotas.Ticket {
		return gate.Enter(quotas.Entry{Sequence: sequence, Interrupted: interrupted})
	}
	for name, row := range map[string]struct {
		size    int
		relief  bool
		waiting []*quotas.Ticket // the last has arrived
		gone    int              // -1 for nobody
	}{
		"the one that came is first":         {2, true, []*quotas.Ticket{ticket(5, false), ticket(7, false), ticket(2, false)}, 1},
		"the one that came is last":          {2, true, []*quotas.Ticket{ticket(5, false), ticket(7, false), ticket(9, false)}, 2},
		"one that was interrupted is before": {2, true, []*quotas.Ticket{ticket(5, false), ticket(7, false), ticket(9, true)}, 1},
		"others went meanwhile":              {3, true, []*quotas.Ticket{ticket(5, false), ticket(7, false), ticket(9, false)}, -1},
		"the lane was not full":              {2, false, []*quotas.Ticket{ticket(5, false), ticket(7, false), ticket(9, false)}, -1},
	} {
		r, lane := &Runner{size: row.size}, &laneState{}
		var all []*admission
		for i, waits := range row.waiting {
			entry := lane.arrive(r, row.relief && i == len(row.waiting)-1)
			entry.wait(waits)
			all = append(all, entry)
		}
		for i, entry := range all {
			gone := false
			select {
			case <-entry.swapped:
				gone = true
			default:
			}
			if gone != (i == row.gone) {
				t.Errorf("%s: number %d is handed back: %t", name, i, gone)
			}
		}
		if left := !lane.vain.IsZero(); left != (row.gone == len(all)-1) {
			t.Errorf("%s: the lane is left alone: %t", name, left)
		}
	}
}
