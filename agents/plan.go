package agents

import (
	"cmp"
	"slices"
	"time"
)

const (
	// probeEvery is how often an agent that is kept busy by some lanes looks
	// into the others.
	probeEvery = 100 * time.Millisecond
	// prefetchFor is how much work an agent takes in advance, so that its
	// places do not stand empty for a round trip; it is about how long a job
	// waits here that was taken in advance. Jobs longer than that are not: others
	// could run them meanwhile. The time that a job takes includes the write of its
	// outcome, some milliseconds under load.
	prefetchFor = 5 * time.Millisecond
	// pullLeast is how many jobs that take no time are asked of a lane at once where
	// many lanes have work: a pull costs the server more than a delivery.
	pullLeast = 32
	// keepFor is how long a place is kept for a lane whose jobs name quotas, when
	// it is looked into: the server does not say that it has none.
	keepFor = 5 * time.Millisecond
	// mostPassed is how many jobs an agent takes before those of lanes that
	// come later, until one of these has its turn. It is a number of jobs and
	// no time, for jobs that take longer than that time would all be turns.
	mostPassed = 9
)

// laneView is what the plan knows of a lane.
type laneView struct {
	// hot: the last delivery said that more is to be had.
	hot bool
	// asked: a pull that does not wait is under way.
	asked bool
	// waiting: a waiting pull is under way.
	waiting bool
	// since it was last looked into.
	since time.Duration
	// limited: its jobs name quotas. It is never hot, and always waited on.
	limited bool
	// most is how many jobs it is waited on for at most, where it is limited: so that no
	// more of them wait here than the agent has places, and one where it is full, see
	// relief.go.
	most int
	// rank: lanes of a lower rank come before it.
	rank int
}

// due reports whether the lane was not looked into for a while.
func (l laneView) due() bool { return l.since >= probeEvery }

// free reports whether a pull can be made on the lane that does not wait.
func (l laneView) free() bool { return !l.asked && !l.waiting }

// view is what the plan knows of an agent.
type view struct {
	size     int
	prefetch int // jobs to have in advance
	taken    int // jobs running, held, or asked for by pulls that do not wait
	kept     int // places kept, see [keepFor]
	idle     int // places without a job, held jobs deducted
	lanes    []laneView
	next     int // the lane whose turn it is, among those of a rank
	turns    int // jobs owed to lanes that were passed over, see [debt]
}

// order is one pull to be made.
type order struct {
	lane    int
	jobs    int
	waiting bool
	turn    bool // the lane was passed over
	keep    bool // a place is kept meanwhile
}

// plan decides which pulls to make now, and whose turn is next. It is a pure
// function.
//
// While no lane is hot, a waiting pull goes to every lane; where there are
// more lanes than places they may bring too much, which is handed back. While
// some are, pulls that do not wait go round the hot lanes of the lowest rank and
// those not looked into for a while, together for no more jobs than there is
// room for, so that every lane has its turn and nothing is brought in vain.
// Lanes whose jobs name quotas are waited on all the same: they bring few, when
// the server lets them. For a moment a place is kept for what they may bring.
//
// Lanes that come after a hot one are passed over. So that they do not starve,
// they get every tenth job, the one that was not looked into for longest first,
// whatever their rank: of L such lanes that have work, each gets a job out of
// 10·L at the latest.
func plan(v view) (orders []order, next int) {
	hot, rank := 0, 0 // of those that come first
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
	room := v.size + v.prefetch - v.taken - v.kept
	// Several jobs per pull where jobs are short.
	if room <= 0 || v.prefetch > 0 && room < (v.size+v.prefetch)/4 {
		return nil, v.next
	}
	p := pulls{view: v, room: room, next: v.next}
	p.giveTurns(rank)
	p.probe(rank)
	p.takeTurns(rank, hot)
	return p.orders, p.next
}

func waitEverywhere(v view) []order {
	if v.idle <= 0 {
		return nil
	}
	var orders []order
	for i, lane := range v.lanes {
		jobs := max(1, v.idle/len(v.lanes))
		if lane.limited {
			jobs = min(jobs, lane.most)
		}
		if lane.free() {
			orders = append(orders, order{lane: i, jobs: jobs, waiting: true})
		}
	}
	slices.SortStableFunc(orders, func(a, b order) int { return cmp.Compare(v.lanes[a.lane].rank, v.lanes[b.lane].rank) })
	return orders
}

// pulls is a plan in the making, while some lane is hot.
type pulls struct {
	view
	room   int // for so many jobs more
	orders []order
	next   int
}

func (p *pulls) ask(lane, jobs int, turn bool) {
	p.orders = append(p.orders, order{lane: lane, jobs: jobs, turn: turn})
	p.room -= jobs
}

// wait waits on a lane whose jobs name quotas. Where it was not looked into for
// a while a place is kept, one for all such lanes, or jobs of hot lanes would
// take each as it becomes free.
func (p *pulls) wait(lane int, turn bool) {
	keep := p.kept == 0 && p.lanes[lane].due()
	if keep {
		p.kept++
		p.room--
	}
	p.orders = append(p.orders, order{lane: lane, jobs: 1, waiting: true, turn: turn, keep: keep})
}

// giveTurns asks the lanes that are passed over, those beyond rank, for what is
// owed to them, which they share. A lane of which it is not known whether it has
// work is asked for one job.
func (p *pulls) giveTurns(rank int) {
	var over []int
	for i, lane := range p.lanes {
		if p.turns > 0 && lane.rank > rank && lane.free() && (lane.hot || lane.due()) {
			over = append(over, i)
		}
	}
	slices.SortStableFunc(over, func(a, b int) int { return cmp.Compare(p.lanes[b].since, p.lanes[a].since) })
	for at, i := range over {
		if p.turns <= 0 || p.room <= 0 {
			return
		}
		jobs := 1
		if p.lanes[i].hot {
			left := len(over) - at
			jobs = min((p.turns+left-1)/left, p.room)
		}
		if p.lanes[i].limited {
			p.wait(i, true)
		} else {
			p.ask(i, jobs, true)
		}
		p.turns -= jobs
	}
}

// probe looks into the lanes that come before all hot ones, those beneath rank,
// the first first: they may have work again.
func (p *pulls) probe(rank int) {
	var before []int
	for i, lane := range p.lanes {
		if lane.rank < rank && lane.free() {
			before = append(before, i)
		}
	}
	slices.SortStableFunc(before, func(a, b int) int { return cmp.Compare(p.lanes[a].rank, p.lanes[b].rank) })
	for _, i := range before {
		if p.room > 0 {
			p.look(i)
		}
	}
}

// look asks a lane that is not hot for a job, if it was not looked into for a
// while. One whose jobs name quotas is waited on: what keeps the server from
// giving one out also keeps it from saying so.
func (p *pulls) look(i int) (asked bool) {
	switch lane := p.lanes[i]; {
	case !lane.free():
	case lane.limited:
		p.wait(i, false)
	case lane.due():
		p.ask(i, 1, false)
		return true
	}
	return false
}

// takeTurns goes round the lanes of the rank, of which so many are hot.
func (p *pulls) takeTurns(rank, hot int) {
	for i := range p.lanes {
		at := (p.view.next + i) % len(p.lanes)
		lane := p.lanes[at]
		asked := false
		switch {
		case p.room <= 0:
			return
		case lane.rank != rank:
		case !lane.hot:
			asked = p.look(at)
		default:
			if asked = !lane.asked; asked {
				p.ask(at, p.share(hot), false)
			}
			hot--
		}
		if asked {
			p.next = (at + 1) % len(p.lanes)
		}
	}
}

// share is how many jobs one of so many hot lanes is asked for. Where jobs take no
// time it is several, and the lanes that get none now have their turn soon.
func (p *pulls) share(hot int) int {
	jobs := (p.room + hot - 1) / hot
	if p.prefetch == p.size {
		jobs = max(jobs, min(p.room, pullLeast))
	}
	return jobs
}

// debt counts the jobs that were taken before those of lanes that come later,
// less those that these got for it.
type debt int

// passed counts a job of a lane that comes before others. An agent whose other
// lanes have no work owes them no more than for what it takes at once.
func (d debt) passed(atOnce int) debt { return min(d+1, debt(mostPassed+atOnce)) }

// paid counts a job of a lane that was passed over.
func (d debt) paid() debt { return d - mostPassed }

// turns is how many jobs are owed to lanes that were passed over, those deducted
// that they are asked for already.
func (d debt) turns(asked int) int { return max(0, int(d)/mostPassed-asked) }

// prefetch is how many jobs an agent has in advance when a job takes d.
func prefetch(size int, d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return min(size, int(float64(size)*float64(prefetchFor)/float64(d)))
}
