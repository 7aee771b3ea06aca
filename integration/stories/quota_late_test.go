package stories

import (
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// slowWire holds back, while it is asked to, what its client sends. What is
// sent to the client arrives.
type slowWire struct {
	*natstest.Wire

	mu   sync.Mutex
	slow bool
	held []func()
}

type slowConn struct {
	net.Conn
	wire *slowWire
}

// InProcessConn makes a slowWire usable with nats.InProcessServer.
func (w *slowWire) InProcessConn() (net.Conn, error) {
	conn, err := w.Wire.InProcessConn()
	return &slowConn{conn, w}, err
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if !c.wire.slow {
		return c.Conn.Write(b)
	}
	sent := append([]byte(nil), b...)
	c.wire.held = append(c.wire.held, func() { c.Conn.Write(sent) })
	return len(b), nil
}

func (w *slowWire) hold(slow bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow = slow
	if slow {
		return
	}
	for _, send := range w.held {
		send()
	}
	w.held = nil
}

// dispatchSlowly runs a dispatcher over a slow wire until the story ends.
func (s *story) dispatchSlowly(c dispatcher.Config) *slowWire {
	s.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	wire := &slowWire{Wire: s.server.Wire(s.T)}
	nc, err := nats.Connect("", nats.InProcessServer(wire), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(nc.Close)
	c.UUID = uuid.New()
	d, err := dispatcher.New(nc, c)
	if err != nil {
		s.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(s.Context()) }()
	s.Cleanup(func() { <-ended })
	moment()
	return wire
}

// A dispatcher's word that a job has left arrives when another has the job: the
// slot is the other's.
func TestLateLeaveTakesNothing(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 2)
		w := s.site()
		s.dispatch(w.staff(5, "site.carve"))
		stints(s, carve, gpu, "keeper")
		wire := s.dispatchSlowly(w.staff(5, "site.paint"))
		j := put(s, paint.Call(stint{Name: "job", For: time.Minute}).Quota("gpu").ID("job"))
		time.Sleep(time.Minute - 10*time.Millisecond)
		wire.hold(true) // it ends, and cannot say so
		heir := s.dispatch(w.staff(5, "site.paint"))
		awaitFake(s, func() bool { return len(w.begun()) == 3 })
		time.Sleep(time.Second)
		wire.hold(false)
		time.Sleep(3 * time.Second)
		s.wantQuota("gpu", ids("keeper", "job"), nil)
		if turn := w.seen()[2]; turn.Dispatcher != heir.UUID() || turn.cause != nil {
			s.Errorf("the heir's context ended with %v", turn.cause)
		}
		wait(s, j)
		w.finish("keeper")
		w.wantBegun(s, "keeper", "job", "job")
		s.wantQuota("gpu", nil, nil)
	})
}

// What a dispatcher asked for a job arrives when another has the job: it takes
// nothing from it.
func TestLateRequestTakesNothing(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 2)
		w := s.site()
		s.dispatch(w.staff(5, "site.carve"))
		stints(s, carve, gpu, "keeper")
		wire := s.dispatchSlowly(w.staff(5, "site.paint"))
		stints(s, paint, gpu, "before")
		w.finish("before")
		wire.hold(true)
		j := stints(s, paint, gpu, "job")[0]
		w.wantBegun(s, "keeper", "before")
		heir := s.dispatch(w.staff(5, "site.paint"))
		awaitFake(s, func() bool { return len(w.begun()) == 3 })
		time.Sleep(time.Second)
		wire.hold(false)
		time.Sleep(3 * time.Second)
		if turn := w.seen()[2]; turn.Dispatcher != heir.UUID() || turn.cause != nil {
			s.Errorf("the heir's context ended with %v", turn.cause)
		}
		w.finish("job", "keeper")
		wait(s, j)
		w.wantBegun(s, "keeper", "before", "job")
		s.wantQuota("gpu", nil, nil)
	})
}

// A quota whose value cannot be read lets nobody in, and blocks nobody who does
// not name it.
func TestUnreadableQuota(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		stints(s, paint, gpu, "one", "two", "three")
		js, err := jetstream.New(s.server.Connect(s.T))
		if err != nil {
			s.Fatal(err)
		}
		bucket, err := js.KeyValue(s.Context(), "ASYNC_QUOTAS")
		if err != nil {
			s.Fatal(err)
		}
		if _, err := bucket.Put(s.Context(), "default.gpu", []byte("garbage")); err != nil {
			s.Fatal(err)
		}
		d := s.dispatch(w.staff(2))
		time.Sleep(time.Second)
		stints(s, paint, nil, "free")
		w.wantBegun(s, "free")
		if !d.log.Contains("level=ERROR", "quota cannot be used", "gpu") {
			s.Error("it was not logged")
		}
	})
}

// A job that is given a slot, and whose lease is lost before its agent has a
// place, does not begin.
func TestNothingBeginsWithoutItsLease(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		s.dispatch(w.staff(5, "site.carve"))
		stints(s, carve, gpu, "holder")
		wire := s.dispatchSlowly(w.staff(1, "site.paint"))
		at := time.Now()
		stints(s, paint, gpu, "waits")
		// It leaves its place without an answer of the server.
		put(s, paint.Call(stint{Name: "fills-the-place"}).Keep(job.KeepNone))
		time.Sleep(time.Until(at.Add(ackWait/3 + 500*time.Millisecond))) // both leases were extended once
		wire.hold(true)
		lost := at.Add(ackWait/3 + ackWait - time.Second)
		time.Sleep(time.Until(lost.Add(-20 * time.Millisecond)))
		close(w.end("holder"))
		time.Sleep(time.Until(lost.Add(50 * time.Millisecond)))
		close(w.end("fills-the-place"))
		time.Sleep(50 * time.Millisecond) // before the job can be delivered again
		w.wantBegun(s, "holder", "fills-the-place")
		wire.hold(false)
	})
}
