package stories

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/roster"
)

// deathInterval is the default of dispatchers.
const deathInterval = 15 * time.Second

// witness writes down what is told of dispatchers.
type witness struct {
	mu     sync.Mutex
	events []dispatcher.Event
}

func (s *story) witness() *witness {
	s.Helper()
	w := &witness{}
	nc := s.server.Connect(s.T)
	_, err := nc.Subscribe("async.*.event.dispatcher.*", func(msg *nats.Msg) {
		event, err := roster.DecodeEvent(msg.Data)
		if err != nil || msg.Subject != fmt.Sprintf("async.%s.event.dispatcher.%s", event.Queue, event.Kind) {
			s.Errorf("%s tells %s, %v", msg.Subject, msg.Data, err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, event)
	})
	if err := errors.Join(err, nc.Flush()); err != nil {
		s.Fatal(err)
	}
	return w
}

// told lists what was told of a dispatcher: kind, and reason where there is one.
func (w *witness) told(id string) (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Dispatcher == id {
			what := string(e.Kind)
			if e.Reason != "" {
				what += ": " + e.Reason
			}
			list = append(list, what)
		}
	}
	return list
}

func (w *witness) want(s *story, id string, events ...string) {
	s.Helper()
	if got := w.told(id); !slices.Equal(got, events) {
		s.Errorf("told of %s: %q, want %q", id, got, events)
	}
}

func (s *story) wantState(id string, want roster.State) {
	s.Helper()
	if d, err := s.client.Dispatcher(s.Context(), id); err != nil || d.State != want {
		s.Errorf("dispatcher %s is %s, %v; want %s", id, d.State, err, want)
	}
}

// A dispatcher is registered once, and active while it runs.
func TestDispatcherIsRegistered(t *testing.T) {
	tell(t, func(s *story) {
		heard := s.witness()
		var own []dispatcher.Event
		c := s.site().staff(1)
		c.UUID = uuid.New()
		c.OnEvent = func(e dispatcher.Event) { own = append(own, e) }
		id := c.UUID.String()
		if _, err := s.client.Dispatcher(s.Context(), id); !errors.Is(err, asyncnats.ErrNoDispatcher) {
			s.Errorf("before: %v", err)
		}
		d := s.dispatch(c)
		moment()
		heard.want(s, id, "registered", "activated")
		s.wantState(id, asyncnats.DispatcherActive)
		if err := s.client.RemoveDispatcher(s.Context(), id); !errors.Is(err, asyncnats.ErrDispatcherActive) {
			s.Errorf("remove while active: %v", err)
		}
		time.Sleep(time.Minute) // many pings
		s.wantState(id, asyncnats.DispatcherActive)
		d.stop()
		moment()
		s.wantState(id, asyncnats.DispatcherStopped)
		again := s.dispatch(c)
		moment()
		again.stop()
		moment()
		if err := s.client.RemoveDispatcher(s.Context(), id); err != nil {
			s.Error(err)
		}
		moment()
		heard.want(s, id, "registered", "activated", "deactivated: stopped", "activated", "deactivated: stopped", "unregistered")
		list, err := s.client.Dispatchers(s.Context())
		left, err2 := s.queue.Agents(s.Context(), id)
		if len(list) != 0 || len(left) != 0 || errors.Join(err, err2) != nil {
			s.Errorf("left %+v, %+v, %v, %v", list, left, err, err2)
		}
		if len(own) != 5 || own[0].Kind != roster.Registered || own[0].Queue != "default" || own[0].PID == 0 {
			s.Errorf("the dispatcher itself was told %+v", own)
		}
	})
}

// The death of a dispatcher is noticed and told once, however many siblings there
// are. One that comes back is told to be reactivated.
func TestDeathIsToldOnce(t *testing.T) {
	tell(t, func(s *story) {
		heard := s.witness()
		w := s.site()
		mortal := s.dispatch(w.staff(1))
		var others []*staff
		for range 4 {
			others = append(others, s.dispatch(w.staff(1)))
		}
		moment()
		mortal.wire.Freeze()
		time.Sleep(deathInterval + 2*time.Second)
		heard.want(s, mortal.UUID(), "registered", "activated", "deactivated: died")
		s.wantState(mortal.UUID(), asyncnats.DispatcherDead)
		time.Sleep(time.Minute)
		heard.want(s, mortal.UUID(), "registered", "activated", "deactivated: died")
		mortal.wire.Thaw()
		time.Sleep(10 * time.Second)
		heard.want(s, mortal.UUID(), "registered", "activated", "deactivated: died", "reactivated")
		s.wantState(mortal.UUID(), asyncnats.DispatcherActive)
		if !mortal.log.Contains("level=ERROR", "taken for dead") {
			s.Error("it does not say so in its log")
		}
		for _, d := range others {
			heard.want(s, d.UUID(), "registered", "activated")
		}
		stints(s, paint, nil, "one", "two", "three", "four", "five")
		w.finish("one", "two", "three", "four", "five") // all places are used
	})
}

// Who begins to watch later finds those who died before.
func TestEarlierDeathIsFound(t *testing.T) {
	tell(t, func(s *story) {
		heard := s.witness()
		w := s.site()
		mortal := s.dispatch(w.staff(1))
		moment()
		mortal.wire.Cut()
		mortal.stop()
		time.Sleep(time.Minute)
		s.wantState(mortal.UUID(), asyncnats.DispatcherDead)
		heard.want(s, mortal.UUID(), "registered", "activated")
		s.dispatch(w.staff(1))
		moment()
		heard.want(s, mortal.UUID(), "registered", "activated", "deactivated: died")
	})
}

// A lone dispatcher that died says so when it comes back, which it does at once:
// nobody is there who has its UUID.
func TestLoneDispatcherComesBack(t *testing.T) {
	tell(t, func(s *story) {
		heard := s.witness()
		w := s.site()
		c := w.staff(1)
		c.UUID = uuid.New()
		mortal := s.dispatch(c)
		moment()
		mortal.wire.Cut()
		mortal.stop()
		stints(s, paint, nil, "job")
		s.dispatch(c)
		moment()
		w.wantBegun(s, "job")
		heard.want(s, c.UUID.String(), "registered", "activated", "deactivated: died", "activated")
	})
}

// Of two processes with one UUID the second says so and takes no job, until the
// first is dead.
func TestCopiedUUID(t *testing.T) {
	tell(t, func(s *story) {
		heard := s.witness()
		w := s.site()
		c := w.staff(5)
		c.UUID = uuid.New()
		first := s.dispatch(c)
		moment()
		second := s.dispatch(c)
		time.Sleep(time.Minute)
		stints(s, paint, nil, "a", "b", "c")
		w.wantBegun(s, "a", "b", "c")
		if second.log.Contains("dispatcher runs") || !second.log.Contains("level=ERROR", "this UUID is active already") {
			s.Error("the second does not refuse")
		}
		info, err := s.queue.Info(s.Context())
		if err != nil || len(info.Dispatchers) != 1 {
			s.Errorf("%+v, %v: want the first alone", info.Dispatchers, err)
		}
		first.wire.Cut()
		first.stop()
		time.Sleep(deathInterval)
		if !second.log.Contains("dispatcher runs") {
			s.Error("the second does not take over")
		}
		heard.want(s, c.UUID.String(), "registered", "activated", "deactivated: died", "activated")
		put(s, paint.Call(stint{Name: "d"}))
		awaitFake(s, func() bool { return slices.Contains(w.begun(), "d") })
	})
}

// A dispatcher whose UUID another process took while it was taken for dead takes
// no jobs until that one is gone.
func TestDisplacedDispatcher(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		c := w.staff(5)
		c.UUID = uuid.New()
		first := s.dispatch(c)
		moment()
		first.wire.Freeze()
		second := s.dispatch(c)
		time.Sleep(2 * deathInterval) // the second has waited for the first's sign to expire
		if !second.log.Contains("dispatcher runs") {
			s.Fatal("the second does not take over")
		}
		first.wire.Thaw()
		time.Sleep(deathInterval)
		if !first.log.Contains("level=ERROR", "another process's now") || !first.log.Contains("takes no jobs") {
			s.Error("the first does not say that it is displaced")
		}
		stints(s, paint, nil, "a", "b", "c", "d", "e", "f")
		if n := len(w.begun()); n != 5 {
			s.Errorf("%d jobs run, want the 5 of the second", n)
		}
		second.stop()
		time.Sleep(deathInterval)
		s.wantState(c.UUID.String(), asyncnats.DispatcherActive)
		if !first.log.Contains("takes jobs again") {
			s.Error("the first does not go on when the second is gone")
		}
		awaitFake(s, func() bool { return len(w.begun()) == 10 })
	})
}
