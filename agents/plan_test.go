package agents

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var orders = cmp.AllowUnexported(order{})

func TestPlan(t *testing.T) {
	cold, hot := laneView{}, laneView{hot: true}
	due := laneView{since: probeEvery}
	hotAt := func(rank int, since time.Duration) laneView { return laneView{hot: true, rank: rank, since: since} }
	dueAt := func(rank int) laneView { return laneView{rank: rank, since: probeEvery} }
	limitedAt := func(rank int, since time.Duration) laneView {
		return laneView{limited: true, most: 1, rank: rank, since: since}
	}
	for name, row := range map[string]struct {
		view view
		want []order
		next int
	}{
		"no lanes": {view{size: 3, idle: 3}, nil, 0},
		"idle, one lane: one pull for all places": {
			view{size: 3, idle: 3, lanes: []laneView{cold}},
			[]order{{lane: 0, jobs: 3, waiting: true}}, 0,
		},
		"idle, fewer lanes than places: places are shared out": {
			view{size: 5, idle: 5, lanes: []laneView{cold, cold}},
			[]order{{lane: 0, jobs: 2, waiting: true}, {lane: 1, jobs: 2, waiting: true}}, 0,
		},
		"idle, more lanes than places: one pull on each": {
			view{size: 2, idle: 2, lanes: []laneView{cold, cold, cold}},
			[]order{{lane: 0, jobs: 1, waiting: true}, {lane: 1, jobs: 1, waiting: true}, {lane: 2, jobs: 1, waiting: true}}, 0,
		},
		"idle: what waits already is left": {
			view{size: 2, idle: 2, lanes: []laneView{{waiting: true}, cold, {asked: true}}},
			[]order{{lane: 1, jobs: 1, waiting: true}}, 0,
		},
		"full": {view{size: 2, taken: 2, lanes: []laneView{cold, hot}}, nil, 0},
		"hot: it is asked for what there is room for": {
			view{size: 4, taken: 1, idle: 3, lanes: []laneView{hot, cold}},
			[]order{{lane: 0, jobs: 3}}, 1,
		},
		"two hot: the room is shared": {
			view{size: 5, idle: 5, lanes: []laneView{hot, hot}},
			[]order{{lane: 0, jobs: 3}, {lane: 1, jobs: 2}}, 0,
		},
		"one place, two hot: they take turns": {
			view{size: 1, idle: 1, lanes: []laneView{hot, hot}, next: 1},
			[]order{{lane: 1, jobs: 1}}, 0,
		},
		"a cold lane that is due has its turn before a hot one": {
			view{size: 1, idle: 1, lanes: []laneView{due, hot}},
			[]order{{lane: 0, jobs: 1}}, 1,
		},
		"a cold lane that is not due has none": {
			view{size: 1, idle: 1, lanes: []laneView{cold, hot}},
			[]order{{lane: 1, jobs: 1}}, 0,
		},
		"a cold lane with a waiting pull needs no look": {
			view{size: 1, idle: 1, lanes: []laneView{{since: probeEvery, waiting: true}, hot}},
			[]order{{lane: 1, jobs: 1}}, 0,
		},
		"a lane that is asked is not asked again": {
			view{size: 4, taken: 1, idle: 4, lanes: []laneView{{hot: true, asked: true}, cold}},
			nil, 0,
		},
		"prefetch: full places, room in advance": {
			view{size: 4, prefetch: 4, taken: 4, lanes: []laneView{hot}},
			[]order{{lane: 0, jobs: 4}}, 0,
		},
		"prefetch: little room is not worth a pull": {
			view{size: 4, prefetch: 4, taken: 7, lanes: []laneView{hot}},
			nil, 0,
		},

		// Ranks: lanes of a lower one come first.
		"idle: the first rank is asked first": {
			view{size: 1, idle: 1, lanes: []laneView{{rank: 2}, {rank: 0}, {rank: 1}, {rank: 0}}},
			[]order{{lane: 1, jobs: 1, waiting: true}, {lane: 3, jobs: 1, waiting: true}, {lane: 2, jobs: 1, waiting: true}, {lane: 0, jobs: 1, waiting: true}}, 0,
		},
		"several ranks hot: the first has all the room": {
			view{size: 4, idle: 4, lanes: []laneView{hotAt(1, 0), hotAt(0, 0), hotAt(2, 0)}},
			[]order{{lane: 1, jobs: 4}}, 2,
		},
		"a later rank hot: the earlier is looked into first, and the turn stays": {
			view{size: 1, idle: 1, lanes: []laneView{dueAt(0), hotAt(1, 0), hotAt(1, 0)}, next: 2},
			[]order{{lane: 0, jobs: 1}}, 2,
		},
		"a later rank hot: the earliest is looked into first": {
			view{size: 1, idle: 1, lanes: []laneView{dueAt(1), hotAt(2, 0), dueAt(0)}},
			[]order{{lane: 2, jobs: 1}}, 0,
		},
		"a later rank hot: the earlier is not looked into all the time": {
			view{size: 1, idle: 1, lanes: []laneView{cold, hotAt(1, 0), hotAt(1, 0)}, next: 2},
			[]order{{lane: 2, jobs: 1}}, 0,
		},
		"nothing is looked into that comes later, due or not": {
			view{size: 4, idle: 4, lanes: []laneView{hotAt(0, 0), dueAt(1), hotAt(1, time.Hour), limitedAt(1, time.Hour)}},
			[]order{{lane: 0, jobs: 4}}, 1,
		},
		"with quotas: waited on, where the lane does not come later": {
			view{size: 2, idle: 2, lanes: []laneView{limitedAt(0, time.Hour), limitedAt(1, 0), hotAt(1, 0), limitedAt(2, time.Hour)}},
			[]order{{lane: 0, jobs: 1, waiting: true, keep: true}, {lane: 1, jobs: 1, waiting: true}, {lane: 2, jobs: 1}}, 3,
		},

		// Turns of lanes that were passed over.
		"a turn: it comes before all others": {
			view{size: 1, idle: 1, turns: 1, lanes: []laneView{hotAt(0, time.Hour), hotAt(1, 0)}},
			[]order{{lane: 1, jobs: 1, turn: true}}, 0,
		},
		"a turn: the lane not looked into for longest has it, whatever its rank": {
			view{size: 1, idle: 1, turns: 1, lanes: []laneView{hotAt(0, 0), hotAt(1, time.Second), hotAt(2, 2*time.Second), hotAt(1, 0)}},
			[]order{{lane: 2, jobs: 1, turn: true}}, 0,
		},
		"a turn and more room: the rest goes as ever": {
			view{size: 4, idle: 4, turns: 1, lanes: []laneView{hotAt(0, 0), hotAt(1, 0)}},
			[]order{{lane: 1, jobs: 1, turn: true}, {lane: 0, jobs: 3}}, 1,
		},
		"several turns: one pull": {
			view{size: 64, prefetch: 64, idle: 64, turns: 7, lanes: []laneView{hotAt(0, 0), hotAt(1, 0)}},
			[]order{{lane: 1, jobs: 7, turn: true}, {lane: 0, jobs: 121}}, 1,
		},
		"several turns: shared": {
			view{size: 64, prefetch: 64, idle: 64, turns: 7, lanes: []laneView{hotAt(0, 0), hotAt(1, 0), hotAt(2, 0), dueAt(2)}},
			[]order{{lane: 3, jobs: 1, turn: true}, {lane: 1, jobs: 3, turn: true}, {lane: 2, jobs: 3, turn: true}, {lane: 0, jobs: 121}}, 1,
		},
		"several turns: not beyond the room": {
			view{size: 4, idle: 4, turns: 7, lanes: []laneView{hotAt(0, 0), hotAt(1, 0)}},
			[]order{{lane: 1, jobs: 4, turn: true}}, 0,
		},
		"a turn where nobody is known to have work: one is looked into": {
			view{size: 2, idle: 2, turns: 5, lanes: []laneView{hotAt(0, 0), dueAt(1), {rank: 1}}},
			[]order{{lane: 1, jobs: 1, turn: true}, {lane: 0, jobs: 1}}, 1,
		},
		"a turn where nobody is due: there is none": {
			view{size: 2, idle: 2, turns: 1, lanes: []laneView{hotAt(0, 0), {rank: 1}, limitedAt(1, 0)}},
			[]order{{lane: 0, jobs: 2}}, 1,
		},
		"a turn, with quotas: waited on, while a place is kept": {
			view{size: 1, idle: 1, turns: 1, lanes: []laneView{hotAt(0, 0), hotAt(1, 0), limitedAt(1, time.Second)}},
			[]order{{lane: 2, jobs: 1, waiting: true, turn: true, keep: true}}, 0,
		},
		"a turn of a lane that is asked already": {
			view{size: 1, idle: 1, turns: 1, lanes: []laneView{hotAt(0, 0), {hot: true, rank: 1, asked: true}, {hot: true, rank: 1, waiting: true}}},
			[]order{{lane: 0, jobs: 1}}, 1,
		},
		"a turn while the agent is full": {
			view{size: 1, taken: 1, turns: 1, lanes: []laneView{hotAt(0, 0), hotAt(1, 0)}}, nil, 0,
		},
		"a turn of a lane of the first rank: there is none, it is not passed over": {
			view{size: 1, idle: 1, turns: 1, lanes: []laneView{hotAt(0, 0), hotAt(0, time.Hour)}},
			[]order{{lane: 0, jobs: 1}}, 1,
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
		v.next, v.turns, v.kept = r.IntN(len(v.lanes)), r.IntN(3), r.IntN(2)
		underWay := false
		for i := range v.lanes {
			v.lanes[i] = laneView{
				hot: r.IntN(2) == 0, asked: r.IntN(4) == 0, waiting: r.IntN(4) == 0,
				since: time.Duration(r.IntN(3)) * probeEvery, limited: r.IntN(4) == 0, rank: r.IntN(3),
			}
			v.lanes[i].hot = v.lanes[i].hot && !v.lanes[i].limited
			v.lanes[i].most = 1 + r.IntN(4)
			underWay = underWay || v.lanes[i].asked || v.lanes[i].waiting
			if v.lanes[i].asked {
				v.taken++
			}
		}
		orders, next := plan(v)
		if next < 0 || next >= len(v.lanes) {
			t.Fatalf("%+v: next is %d", v, next)
		}
		asked, turns, first := v.kept, 0, firstHot(v.lanes)
		seen := map[int]bool{}
		for _, o := range orders {
			if o.jobs < 1 || seen[o.lane] || v.lanes[o.lane].asked {
				t.Fatalf("%+v: bad order %+v", v, o)
			}
			seen[o.lane] = true
			if v.lanes[o.lane].limited && o.jobs > v.lanes[o.lane].most {
				t.Fatalf("%+v: too many in order %+v", v, o)
			}
			if over := v.lanes[o.lane].rank > first; over != o.turn {
				t.Fatalf("%+v: order %+v, passed over: %t", v, o, over)
			}
			if o.turn {
				turns += o.jobs
			}
			if !o.waiting || o.keep {
				asked += o.jobs
			}
		}
		if room := v.size + v.prefetch - v.taken; asked > max(v.kept, room) {
			t.Fatalf("%+v: asked for %d, room for %d", v, asked, room)
		}
		if turns > v.turns {
			t.Fatalf("%+v: %d turns given", v, turns)
		}
		if v.idle > 0 && v.taken == 0 && v.kept == 0 && !underWay && len(orders) == 0 {
			t.Fatalf("%+v: nobody is asked", v)
		}
	}
}

// firstHot is the lowest rank of a hot lane, or a high one.
func firstHot(lanes []laneView) int {
	first := math.MaxInt
	for _, lane := range lanes {
		if lane.hot {
			first = min(first, lane.rank)
		}
	}
	return first
}

// A lane that has work gets a job out of every ten for each lane that is passed
// over, and the first rank all the rest.
func TestNobodyStarves(t *testing.T) {
	for name, row := range map[string]struct {
		size, prefetch int
		ranks          []int
	}{
		"two priorities":            {1, 0, []int{0, 2}},
		"three, the last in a row":  {1, 0, []int{0, 1, 2}},
		"many behind one":           {1, 0, []int{3, 0, 1, 1, 2, 4, 4, 3}},
		"many before one":           {1, 0, []int{0, 0, 0, 0, 1}},
		"three places":              {3, 0, []int{0, 1, 2}},
		"many places":               {64, 0, []int{0, 1, 2}},
		"short jobs, many in a row": {64, 64, []int{0, 1, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			const rounds = 2000
			v := view{size: row.size, prefetch: row.prefetch, lanes: make([]laneView, len(row.ranks))}
			over := 0
			for i, rank := range row.ranks {
				v.lanes[i] = laneView{hot: true, rank: rank}
				if rank > 0 {
					over++
				}
			}
			atOnce := row.size + row.prefetch
			last := make([]int, len(row.ranks)) // when each lane had its last job
			taken, ofFirst := 0, 0
			var owes debt
			for range rounds {
				v.turns = owes.turns(0)
				orders, next := plan(v)
				for i := range v.lanes {
					v.lanes[i].since += time.Millisecond
				}
				for _, o := range orders {
					taken += o.jobs
					if gap := taken - last[o.lane]; gap > (mostPassed+1)*over+2*atOnce && row.ranks[o.lane] > 0 {
						t.Fatalf("lane %d waited while %d jobs were taken", o.lane, gap)
					}
					last[o.lane], v.lanes[o.lane].since = taken, 0
					for range o.jobs {
						if o.turn {
							owes = owes.paid()
						} else {
							owes = owes.passed(atOnce)
							ofFirst++
						}
					}
				}
				v.next = next
			}
			for i := range last {
				if row.ranks[i] > 0 && taken-last[i] > (mostPassed+1)*over+2*atOnce {
					t.Errorf("lane %d waits since %d jobs", i, taken-last[i])
				}
			}
			if share := float64(ofFirst) / float64(taken); share < 0.895 || share > 0.91 {
				t.Errorf("the first rank had %.3f of the jobs, want nine of ten", share)
			}
		})
	}
}

// Lanes without work are owed little: when they get some they do not take over.
func TestDebtIsBounded(t *testing.T) {
	for name, row := range map[string]struct{ atOnce, turns int }{"one place": {1, 1}, "many": {128, 15}} {
		var owes debt
		for range 1_000_000 {
			owes = owes.passed(row.atOnce)
		}
		if got := owes.turns(0); got != row.turns {
			t.Errorf("%s: %d turns, want %d", name, got, row.turns)
		}
		if got := owes.turns(row.turns + 1); got != 0 {
			t.Errorf("%s: %d turns beyond those asked for", name, got)
		}
	}
	if owes := debt(0).paid(); owes.turns(0) != 0 || owes.passed(1).turns(0) != 0 {
		t.Error("turns are owed to those who had more")
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
		"a few milliseconds: some":                {64, 10 * time.Millisecond, 32},
		"long jobs: none":                         {64, time.Second, 0},
		"one place, short jobs":                   {1, time.Millisecond, 1},
		"one place, jobs that exceed the round":   {1, 6 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := prefetch(row.size, row.took); got != row.want {
				t.Errorf("got %d, want %d", got, row.want)
			}
		})
	}
}
