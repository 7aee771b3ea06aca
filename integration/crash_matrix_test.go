package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
)

var (
	crashRounds = flag.Int("crash.rounds", 1, "how often a worker process is killed at each edge of a job's life")
	crashSeed   = flag.Uint64("crash.seed", 0, "run the one round that is drawn from this")
)

// crash is an edge of a job's life, where its worker's process is killed, and
// what must have become of that job in the end.
type crash struct {
	name string
	edge edge // of the last process that dies
	// The one before it, if there is one, dies when it starts such a job.
	second bool
	// Another process keeps the quotas, and so writes what this one asks for.
	asks  bool
	fails bool // what the jobs do

	runs   []int       // the lives in which its handler was started, from the one with the edge on
	record []entryKind // the values of its record
}

// entryKind is what of an entry does not depend on the lives before.
type entryKind string

// What the record says, by whose attempt it is: that of the life with the edge,
// or that of the process which ends everything.
const (
	activeHere   entryKind = "active here"
	activeAfter  entryKind = "active after"
	outcomeHere  entryKind = "outcome here"
	outcomeAfter entryKind = "outcome after"
)

// crashes are all edges. A first attempt that dies leaves no record, and so no
// interrupt; every attempt after that is recorded before it starts.
func crashes() []crash {
	startedAfter := []entryKind{activeAfter, outcomeAfter}
	interrupted := []entryKind{activeHere, activeAfter, outcomeAfter}
	first := []crash{
		{name: "claimed", edge: edge{Step: claimed}, runs: []int{2}, record: startedAfter},
		{name: "before it asks for a slot", edge: edge{Step: entered, Before: true, Quotas: 1}, runs: []int{2}, record: startedAfter},
		{name: "slot asked for", edge: edge{Step: entered, Quotas: 1}, runs: []int{2}, record: startedAfter},
		{name: "first of two slots written", edge: edge{Step: granted, Quotas: 2, Nth: 1}, runs: []int{2}, record: startedAfter},
		{name: "both slots written", edge: edge{Step: granted, Quotas: 2, Nth: 2}, runs: []int{2}, record: startedAfter},
		{name: "started", edge: edge{Step: started}, runs: []int{1, 2}, record: startedAfter},
		{name: "before its slot is given back", edge: edge{Step: left, Before: true, Quotas: 1}, runs: []int{1, 2}, record: startedAfter},
		{name: "slot given back", edge: edge{Step: left, Quotas: 1}, runs: []int{1, 2}, record: startedAfter},
		{name: "before its outcome is recorded", edge: edge{Step: recorded, Before: true}, runs: []int{1, 2}, record: startedAfter},
		{name: "outcome recorded", edge: edge{Step: recorded}, runs: []int{1}, record: []entryKind{outcomeHere}},
		{name: "before the ack", edge: edge{Step: acked, Before: true}, runs: []int{1}, record: []entryKind{outcomeHere}},
		{name: "acked", edge: edge{Step: acked}, runs: []int{1}, record: []entryKind{outcomeHere}},
	}
	again := []crash{
		{name: "before its start is recorded", edge: edge{Step: begun, Before: true}, runs: []int{3}, record: startedAfter},
		{name: "start recorded", edge: edge{Step: begun}, runs: []int{3}, record: interrupted},
		{name: "started", edge: edge{Step: started}, runs: []int{2, 3}, record: interrupted},
		{name: "before its slot is given back", edge: edge{Step: left, Before: true, Quotas: 1}, runs: []int{2, 3}, record: interrupted},
		{name: "slot given back", edge: edge{Step: left, Quotas: 1}, runs: []int{2, 3}, record: interrupted},
		{name: "before its outcome is recorded", edge: edge{Step: recorded, Before: true}, runs: []int{2, 3}, record: interrupted},
		{name: "outcome recorded", edge: edge{Step: recorded}, runs: []int{2}, record: []entryKind{activeHere, outcomeHere}},
		{name: "before the ack", edge: edge{Step: acked, Before: true}, runs: []int{2}, record: []entryKind{activeHere, outcomeHere}},
		{name: "acked", edge: edge{Step: acked}, runs: []int{2}, record: []entryKind{activeHere, outcomeHere}},
	}
	for _, c := range []crash{
		{name: "failure recorded", edge: edge{Step: recorded}},
		{name: "before it is kept that it failed", edge: edge{Step: buried, Before: true}},
		{name: "kept that it failed", edge: edge{Step: buried}},
		{name: "failed, before the ack", edge: edge{Step: acked, Before: true}},
	} {
		c.fails = true
		c.runs, c.record = []int{1}, []entryKind{outcomeHere}
		first = append(first, c)
		c.runs, c.record = []int{2}, []entryKind{activeHere, outcomeHere}
		again = append(again, c)
	}
	var all []crash // those that take longest first
	for _, c := range again {
		c.name, c.second, c.edge.Again = "second attempt, "+c.name, true, true
		all = append(all, c)
	}
	for _, c := range first {
		all = append(all, c)
		if c.edge.Quotas == 1 {
			c.name, c.asks = c.name+", by its keeper", true
			all = append(all, c)
		}
	}
	return all
}

// A worker process can be killed at any moment of a job's life, between any two
// things that it tells the server: every job ends elsewhere with one outcome, and
// leaves nothing behind in queue and quotas; no two attempts of a job live at once, nor
// more than a quota allows; and its record counts just those attempts as
// interrupted that had recorded their start and no outcome. What is kept of a job
// that failed is kept once, and no such job is missing.
func TestCrashMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for ack waits in real time")
	}
	for _, c := range crashes() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for i := range *crashRounds {
				seed := uint64(rand.Uint32())
				if *crashSeed != 0 {
					seed = *crashSeed
				}
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { c.play(t, seed) })
				if t.Failed() || *crashSeed != 0 {
					t.Logf("%d rounds", i+1)
					return
				}
			}
		})
	}
}
