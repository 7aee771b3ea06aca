package agents

import "time"

const (
	// probeEvery is how often an agent that is kept busy by some lanes looks
	// into the others.
	probeEvery = 100 * time.Millisecond
	// prefetchFor is how much work an agent takes in advance, so that its
	// places do not stand empty for a round trip. Jobs longer than that are
	// not taken in advance: they would wait here while others could run them.
	prefetchFor = 2 * time.Millisecond
)

// laneView is what the plan knows of a lane.
type laneView struct {
	// hot: the last delivery said that more is to be had.
	hot bool
	// asked: a pull that does not wait is under way.
	asked bool
	// waiting: a waiting pull is under way.
	waiting bool
	// due: the lane was not looked into for a while.
	due bool
	// limited: its jobs name quotas. It is never hot, and always waited on.
	limited bool
	// rank: jobs of lanes of a lower rank are preferred.
	rank int
}

// view is what the plan knows of an agent.
type view struct {
	size     int
	prefetch int // jobs to have in advance
	taken    int // jobs running, held, or asked for by pulls that do not wait
	idle     int // places without a job, held jobs deducted
	lanes    []laneView
	next     int // the lane whose turn it is
}

// order is one pull to be made.
type order struct {
	lane    int
	jobs    int
	waiting bool
}

// plan decides which pulls to make now, and whose turn is next. It is a pure
// function.
//
// While no lane is hot, a waiting pull goes to every lane; where there are
// more lanes than places they may bring too much, which is handed back. While
// some are, pulls that do not wait go round the hot lanes and those not looked
// into for a while, together for no more jobs than there is room for, so that
// every lane has its turn and nothing is brought in vain. Lanes whose jobs name
// quotas are waited on all the same: they bring few, when the server lets them.
// Nothing is asked of a lane while another that is preferred to it is hot.
func plan(v view) (orders []order, next int) {
	hot, rank := 0, 0 // of those preferred
	for _, lane := range v.lanes {
		switch {
		case !lane.hot, hot > 0 && lane.rank > rank:
		case hot > 0 && lane.rank == rank:
			hot++
		default:
			hot, rank = 1, lane.rank
		}
	}
	if hot == 0 {
		return waitEverywhere(v), v.next
	}
	return takeTurns(v, hot, rank)
}

func waitEverywhere(v view) []order {
	if v.idle <= 0 {
		return nil
	}
	var orders []order
	for i, lane := range v.lanes {
		if !lane.waiting && !lane.asked {
			orders = append(orders, order{lane: i, jobs: max(1, v.idle/len(v.lanes)), waiting: true})
		}
	}
	return orders
}

func takeTurns(v view, hot, rank int) (orders []order, next int) {
	room := v.size + v.prefetch - v.taken
	// Several jobs per pull where jobs are short.
	if room <= 0 || v.prefetch > 0 && room < (v.size+v.prefetch)/4 {
		return nil, v.next
	}
	next = v.next
	for i := range v.lanes {
		at := (v.next + i) % len(v.lanes)
		lane := v.lanes[at]
		jobs := 0
		switch {
		case lane.rank > rank:
			continue
		case lane.limited:
			if !lane.waiting {
				orders = append(orders, order{lane: at, jobs: 1, waiting: true})
			}
			continue
		case lane.asked:
		case lane.hot:
			jobs = (room + hot - 1) / hot
		case lane.due && !lane.waiting:
			jobs = 1
		}
		if lane.hot {
			hot--
		}
		if jobs == 0 {
			continue
		}
		orders = append(orders, order{lane: at, jobs: jobs})
		next = (at + 1) % len(v.lanes)
		if room -= jobs; room == 0 {
			break
		}
	}
	return orders, next
}

// prefetch is how many jobs an agent has in advance when a job takes d.
func prefetch(size int, d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return min(size, int(float64(size)*float64(prefetchFor)/float64(d)))
}
