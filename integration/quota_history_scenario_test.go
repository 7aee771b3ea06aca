package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// scenario is what happens in one run with quotas, all of it drawn from a seed.
// Which interleaving comes of it is up to the scheduler.
type scenario struct {
	agents []int // the size of each dispatcher's agent
	sizes  []int // of the quotas, at first; at the end those that are 0 become 1
	puts   []limitedPut
	edits  [2][]quotaEdit // by two administrators who do not know of each other
	faults [][]fault      // by dispatcher, one after another
}

type limitedPut struct {
	at     time.Duration
	task   int
	quotas []string
	takes  time.Duration
}

// quotaEdit makes a quota of that size, or removes it where size is negative.
type quotaEdit struct {
	at    time.Duration
	quota string
	size  int
}

// fault befalls a dispatcher for a while.
type fault struct {
	after time.Duration // the one before is over
	kind  string
	lasts time.Duration
}

// course is what scenarios are drawn from.
type course struct {
	dispatchers, jobs, edits int
	span                     time.Duration // of puts and edits
	takes                    func(*rand.Rand) time.Duration
	faults                   func(*rand.Rand) [][]fault
}

const quotaCount = 8

func quotaName(i int) string { return fmt.Sprintf("q%d", i) }

func (c course) draw(seed uint64) scenario {
	r := rand.New(rand.NewPCG(seed, 0))
	var s scenario
	for range c.dispatchers {
		s.agents = append(s.agents, 1+r.IntN(8))
	}
	for range quotaCount {
		s.sizes = append(s.sizes, r.IntN(5))
	}
	// Each kind of job costs the server a consumer.
	kinds := make([]limitedPut, 14)
	for i := range kinds {
		kinds[i] = limitedPut{task: r.IntN(len(limited)), quotas: drawQuotas(r)}
	}
	for range c.jobs {
		put := kinds[r.IntN(len(kinds))]
		put.at, put.takes = drawTime(r, c.span), c.takes(r)
		s.puts = append(s.puts, put)
	}
	slices.SortStableFunc(s.puts, func(a, b limitedPut) int { return int(a.at - b.at) })
	for i := range s.edits {
		for range c.edits / len(s.edits) {
			s.edits[i] = append(s.edits[i], quotaEdit{at: drawTime(r, c.span), quota: quotaName(r.IntN(quotaCount)), size: r.IntN(6) - 1})
		}
		slices.SortStableFunc(s.edits[i], func(a, b quotaEdit) int { return int(a.at - b.at) })
	}
	s.faults = c.faults(r)
	return s
}

// drawQuotas draws one quota, two or three.
func drawQuotas(r *rand.Rand) (names []string) {
	n := []int{1, 1, 1, 1, 2, 2, 3}[r.IntN(7)]
	for _, i := range r.Perm(quotaCount)[:n] {
		names = append(names, quotaName(i))
	}
	slices.Sort(names)
	return names
}

// drawTime draws a moment such that many things happen at once.
func drawTime(r *rand.Rand, span time.Duration) time.Duration {
	const beats = 40
	return span * time.Duration(r.IntN(beats)) / beats
}
