package natstest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

func TestCut(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		lost := make(chan error, 1)
		nc, wire := s.ConnectWire(t, nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { lost <- err }))
		other := s.Connect(t)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		lane := newConsumer(t, newStream(t, js))
		publish(t, js, "a")

		wire.Cut()
		<-lost
		time.Sleep(time.Hour)
		if nc.IsConnected() {
			t.Error("connected over a cut wire")
		}
		if err := other.Flush(); err != nil {
			t.Errorf("the other wire: %v", err)
		}

		wire.Restore()
		time.Sleep(time.Second)
		if got := nc.Stats().Reconnects; got != 1 {
			t.Errorf("%d reconnects, want 1", got)
		}
		pull(t, lane, "a")
	})
}

func TestCutTogether(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		wire := s.Wire(t)
		a, b := wire.Connect(t), wire.Connect(t)
		wire.Cut()
		synctest.Wait()
		if a.IsConnected() || b.IsConnected() {
			t.Error("a connection outlived its wire")
		}
	})
}

// A short freeze delays everything and loses nothing.
func TestFreezeAndThaw(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		nc, wire := s.ConnectWire(t)
		sub, err := nc.SubscribeSync("a")
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		other := s.Connect(t)
		fromNC, err := other.SubscribeSync("b")
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Flush(); err != nil {
			t.Fatal(err)
		}

		wire.Freeze()
		const messages = 100
		big := make([]byte, 64<<10) // in all more than any buffer on the way
		for range messages {
			if err := other.Publish("a", big); err != nil {
				t.Fatal(err)
			}
			if err := nc.Publish("b", big); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		for _, sub := range []*nats.Subscription{sub, fromNC} {
			if _, err := sub.NextMsg(time.Second); !errors.Is(err, nats.ErrTimeout) {
				t.Errorf("%s over a frozen wire: %v, want a timeout", sub.Subject, err)
			}
		}

		wire.Thaw()
		for _, sub := range []*nats.Subscription{sub, fromNC} {
			for range messages {
				if _, err := sub.NextMsg(time.Second); err != nil {
					t.Fatalf("%s after the thaw: %v", sub.Subject, err)
				}
			}
		}
		if got := nc.Stats().Reconnects; got != 0 {
			t.Errorf("%d reconnects, want none", got)
		}
	})
}

// A frozen holder loses its message to another one without its connection being closed.
func TestFrozenHolderLosesItsMessage(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		nc, wire := s.ConnectWire(t)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		lane := newConsumer(t, newStream(t, js))
		publish(t, js, "a")
		if _, err := lane.Next(); err != nil {
			t.Fatal(err)
		}

		wire.Freeze()
		other, err := s.JetStream(t).Consumer(t.Context(), "jobs", "lane")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		pull(t, other, "a")
		if waited := time.Since(begin); waited < ackWait-time.Second || waited > ackWait+time.Second {
			t.Errorf("passed on after %v, want about %v", waited, ackWait)
		}
		if !nc.IsConnected() {
			t.Error("the holder noticed")
		}
	})
}

// A long freeze ends the connection on both sides by unanswered pings.
func TestLongFreeze(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		lost := make(chan error, 1)
		nc, wire := s.ConnectWire(t, nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { lost <- err }))
		wire.Freeze()
		if err := <-lost; !errors.Is(err, nats.ErrStaleConnection) {
			t.Errorf("lost with %v, want ErrStaleConnection", err)
		}
		time.Sleep(time.Hour)
		if nc.IsConnected() {
			t.Error("connected over a frozen wire")
		}
		if err := nc.Publish("a", nil); err != nil {
			t.Errorf("publish while frozen: %v", err)
		}
		wire.Thaw()
		time.Sleep(time.Second)
		if err := nc.Flush(); err != nil {
			t.Errorf("after the thaw: %v", err)
		}
	})
}

// Faults that strike at every instant of a reconnect must neither hang the bubble nor lose the connection.
func TestFaultsDuringReconnect(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		nc, wire := s.ConnectWire(t, nats.ReconnectWait(time.Millisecond))
		for range 200 {
			wire.Cut()
			wire.Restore()
			time.Sleep(time.Millisecond)
			wire.Freeze()
			if err := nc.Publish("a", nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			wire.Thaw()
		}
		time.Sleep(time.Second)
		if err := nc.Flush(); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseWhileFrozen(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		nc, wire := s.ConnectWire(t)
		wire.Freeze()
		nc.Close()
	})
}
