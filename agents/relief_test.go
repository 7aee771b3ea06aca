package agents

import (
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/quotas"
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
