package agents

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var orders = cmp.AllowUnexported(order{})

func TestPlan(t *testing.T) {
	cold, hot := laneView{}, laneView{hot: true}
	due := laneView{due: true}
	for name, row := range map[string]struct {
		view view
		want []order
		next int
	}{
		"no lanes": {view{size: 3, idle: 3}, nil, 0},
		"idle, one lane: one pull for all places": {
			view{size: 3, idle: 3, lanes: []laneView{cold}},
			[]order{{0, 3, true}}, 0,
		},
		"idle, fewer lanes than places: places are shared out": {
			view{size: 5, idle: 5, lanes: []laneView{cold, cold}},
			[]order{{0, 2, true}, {1, 2, true}}, 0,
		},
		"idle, more lanes than places: one pull on each": {
			view{size: 2, idle: 2, lanes: []laneView{cold, cold, cold}},
			[]order{{0, 1, true}, {1, 1, true}, {2, 1, true}}, 0,
		},
		"idle: what waits already is left": {
			view{size: 2, idle: 2, lanes: []laneView{{waiting: true}, cold, {asked: true}}},
			[]order{{1, 1, true}}, 0,
		},
		"full": {view{size: 2, taken: 2, lanes: []laneView{cold, hot}}, nil, 0},
		"hot: it is asked for what there is room for": {
			view{size: 4, taken: 1, idle: 3, lanes: []laneView{hot, cold}},
			[]order{{0, 3, false}}, 1,
		},
		"two hot: the room is shared": {
			view{size: 5, idle: 5, lanes: []laneView{hot, hot}},
			[]order{{0, 3, false}, {1, 2, false}}, 0,
		},
		"one place, two hot: they take turns": {
			view{size: 1, idle: 1, lanes: []laneView{hot, hot}, next: 1},
			[]order{{1, 1, false}}, 0,
		},
		"a cold lane that is due has its turn before a hot one": {
			view{size: 1, idle: 1, lanes: []laneView{due, hot}},
			[]order{{0, 1, false}}, 1,
		},
		"a cold lane that is not due has none": {
			view{size: 1, idle: 1, lanes: []laneView{cold, hot}},
			[]order{{1, 1, false}}, 0,
		},
		"a cold lane with a waiting pull needs no look": {
			view{size: 1, idle: 1, lanes: []laneView{{due: true, waiting: true}, hot}},
			[]order{{1, 1, false}}, 0,
		},
		"a lane that is asked is not asked again": {
			view{size: 4, taken: 1, idle: 4, lanes: []laneView{{hot: true, asked: true}, cold}},
			nil, 0,
		},
		"prefetch: full places, room in advance": {
			view{size: 4, prefetch: 4, taken: 4, lanes: []laneView{hot}},
			[]order{{0, 4, false}}, 0,
		},
		"prefetch: little room is not worth a pull": {
			view{size: 4, prefetch: 4, taken: 7, lanes: []laneView{hot}},
			nil, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, next := plan(row.view)
			if diff := cmp.Diff(row.want, got, orders); diff != "" || next != row.next {
				t.Errorf("next %d, want %d; orders (-want +got):\n%s", next, row.next, diff)
			}
		})
	}
}

// Whatever the state, pulls that do not wait never ask for more than there is
// room for, no lane is asked twice, and an agent with a free place and nothing
// under way asks somebody.
func TestPlanInvariants(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200_000 {
		v := view{size: 1 + r.IntN(8), prefetch: r.IntN(2) * r.IntN(8), lanes: make([]laneView, 1+r.IntN(6))}
		running := r.IntN(v.size + 1)
		held := r.IntN(3)
		v.taken, v.idle = running+held, v.size-running-held
		v.next = r.IntN(len(v.lanes))
		underWay := false
		for i := range v.lanes {
			v.lanes[i] = laneView{hot: r.IntN(2) == 0, asked: r.IntN(4) == 0, waiting: r.IntN(4) == 0, due: r.IntN(2) == 0}
			underWay = underWay || v.lanes[i].asked || v.lanes[i].waiting
			if v.lanes[i].asked {
				v.taken++
			}
		}
		orders, next := plan(v)
		if next < 0 || next >= len(v.lanes) {
			t.Fatalf("%+v: next is %d", v, next)
		}
		asked := 0
		seen := map[int]bool{}
		for _, o := range orders {
			if o.jobs < 1 || seen[o.lane] || v.lanes[o.lane].asked {
				t.Fatalf("%+v: bad order %+v", v, o)
			}
			seen[o.lane] = true
			if !o.waiting {
				asked += o.jobs
			}
		}
		if room := v.size + v.prefetch - v.taken; asked > max(0, room) {
			t.Fatalf("%+v: asked for %d, room for %d", v, asked, room)
		}
		if v.idle > 0 && v.taken == 0 && !underWay && len(orders) == 0 {
			t.Fatalf("%+v: nobody is asked", v)
		}
	}
}

// Every hot lane has its turn, whatever the size.
func TestTurnsAreFair(t *testing.T) {
	const lanes, rounds = 7, 7000
	turns := make([]int, lanes)
	v := view{size: 1, idle: 1, lanes: make([]laneView, lanes)}
	for i := range v.lanes {
		v.lanes[i].hot = true
	}
	for range rounds {
		orders, next := plan(v)
		for _, o := range orders {
			turns[o.lane] += o.jobs
		}
		v.next = next
	}
	for i, n := range turns {
		if n != rounds/lanes {
			t.Errorf("lane %d had %d turns of %d: %v", i, n, rounds, turns)
		}
	}
}

func TestPrefetch(t *testing.T) {
	for name, row := range map[string]struct {
		size int
		took time.Duration
		want int
	}{
		"nothing known": {64, 0, 0},
		"jobs that take no time: as many as size": {64, 10 * time.Microsecond, 64},
		"a few milliseconds: some":                {64, 4 * time.Millisecond, 32},
		"long jobs: none":                         {64, time.Second, 0},
		"one place, short jobs":                   {1, time.Millisecond, 1},
		"one place, jobs that exceed the round":   {1, 3 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := prefetch(row.size, row.took); got != row.want {
				t.Errorf("got %d, want %d", got, row.want)
			}
		})
	}
}
