package natstest

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
)

// clock is held for writing by the one bubble with its fake time, for reading by servers in real time.
var clock sync.RWMutex

// The file store shares one goroutine per process that ticks ten times a second, started by whoever needs it first and
// ended by the last. Started in a bubble, it would tick in fake time and be missing or foreign in the next one. Registered
// here it belongs to no bubble and never ends.
func init() { ats.Register() }

// Run calls f in a bubble of fake time with a server of its own, JetStream on files included.
func Run(t *testing.T, f func(*testing.T, *Server)) {
	t.Helper()
	RunWith(t, nil, f)
}

// RunWith is [Run] with a server that configure has changed: limits, accounts, permissions, JetStream off.
// Configure is called at every start of the server, restarts included, with fresh options.
func RunWith(t *testing.T, configure func(*server.Options), f func(*testing.T, *Server)) {
	t.Helper()
	if !clock.TryLock() {
		t.Fatal("natstest: Run inside or beside another Run, or while a server of Start runs")
	}
	defer clock.Unlock()
	defer oneProcessor()()
	forgetTimers()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{dir: t.TempDir(), configure: configure}
		t.Cleanup(func() {
			s.Stop()
			// The file store finishes some writes after the shutdown, some of them after a pause. They must meet neither
			// the removal of its folder nor the end of the bubble, for which a goroutine that sleeps is a leak.
			time.Sleep(time.Second)
		})
		s.start(t)
		f(t, s)
	})
}

// forgetTimers empties the process-wide sync.Pool in which nats.go keeps timers for reuse: a timer made in one bubble, or
// in none, is fatal to use in another. A pool keeps what it holds through one collection, hence two.
func forgetTimers() {
	runtime.GC()
	runtime.GC()
}

// oneProcessor has the goroutines of a bubble run one at a time while the race detector watches, until restore is called.
// A bubble's timers have one context of the detector, and whoever finds one due runs it there; two at once spoil the
// detector's stack of calls, and the process ends with a segmentation violation in its StackDepot (seen with Go 1.26.8, in
// four of five runs of package quotas). The detector needs no second processor: it goes by what happens before what.
func oneProcessor() (restore func()) {
	if !raceDetector {
		return func() {}
	}
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}
