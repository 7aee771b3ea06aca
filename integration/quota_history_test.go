package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

var (
	quotaSeeds = flag.Int("quota.seeds", 2, "number of random histories of quotas in fake time; a tenth as many with processes")
	quotaSeed  = flag.Uint64("quota.seed", 0, "run this one random history of quotas")
)

// eachSeed calls f with n new seeds, or with the one that was asked for.
func eachSeed(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = uint64(rand.Uint32())
	}
	if *quotaSeed != 0 {
		seeds = []uint64{*quotaSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { f(t, seed) })
	}
}

// play is a scenario under way.
type play struct {
	testing.TB
	scenario
	queue    *asyncnats.Queue
	js       jetstream.JetStream
	log      string        // of the handlers
	patience time.Duration // for what has to happen when everything is put and no fault is left

	began time.Time
	put   []limitedPut // those that were not refused
	jobs  []*asyncnats.Job[asyncnats.None]
}

// start prepares the queue and its quotas.
func (s scenario) start(tb testing.TB, js jetstream.JetStream, patience time.Duration) *play {
	p := &play{TB: tb, scenario: s, js: js, log: filepath.Join(tb.TempDir(), "log"), patience: patience}
	if err := keepRevisions(tb.Context(), js, 1); err != nil {
		tb.Fatal(err)
	}
	client, err := asyncnats.Connect(tb.Context(), js.Conn(), asyncnats.Config{})
	if err == nil {
		p.queue, err = client.CreateQueue(tb.Context(), job.DefaultQueue, asyncnats.QueueConfig{AckWait: quotaAckWait})
	}
	if err != nil {
		tb.Fatal(err)
	}
	for i, size := range s.sizes {
		if err := p.queue.CreateQuota(tb.Context(), quotaName(i), size); err != nil {
			tb.Fatal(err)
		}
	}
	return p
}

// run plays the scenario to its end, with f for what befalls a dispatcher, and
// checks what it leaves.
func (p *play) run(strike func(dispatcher int, f fault)) {
	p.began = time.Now()
	p.Logf("agents %v, quotas %v", p.agents, p.sizes)
	var acts sync.WaitGroup
	acts.Go(p.putAll)
	for _, edits := range p.edits {
		acts.Go(func() { p.edit(edits) })
	}
	for i, faults := range p.faults {
		acts.Go(func() {
			for _, f := range faults {
				time.Sleep(f.after)
				p.Logf("%s dispatcher %d: %s for %v", time.Now().UTC().Format("04:05.000000"), i, f.kind, f.lasts)
				strike(i, f)
			}
		})
	}
	acts.Wait()
	for i, size := range p.sizes {
		if err := p.queue.Limit(p.Context(), quotaName(i), max(1, size)); err != nil {
			p.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(p.Context(), p.patience)
	defer cancel()
	for i, j := range p.jobs {
		if _, err := j.Wait(ctx); err != nil {
			p.Errorf("job %d of %d, of %q: %v", i, len(p.jobs), p.put[i].quotas, err)
			p.tellLanes()
			break
		}
	}
	p.awaitEmpty(ctx)
	p.check()
}

func (p *play) until(at time.Duration) { time.Sleep(time.Until(p.began.Add(at))) }

func (p *play) putAll() {
	for _, put := range p.puts {
		p.until(put.at)
		j, err := asyncnats.Put(p.Context(), p.queue, limited[put.task].Call(put.takes).Quota(put.quotas...))
		switch {
		case errors.Is(err, asyncnats.ErrUnknownQuota):
		case err != nil:
			p.Errorf("put: %v", err)
		default:
			p.put, p.jobs = append(p.put, put), append(p.jobs, j)
		}
	}
}

func (p *play) edit(edits []quotaEdit) {
	for _, e := range edits {
		p.until(e.at)
		var err error
		if e.size < 0 {
			err = p.queue.RemoveQuota(p.Context(), e.quota)
		} else if err = p.queue.ResizeQuota(p.Context(), e.quota, e.size); errors.Is(err, asyncnats.ErrUnknownQuota) {
			err = p.queue.CreateQuota(p.Context(), e.quota, e.size)
		}
		if err != nil && !errors.Is(err, asyncnats.ErrUnknownQuota) && !errors.Is(err, asyncnats.ErrQuotaExists) {
			p.Errorf("%+v: %v", e, err)
		}
	}
}

// awaitEmpty waits until nobody has a slot or waits for one. What is left then
// shows in the history.
func (p *play) awaitEmpty(ctx context.Context) {
	for ctx.Err() == nil {
		left := 0
		list, err := p.queue.Quotas(ctx)
		for _, quota := range list {
			left += len(quota.Holders) + len(quota.Waiters)
		}
		if err == nil && left == 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tellLanes shows who has jobs, and slots, where they do not end.
func (p *play) tellLanes() {
	info, err := p.queue.Info(p.Context())
	if err != nil {
		p.Log(err)
	}
	for _, lane := range info.Lanes {
		p.Logf("lane of %s with %q: %d pending, %d assigned", lane.Task, lane.Quotas, lane.Pending, lane.Assigned)
	}
	for _, d := range info.Dispatchers {
		p.Logf("dispatcher %s: %+v", d.Dispatcher, d.Agents)
	}
	list, err := p.queue.Quotas(p.Context())
	if err != nil {
		p.Log(err)
	}
	for _, quota := range list {
		p.Logf("quota %s of %d, kept by %.8s in term %d, revision %d", quota.Name, quota.Size, quota.Keeper, quota.Term, quota.Revision)
		for _, c := range quota.Holders {
			p.Logf("  holds: job %s, attempt %x of %.8s", c.ID, c.Token, c.Dispatcher)
		}
		for _, c := range quota.Waiters {
			p.Logf("  waits: job %s, attempt %x of %.8s, passed %d, reserves %v", c.ID, c.Token, c.Dispatcher, c.Passed, c.Reserves)
		}
	}
}

// check reads the history and checks it.
func (p *play) check() {
	h := quotaHistory{Jobs: make(map[job.ID][]string), Log: events(p, p.log)}
	for i, j := range p.jobs {
		h.Jobs[j.ID()] = p.put[i].quotas
	}
	var err, err2 error
	h.Revisions, err = readRevisions(p.Context(), p.js)
	h.Outcomes, err2 = readOutcomes(p.Context(), p.js)
	if err := errors.Join(err, err2); err != nil {
		p.Fatal(err)
	}
	wrong := h.check()
	for i, err := range wrong {
		if i == 20 {
			p.Errorf("and %d more", len(wrong)-i)
			break
		}
		p.Error(err)
		if id := h.blamed(err); id != "" && i < 3 {
			p.Log(h.tell(id))
		}
	}
	p.Logf("%d jobs, %d attempts, %d revisions, %d ms", len(h.Jobs), len(h.Log)/2, len(h.Revisions), time.Since(p.began).Milliseconds())
}
