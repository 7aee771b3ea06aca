package stories

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
)

// A dispatcher that was taken for dead and is back is active, whatever becomes of the
// first that it asks.
func TestBackIsActive(t *testing.T) {
	// nth has the answer to the nth write of a key be lost.
	nth := func(key string, n int) func(*nats.Msg) bool {
		return func(request *nats.Msg) bool {
			if strings.HasSuffix(request.Subject, key) {
				if n--; n == 0 {
					request.Reply = "nobody"
				}
			}
			return false
		}
	}
	faults := map[string]func(id string) func(*nats.Msg) bool{
		"the ping is not answered":       func(id string) func(*nats.Msg) bool { return nth(".alive."+id, 1) },
		"the claim is not answered":      func(id string) func(*nats.Msg) bool { return nth(".alive."+id, 2) }, // it finds the marker
		"its repetition is not answered": func(id string) func(*nats.Msg) bool { return nth(".alive."+id, 3) }, // it is stored
		"the next ping is not answered":  func(id string) func(*nats.Msg) bool { return nth(".alive."+id, 4) },
		"the entry is not answered":      func(id string) func(*nats.Msg) bool { return nth(".dispatcher."+id, 1) },
		"the entry cannot be read": func(id string) func(*nats.Msg) bool {
			var until time.Time
			return func(request *nats.Msg) bool {
				if !bytes.Contains(request.Data, []byte(".dispatcher."+id)) {
					return false
				}
				if until.IsZero() {
					until = time.Now().Add(4 * time.Second)
				}
				return time.Now().Before(until)
			}
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				var take atomic.Pointer[func(*nats.Msg) bool]
				none := func(*nats.Msg) bool { return false }
				take.Store(&none)
				s.through(func(request *nats.Msg) bool { return (*take.Load())(request) })
				w := s.site()
				s.dispatch(w.staff(1))
				c := w.staff(1)
				c.Domain = relayed
				mortal := s.dispatch(c)
				moment()
				silent := func(request *nats.Msg) bool { return strings.HasSuffix(request.Subject, ".alive."+mortal.UUID()) }
				take.Store(&silent)
				time.Sleep(deathInterval + 5*time.Second)
				s.wantState(mortal.UUID(), asyncnats.DispatcherDead)
				late := fault(mortal.UUID())
				take.Store(&late)
				time.Sleep(20 * time.Second)
				s.wantState(mortal.UUID(), asyncnats.DispatcherActive)
			})
		})
	}
}

// A dispatcher that is back while a sibling is about to say that it died is active.
func TestBackWhileBuried(t *testing.T) {
	steps := map[string]func(request *nats.Msg, id string) bool{
		"the sign is read":     func(r *nats.Msg, id string) bool { return bytes.Contains(r.Data, []byte(".alive."+id)) },
		"the entry is read":    func(r *nats.Msg, id string) bool { return bytes.Contains(r.Data, []byte(".dispatcher."+id)) },
		"the entry is written": func(r *nats.Msg, id string) bool { return strings.HasSuffix(r.Subject, ".dispatcher."+id) },
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				var mortal *staff
				var dead, late atomic.Bool
				s.server.Relay(s.T, "mortal", func(request *nats.Msg) bool {
					return dead.Load() && strings.Contains(request.Subject, ".alive.")
				})
				s.server.Relay(s.T, relayed, func(request *nats.Msg) bool {
					if dead.Load() && step(request, mortal.UUID()) {
						dead.Store(false)
						late.Store(true)
						time.Sleep(2 * time.Second)
					}
					return false
				})
				w := s.site()
				sibling, c := w.staff(1), w.staff(1)
				sibling.Domain, c.Domain = relayed, "mortal"
				c.PingInterval, c.PingDeathInterval = time.Second, 3*time.Second
				mortal = s.dispatch(c)
				s.dispatch(sibling)
				moment()
				dead.Store(true)
				time.Sleep(15 * time.Second)
				if !late.Load() {
					s.Error("the sibling asked nothing")
				}
				s.wantState(mortal.UUID(), asyncnats.DispatcherActive)
			})
		})
	}
}

// A dispatcher whose pings are not answered takes no jobs in the last second before its
// sign expires, whatever ping it waits for then.
func TestSilentDispatcherIsSuspended(t *testing.T) {
	tell(t, func(s *story) {
		var silent atomic.Bool
		var last atomic.Pointer[time.Time] // when the sign was written
		s.through(func(request *nats.Msg) bool {
			if !strings.Contains(request.Subject, ".alive.") || silent.Load() {
				return silent.Load()
			}
			last.Store(new(time.Now()))
			return false
		})
		c := s.site().staff(1)
		c.Domain = relayed
		d := s.dispatch(c)
		time.Sleep(11 * time.Second)
		silent.Store(true)
		expires := last.Load().Add(deathInterval)
		time.Sleep(time.Until(expires.Add(-1100 * time.Millisecond)))
		if d.log.Contains("takes no jobs") {
			s.Error("it takes no jobs too early")
		}
		time.Sleep(200 * time.Millisecond)
		if !d.log.Contains("takes no jobs") {
			s.Error("it takes jobs in the last second")
		}
	})
}
