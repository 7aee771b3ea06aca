package integration

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/integration/internal/crew"
	"github.com/asyncnats/asyncnats/internal/natstest"
)

// quotaAckWait is the least, for a death costs one.
const quotaAckWait = 3 * time.Second

// In fake time outages cost nothing, so they are many, and of all lengths about
// that of a lease.
var fakeCourse = course{
	dispatchers: 4, jobs: 200, edits: 60, span: 10 * time.Second,
	takes: func(r *rand.Rand) time.Duration {
		switch r.IntN(20) {
		case 0:
			return time.Duration(r.IntN(6000)) * time.Millisecond
		case 1, 2:
			return time.Duration(r.IntN(500)) * time.Millisecond
		}
		return time.Duration(r.IntN(5)) * 5 * time.Millisecond
	},
	faults: func(r *rand.Rand) (all [][]fault) {
		kinds := []string{"frozen", "frozen", "cut", "cut", "stopped", "dead", "frozen dead"}
		for range 4 {
			var faults []fault
			for range r.IntN(7) {
				f := fault{after: time.Duration(r.IntN(2500)) * time.Millisecond, kind: kinds[r.IntN(len(kinds))]}
				f.lasts = time.Duration(1+r.IntN(100)) * time.Millisecond
				if r.IntN(2) == 0 {
					f.lasts = time.Duration(r.IntN(6000)) * time.Millisecond
				}
				faults = append(faults, f)
			}
			all = append(all, faults)
		}
		return all
	},
}

// Whatever happens to dispatchers and quotas, the history is one that package
// quotas allows.
func TestQuotaHistory(t *testing.T) {
	eachSeed(t, *quotaSeeds, func(t *testing.T, seed uint64) {
		began := time.Now()
		natstest.Run(t, func(t *testing.T, server *natstest.Server) {
			js, err := jetstream.New(server.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			p := fakeCourse.draw(seed).start(t, js, 2*time.Minute)
			staff := make([]*crew.Member, len(p.agents))
			hire := func(i int) {
				staff[i] = crew.Hire(t, server, dispatcher.Config{
					Handlers: handlers(p.log), Grace: -1, Agents: []agents.Agent{{Name: "main", Size: p.agents[i]}},
				})
			}
			for i := range staff {
				hire(i)
				t.Logf("dispatcher %d is %s", i, staff[i].UUID())
			}
			p.run(func(i int, f fault) {
				d := staff[i]
				switch f.kind {
				case "frozen":
					d.Wire.Freeze()
					time.Sleep(f.lasts)
					d.Wire.Thaw()
				case "cut":
					d.Wire.Cut()
					time.Sleep(f.lasts)
					d.Wire.Restore()
				case "stopped":
					d.Stop()
					time.Sleep(f.lasts)
					hire(i)
				case "dead": // what it says is not heard
					d.Wire.Cut()
					d.Stop()
					time.Sleep(f.lasts)
					hire(i)
				case "frozen dead": // what it said is heard late
					d.Wire.Freeze()
					d.Stop()
					time.Sleep(f.lasts)
					d.Wire.Thaw()
					hire(i)
				}
			})
		})
		t.Logf("took %v", time.Since(began).Round(time.Millisecond))
	})
}
