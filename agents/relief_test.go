package agents

import (
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// A full lane that brought a job in vain is left alone for an ack wait, and no other.
func TestRest(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		queue, link := newQueue(t, s)
		r := NewRunner(Config{Agent: Agent{Name: "main", Size: 2}, Queue: queue, Link: link})
		now := time.Now()
		for name, row := range map[string]struct {
			queued int
			vain   time.Time
			want   time.Duration
		}{
			"not full":                   {1, time.Time{}, 0},
			"full":                       {2, time.Time{}, 0},
			"in vain just now":           {2, now, queue.AckWait()},
			"over full, in vain lately":  {7, now.Add(-time.Second), queue.AckWait() - time.Second},
			"in vain long ago":           {2, now.Add(-queue.AckWait()), 0},
			"not full, in vain just now": {1, now, 0},
		} {
			lane := &laneState{queued: make([]*admission, row.queued), vain: row.vain}
			if got := lane.rest(r, now); got != row.want {
				t.Errorf("%s: left alone for %v, want %v", name, got, row.want)
			}
		}
	})
}

// Of a full lane that brings a job which has to wait, the last in line is handed
// back: it may be that job itself.
func TestSwap(t *testing.T) {
	gate := quotas.NewGate(new(quotas.Set), quotas.GateConfig{})
	type waiter struct {
		sequence    uint64
		interrupted bool
	}
	first, second, last := waiter{sequence: 5}, waiter{sequence: 7}, waiter{sequence: 9}
	for name, row := range map[string]struct {
		size    int
		relief  bool
		again   bool   // the one that came was given out before
		tried   uint64 // came before in vain
		waiting []waiter
		gone    int // -1 for nobody
		rests   bool
	}{
		"the one that came is first":         {size: 2, relief: true, waiting: []waiter{second, last, first}, gone: 1},
		"the one that came is last":          {size: 2, relief: true, waiting: []waiter{first, second, last}, gone: 2, rests: true},
		"it is, and others may come again":   {size: 2, relief: true, again: true, tried: 8, waiting: []waiter{first, second, last}, gone: 2},
		"it is, and they have come":          {size: 2, relief: true, again: true, tried: 9, waiting: []waiter{first, second, last}, gone: 2, rests: true},
		"one that was interrupted is before": {size: 2, relief: true, again: true, waiting: []waiter{first, second, {9, true}}, gone: 1},
		"others went meanwhile":              {size: 3, relief: true, waiting: []waiter{first, second, last}, gone: -1},
		"the lane was not full":              {size: 2, waiting: []waiter{first, second, last}, gone: -1},
	} {
		r, lane := &Runner{size: row.size}, &laneState{tried: map[uint64]bool{row.tried: true}}
		var all []*admission
		for i, w := range row.waiting {
			lease := &stream.Lease{Delivered: 1}
			if lease.Sequence = w.sequence; row.again {
				lease.Delivered = 2
			}
			entry := lane.arrive(r, lease, row.relief && i == len(row.waiting)-1)
			entry.wait(gate.Enter(quotas.Entry{Sequence: w.sequence, Interrupted: w.interrupted}))
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
		if rests := !lane.vain.IsZero(); rests != row.rests || rests && len(lane.tried) > 0 {
			t.Errorf("%s: the lane is left alone: %t, and knows %v", name, rests, lane.tried)
		}
	}
}
