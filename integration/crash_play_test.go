package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// crashPlay is one round: some jobs, workers that die one after another, and one
// that lives.
type crashPlay struct {
	*testing.T
	crash
	draw   *rand.Rand
	server *natstest.Server
	js     jetstream.JetStream
	queue  *asyncnats.Queue
	log    string // of the handlers
	trace  string // of those who die
	ids    []string
	jobs   []*asyncnats.Job[asyncnats.None]
	others int // the first of them, which are not the workers'
	quotas map[job.ID][]string
}

// play plays one round, whose jobs and edge are drawn from seed.
func (c crash) play(t *testing.T, seed uint64) {
	dir := t.TempDir()
	p := &crashPlay{
		T: t, crash: c, draw: rand.New(rand.NewPCG(seed, 0)), server: natstest.Start(t, nil),
		log: filepath.Join(dir, "log"), trace: filepath.Join(dir, "trace"), quotas: make(map[job.ID][]string),
	}
	p.prepare()
	edges := []edge{c.edge}
	if c.second {
		edges = []edge{{Step: started, Quotas: 1, Nth: 1 + p.draw.IntN(3)}, c.edge}
	}
	for i, at := range edges {
		if at.Nth == 0 {
			at.Nth = 1 + p.draw.IntN(most(at))
		}
		doomed := p.hire(i+1, at)
		if i == 0 {
			p.putAll()
		}
		p.bury(doomed, i+1)
	}
	p.hire(len(edges)+1, edge{})
	p.awaitAll()
	p.awaitNothing()
	p.check()
}

// most is how many jobs of a round surely come to an edge.
func most(at edge) int {
	switch {
	case at.Again:
		return 1
	case at.Quotas > 0:
		return 4
	}
	return 8
}

// prepare makes the queue and its quotas, and a keeper for them where it is not
// to be one of the workers.
func (p *crashPlay) prepare() {
	p.js = p.server.JetStream(p)
	if err := keepRevisions(p.Context(), p.js, 1); err != nil {
		p.Fatal(err)
	}
	// The least, for each death costs one; but no lease is to be lost because so
	// many processes run at once.
	ackWait := stream.MinAckWait
	if raceDetector {
		ackWait *= 3
	}
	_, p.queue = connect(p, p.server.ClientURL(), asyncnats.QueueConfig{AckWait: ackWait})
	for name, size := range map[string]int{"one": 1, "two": 2} {
		if err := p.queue.CreateQuota(p.Context(), name, size); err != nil {
			p.Fatal(err)
		}
	}
	if !p.asks {
		return
	}
	d, err := dispatcher.New(p.server.Connect(p), dispatcher.Config{
		UUID: uuid.New(), Handlers: []job.Handler{limited[0].Handle(limitedNap(p.log, nil))}, Log: quiet(),
	})
	if err != nil {
		p.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(p.Context()))
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	p.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			p.Error(err)
		}
	})
	p.put(limited[0], 0, "one")
	p.put(limited[0], 0, "two")
	waitAll(p, p.jobs, time.Minute) // whoever took the first slot keeps the quota
	p.others = len(p.jobs)
}

func (p *crashPlay) put(task asyncnats.Task[time.Duration, asyncnats.None], takes time.Duration, quotas ...string) {
	j, err := asyncnats.Put(p.Context(), p.queue, task.Call(takes).Quota(quotas...))
	if err != nil {
		p.Fatal(err)
	}
	p.jobs = append(p.jobs, j)
	p.quotas[j.ID()] = quotas
}

// putAll puts ten jobs or some more, in any order.
func (p *crashPlay) putAll() {
	kinds := [][]string{nil, nil, nil, {"one"}, {"two"}, {"two"}, {"one", "two"}, {"one", "two"}}
	if p.asks { // whoever writes two quotas at once takes both from their keeper
		kinds = [][]string{nil, nil, nil, {"one"}, {"one"}, {"two"}, {"two"}, {"two"}}
	}
	for range 2 + p.draw.IntN(4) {
		kinds = append(kinds, kinds[p.draw.IntN(8)])
	}
	p.draw.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	for _, quotas := range kinds {
		takes := time.Duration(1+p.draw.IntN(30)) * time.Millisecond
		if p.fails {
			takes = -takes
		}
		p.put(mortal, takes, quotas...)
	}
}

// awaitAll waits until all jobs have ended as they should.
func (p *crashPlay) awaitAll() {
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	for i, j := range p.jobs {
		_, err := j.Wait(ctx)
		if _, failed := errors.AsType[*job.Failure](err); failed != p.fails || err != nil && !failed {
			p.Fatalf("job %d of %d: %v", i, len(p.jobs), err)
		}
	}
}

// hire starts a worker process, which dies at an edge, if it is given one.
func (p *crashPlay) hire(number int, at edge) *process {
	id := uuid.New()
	p.ids = append(p.ids, id.String())
	c := workerConfig{URL: p.server.ClientURL(), UUID: id, Size: 4 + p.draw.IntN(8), Log: p.log}
	if at.Step != "" {
		c.Life, c.Dies, c.Trace = number, at, p.trace
		p.Logf("life %d is of %.8s, with room for %d, and ends at %+v", number, id, c.Size, at)
	}
	return startWorker(p, c)
}

// bury waits until a process has killed itself.
func (p *crashPlay) bury(doomed *process, number int) {
	dead := make(chan error, 1)
	go func() { dead <- doomed.Wait() }()
	select {
	case <-dead:
	case <-time.After(time.Minute):
		_ = doomed.Process.Kill()
		<-dead
		deeds, err := readTrace(p.trace)
		p.Fatalf("life %d does not come to its edge; %v\n%s", number, err, tellDeeds(deeds))
	}
	status, ok := doomed.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		p.Fatalf("life %d ended otherwise: %v\n%s", number, doomed.ProcessState, doomed.Log())
	}
	appendEvent(p.log, event{Dispatcher: p.ids[number-1], Event: "killed", At: time.Now()})
}

// awaitNothing waits until no job is left, nobody has a slot and nobody waits
// for one.
func (p *crashPlay) awaitNothing() {
	await(p, func() bool {
		info, err := p.queue.Info(p.Context())
		list, err2 := p.queue.Quotas(p.Context())
		if err := errors.Join(err, err2); err != nil {
			p.Fatal(err)
		}
		left := info.Messages
		for _, quota := range list {
			left += uint64(len(quota.Holders) + len(quota.Waiters))
		}
		return left == 0
	})
}

// check checks what the round has left behind.
func (p *crashPlay) check() {
	lives := make(map[string]int)
	for i, id := range p.ids {
		lives[id] = i + 1
	}
	h := quotaHistory{Jobs: p.quotas, Log: events(p, p.log), Fails: p.fails}
	var errs [4]error
	var deeds []deed
	var records map[job.ID][]entry
	h.Revisions, errs[0] = readRevisions(p.Context(), p.js)
	h.Outcomes, errs[1] = readOutcomes(p.Context(), p.js)
	records, errs[2] = readEntries(p.Context(), p.js, lives)
	deeds, errs[3] = readTrace(p.trace)
	if err := errors.Join(errs[:]...); err != nil {
		p.Fatal(err)
	}
	for _, err := range h.check() {
		p.Error(err)
		if id := h.blamed(err); id != "" {
			p.Log(h.tell(id))
		}
	}
	p.checkDead()
	hit, _ := struck(deeds, p.doomed())
	judged := false
	for _, j := range p.jobs[p.others:] {
		id := j.ID()
		of := slices.DeleteFunc(slices.Clone(deeds), func(d deed) bool { return d.Job != id })
		wrong := reckon(of, len(p.ids)).check(records[id])
		if id == hit.Job {
			judged = true
			wrong = append(wrong, p.judge(livesOf(h.Log, id, lives), records[id])...)
		}
		for _, err := range wrong {
			p.Errorf("job %s: %v", id, err)
		}
		if len(wrong) > 0 {
			p.Logf("%s\n%s", tellDeeds(of), h.tell(id))
		}
	}
	if !judged {
		p.Errorf("life %d died at a deed of no job of the round: %+v", p.doomed(), hit)
	}
}

// checkDead checks that what is kept of each job that failed is its record.
func (p *crashPlay) checkDead() {
	list, err := p.queue.Dead(p.Context(), asyncnats.DeadFilter{})
	if err != nil {
		p.Fatal(err)
	}
	kept := make(map[job.ID]job.Record)
	for _, d := range list {
		kept[d.ID] = d.Record
	}
	if want := len(p.jobs) - p.others; p.fails && (len(kept) != want || len(list) != want) || !p.fails && len(list) > 0 {
		p.Errorf("%d failed jobs are kept, of %d", len(list), want)
	}
	for _, j := range p.jobs {
		status, err := j.Status(p.Context())
		if err != nil {
			p.Fatal(err)
		}
		if diff := cmp.Diff(*status.Record, kept[j.ID()]); p.fails && diff != "" {
			p.Errorf("job %s (-record +kept):\n%s", j.ID(), diff)
		}
	}
}

// doomed is the last life that has an edge.
func (p *crashPlay) doomed() int { return len(p.ids) - 1 }

// judge compares what became of the job at which the last process died with what
// must become of such a job.
func (p *crashPlay) judge(runs []int, got []entry) (errs []error) {
	runs = slices.DeleteFunc(runs, func(life int) bool { return life < p.doomed() })
	if !slices.Equal(runs, p.runs) {
		errs = append(errs, fmt.Errorf("it was started in lives %v, want %v", runs, p.runs))
	}
	var kinds []entryKind
	for _, e := range got {
		switch {
		case e.Life < p.doomed():
		case e.Life == p.doomed() && e.State == job.Active:
			kinds = append(kinds, activeHere)
		case e.Life == p.doomed():
			kinds = append(kinds, outcomeHere)
		case e.State == job.Active:
			kinds = append(kinds, activeAfter)
		default:
			kinds = append(kinds, outcomeAfter)
		}
	}
	if !slices.Equal(kinds, p.record) {
		errs = append(errs, fmt.Errorf("its record was %q, want %q", kinds, p.record))
	}
	return errs
}

// livesOf lists the lives in which a job was started.
func livesOf(log []event, id job.ID, lives map[string]int) (runs []int) {
	for _, e := range log {
		if e.Job == id && e.Event == "start" {
			runs = append(runs, lives[e.Dispatcher])
		}
	}
	return runs
}

// tellDeeds returns deeds line by line.
func tellDeeds(deeds []deed) string {
	var b strings.Builder
	for _, d := range deeds {
		fmt.Fprintf(&b, "%+v\n", d)
	}
	return b.String()
}
