package agents

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/internal/mailbox"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Lanes whose jobs name quotas are waited on, whatever the others do; how many
// of their jobs are given out is the server's to limit.
func TestPlanWithQuotas(t *testing.T) {
	cold, hot := laneView{}, laneView{hot: true}
	limited, limitedDue := laneView{limited: true, most: 4}, laneView{limited: true, most: 4, since: probeEvery}
	for name, row := range map[string]struct {
		view view
		want []order
		next int
	}{
		"idle: waited on as others": {
			view{size: 4, idle: 4, lanes: []laneView{cold, limited}},
			[]order{{lane: 0, jobs: 2, waiting: true}, {lane: 1, jobs: 2, waiting: true}}, 0,
		},
		"idle: a full lane is waited on for one job": {
			view{size: 4, idle: 4, lanes: []laneView{{limited: true, most: 1}}},
			[]order{{lane: 0, jobs: 1, waiting: true}}, 0,
		},
		"idle: one with little room is waited on for no more": {
			view{size: 9, idle: 9, lanes: []laneView{{limited: true, most: 3}, cold}},
			[]order{{lane: 0, jobs: 3, waiting: true}, {lane: 1, jobs: 4, waiting: true}}, 0,
		},
		"beside a hot one: a full lane is waited on as others": {
			view{size: 4, idle: 4, lanes: []laneView{{limited: true, most: 1, since: probeEvery}, hot}},
			[]order{{lane: 0, jobs: 1, waiting: true, keep: true}, {lane: 1, jobs: 3}}, 0,
		},
		"idle: what waits already is left": {
			view{size: 4, idle: 4, lanes: []laneView{{limited: true, waiting: true}, cold}},
			[]order{{lane: 1, jobs: 2, waiting: true}}, 0,
		},
		"behind a hot one that takes all the room: it has the next turn": {
			view{size: 4, idle: 4, lanes: []laneView{hot, limited}},
			[]order{{lane: 0, jobs: 4}}, 1,
		},
		"beside a hot one: it is waited on for one job": {
			view{size: 4, idle: 4, lanes: []laneView{limited, hot}},
			[]order{{lane: 0, jobs: 1, waiting: true}, {lane: 1, jobs: 4}}, 0,
		},
		"its turn is not the hot one's": {
			view{size: 4, taken: 3, idle: 1, lanes: []laneView{limited, hot, hot}, next: 1},
			[]order{{lane: 1, jobs: 1}}, 2,
		},
		"when it is due a place is kept": {
			view{size: 2, taken: 1, idle: 1, lanes: []laneView{limitedDue, hot}},
			[]order{{lane: 0, jobs: 1, waiting: true, keep: true}}, 0,
		},
		"one place is kept for all": {
			view{size: 2, idle: 2, lanes: []laneView{limitedDue, limitedDue, hot}},
			[]order{{lane: 0, jobs: 1, waiting: true, keep: true}, {lane: 1, jobs: 1, waiting: true}, {lane: 2, jobs: 1}}, 0,
		},
		"one place is kept already": {
			view{size: 2, idle: 2, kept: 1, lanes: []laneView{limitedDue, hot}},
			[]order{{lane: 0, jobs: 1, waiting: true}, {lane: 1, jobs: 1}}, 0,
		},
		"the only place is kept": {
			view{size: 1, idle: 1, kept: 1, lanes: []laneView{{limited: true, waiting: true}, hot}}, nil, 0,
		},
		"what waits already is left beside a hot one": {
			view{size: 2, idle: 2, lanes: []laneView{{limited: true, waiting: true, since: probeEvery}, hot}},
			[]order{{lane: 1, jobs: 2}}, 0,
		},
		"full": {view{size: 2, taken: 2, lanes: []laneView{limited, hot}}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, next := plan(row.view)
			if diff := cmp.Diff(row.want, got, orders); diff != "" || next != row.next {
				t.Errorf("next %d, want %d; orders (-want +got):\n%s", next, row.next, diff)
			}
		})
	}
}

// Whatever the state, no pull that does not wait goes to a lane with quotas, nor
// a second one that does.
func TestPlanWithQuotasInvariants(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 100_000 {
		v := view{size: 1 + r.IntN(8), lanes: make([]laneView, 1+r.IntN(6))}
		v.taken = r.IntN(v.size + 2)
		v.idle, v.next = v.size-v.taken, r.IntN(len(v.lanes))
		for i := range v.lanes {
			v.lanes[i] = laneView{asked: r.IntN(4) == 0, waiting: r.IntN(4) == 0, since: time.Duration(r.IntN(2)) * probeEvery, limited: r.IntN(2) == 0}
			v.lanes[i].hot = !v.lanes[i].limited && r.IntN(2) == 0
			if v.lanes[i].limited {
				v.lanes[i].asked = false
			}
		}
		got, _ := plan(v)
		for _, o := range got {
			if v.lanes[o.lane].limited && (!o.waiting || v.lanes[o.lane].waiting) {
				t.Fatalf("%+v: bad order %+v", v, o)
			}
		}
	}
}

// A job that names quotas is counted where it stands: as one that may get its
// slots at once, or as one that waits; and once it has a place, or is gone,
// nowhere.
func TestAdmissionIsCounted(t *testing.T) {
	r := &Runner{}
	one, other := &laneState{}, &laneState{}
	want := func(what string, entering, queuedOne, queuedOther int) {
		t.Helper()
		if r.entering != entering || len(one.queued) != queuedOne || len(other.queued) != queuedOther {
			t.Errorf("%s: entering %d, queued %d and %d; want %d, %d and %d", what, r.entering, len(one.queued), len(other.queued), entering, queuedOne, queuedOther)
		}
	}
	var all []*admission
	for _, lane := range []*laneState{one, one, other} {
		all = append(all, lane.arrive(r, nil, false))
	}
	want("delivered", 3, 0, 0)
	all[0].move(queued)
	want("one waits", 2, 1, 0)
	all[0].move(queued)
	want("it still waits", 2, 1, 0)
	all[2].move(queued)
	want("one of another lane waits", 1, 1, 1)
	all[1].move(outside)
	want("one got its slots at once", 0, 1, 1)
	all[1].move(queued)
	want("late word of it", 0, 1, 1)
	for range 2 {
		for _, entry := range all {
			entry.move(outside)
		}
		want("all are gone", 0, 0, 0)
	}
}

// Where as many jobs of a lane wait for a slot as an agent has places, it asks for one
// more, unless that was in vain lately; and it keeps a place for those that may get theirs at once.
func TestPullWithQuotas(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		queue, link := newQueue(t, s)
		sink := stream.Sink{Deliver: func(*stream.Pull, *stream.Lease) {}, End: func(*stream.Pull, error) {}}
		state := func(quotas ...string) *laneState {
			lane := stream.LaneOf("a", quotas, job.Normal)
			tap, err := queue.Tap(t.Context(), lane, link, sink)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(tap.Close)
			return &laneState{lane: lane, tap: tap}
		}
		for name, row := range map[string]struct {
			queued, entering, running int
			vain                      bool
			limited, plain            bool // which is waited on
			relief                    bool
		}{
			"idle":                             {limited: true, plain: true},
			"one waits":                        {queued: 1, limited: true, plain: true},
			"as many wait as there are places": {queued: 2, limited: true, plain: true, relief: true},
			"more wait":                        {queued: 5, limited: true, plain: true, relief: true},
			"as many wait, in vain":            {queued: 2, vain: true, plain: true},
			"one waits, in vain":               {queued: 1, vain: true, limited: true, plain: true},
			"as many wait, one runs":           {queued: 2, running: 1, limited: true, plain: true, relief: true},
			"as many wait, two run":            {queued: 2, running: 2},
			"one may get its slot":             {queued: 1, entering: 1, limited: true, plain: true},
			"two may":                          {entering: 2},
			"one may, one runs":                {entering: 1, running: 1},
			"two run":                          {running: 2},
		} {
			limited, plain := state("gpu"), state()
			limited.queued = make([]*admission, row.queued)
			r := NewRunner(Config{Agent: Agent{Name: "main", Size: 2}, Queue: queue, Link: link})
			r.lanes, r.entering, r.running = []*laneState{limited, plain}, row.entering, row.running
			if row.vain {
				limited.vain = time.Now()
			}
			r.pull(time.Now())
			if limited.relief != row.relief {
				t.Errorf("%s: the pull is of a full lane: %t", name, limited.relief)
			}
			if got := limited.waiting != nil; got != row.limited {
				t.Errorf("%s: the lane with quotas is waited on: %t", name, got)
			}
			if got := plain.waiting != nil; got != row.plain {
				t.Errorf("%s: the other is waited on: %t", name, got)
			}
			r.cancelPulls()
		}
	})
}

func newQueue(t *testing.T, s *natstest.Server) (*stream.Queue, *stream.Link) {
	t.Helper()
	js := s.JetStream(t)
	namespace, err := stream.Open(t.Context(), js, "")
	if err != nil {
		t.Fatal(err)
	}
	queue, err := namespace.CreateQueue(t.Context(), "media", stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return queue, stream.NewLink(js.Conn(), time.Second)
}

// However many more a lane with quotas has, it does not become hot.
func TestLaneWithQuotasIsNotHot(t *testing.T) {
	r := &Runner{stopped: true, box: mailbox.New()}
	for name, row := range map[string]struct {
		quotas  []string
		pending uint64
		want    bool
	}{
		"more to be had":              {nil, 5, true},
		"nothing more":                {nil, 0, false},
		"more to be had, with quotas": {[]string{"gpu"}, 5, false},
		"nothing more, with quotas":   {[]string{"gpu"}, 0, false},
	} {
		s := &laneState{lane: stream.LaneOf("a", row.quotas, job.Normal)}
		r.delivered(s, nil, &stream.Lease{Pending: row.pending})
		if s.hot != row.want {
			t.Errorf("%s: hot is %t", name, s.hot)
		}
	}
}

// Held jobs start by priority, then those that have their slots, then by the
// agent's preference, then in the order of their deliveries.
func TestHeldJobsStartInOrder(t *testing.T) {
	r := &Runner{size: 1, running: 1}
	var order []string
	add := func(name string, priority job.Priority, rank int, slot bool) {
		lane := &laneState{lane: stream.Lane{Task: "a", Priority: priority}, rank: rank}
		r.hold(hold{since: time.Now(), lane: lane, slot: slot, start: func() { order = append(order, name); r.running++ }, refuse: func() {}})
	}
	add("low", job.Low, 4, false)
	add("normal, not preferred", job.Normal, 3, false)
	add("low with slot", job.Low, 5, true)
	add("normal", job.Normal, 2, false)
	add("high, not preferred", job.High, 1, false)
	add("normal, later", job.Normal, 2, false)
	add("high", job.High, 0, false)
	add("normal with slot, not preferred", job.Normal, 3, true)
	want := []string{
		"high", "high, not preferred", "normal with slot, not preferred", "normal", "normal, later", "normal, not preferred", "low with slot", "low",
	}
	for range want {
		r.running--
		r.step(time.Now())
	}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("started (-want +got):\n%s", diff)
	}
}

// An order ranks lanes by priority, then by the agent's preference.
func TestRank(t *testing.T) {
	o := Order{Agent: Agent{Name: "main", Prefer: []string{"a", "b.>"}}}
	var ranked []stream.Lane
	for _, p := range []job.Priority{job.High, job.Normal, job.Low} {
		for _, task := range []string{"a", "b.c", "d"} {
			ranked = append(ranked, stream.LaneOf(task, []string{"gpu"}, p))
		}
	}
	for i, lane := range ranked {
		if got := o.rank(lane); got != i {
			t.Errorf("%s has rank %d, want %d", lane.Token(), got, i)
		}
	}
	if (Order{}).rank(ranked[0]) != 0 || (Order{}).rank(ranked[8]) != 2 {
		t.Error("without preference the priority alone counts")
	}
}

// Who has a slot gets the next place, before those who came earlier and need
// none.
func TestSlotsComeFirst(t *testing.T) {
	r := &Runner{size: 1, running: 1}
	var order []string
	add := func(name string, slot bool) {
		r.hold(hold{since: time.Now(), lane: &laneState{}, slot: slot, start: func() { order = append(order, name); r.running++ }, refuse: func() {}})
	}
	add("a", false)
	add("slot 1", true)
	add("b", false)
	add("slot 2", true)
	for range 4 {
		r.running--
		r.step(time.Now())
	}
	if diff := cmp.Diff([]string{"slot 1", "slot 2", "a", "b"}, order); diff != "" {
		t.Errorf("started (-want +got):\n%s", diff)
	}
	// A free place is theirs at once, and a stopped runner has none.
	r.running, order = 0, nil
	add("slot 3", true)
	r.stopped, r.running = true, 0
	refused := false
	r.hold(hold{since: time.Now(), lane: &laneState{}, slot: true, start: func() { t.Error("started") }, refuse: func() { refused = true }})
	r.step(time.Now())
	if !cmp.Equal(order, []string{"slot 3"}) || !refused {
		t.Errorf("started %q; refused %t", order, refused)
	}
}
