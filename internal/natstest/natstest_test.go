package natstest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

func TestScheduleOfADay(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		js := s.JetStream(t)
		jobs := newStream(t, js)
		lane := newConsumer(t, jobs)
		begin := time.Now()
		due := begin.Add(24 * time.Hour)
		_, err := js.Publish(t.Context(), "later.a", []byte("a"),
			jetstream.WithScheduleAt(due), jetstream.WithScheduleTarget("job.a"))
		if err != nil {
			t.Fatal(err)
		}

		if _, err := lane.Next(jetstream.FetchMaxWait(23 * time.Hour)); !errors.Is(err, nats.ErrTimeout) {
			t.Fatalf("an hour early: %v, want a timeout", err)
		}
		pull(t, lane, "a")
		if late := time.Since(due); late < 0 || late > time.Second {
			t.Errorf("delivered %v after it was due", late)
		}
	})
}

func TestRedeliveryAfterAckWait(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		js := s.JetStream(t)
		lane := newConsumer(t, newStream(t, js))
		publish(t, js, "a")

		for delivery := uint64(1); delivery <= 3; delivery++ {
			m, err := lane.Next(jetstream.FetchMaxWait(2 * ackWait))
			if err != nil {
				t.Fatal(err)
			}
			meta, err := m.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			if meta.NumDelivered != delivery {
				t.Errorf("delivery %d, want %d", meta.NumDelivered, delivery)
			}
		}
	})
}

func TestKeyTTL(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		kv, err := s.JetStream(t).CreateKeyValue(t.Context(),
			jetstream.KeyValueConfig{Bucket: "b", LimitMarkerTTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Create(t.Context(), "k", nil, jetstream.KeyTTL(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		if _, err := kv.Get(t.Context(), "k"); err != nil {
			t.Errorf("before its time: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := kv.Get(t.Context(), "k"); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("after its time: %v, want ErrKeyNotFound", err)
		}
	})
}

func TestRestartKeepsMessages(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		js := s.JetStream(t)
		lane := newConsumer(t, newStream(t, js))
		publish(t, js, "a", "b")
		pull(t, lane, "a")

		s.Restart(t)
		time.Sleep(time.Second)
		pull(t, lane, "b")
	})
}

func TestOutage(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		nc := s.Connect(t)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		lane := newConsumer(t, newStream(t, js))
		publish(t, js, "a")

		s.Stop()
		time.Sleep(10 * time.Minute)
		if nc.IsConnected() || nc.IsClosed() {
			t.Errorf("during the outage the connection is %v", nc.Status())
		}
		s.Restart(t)
		time.Sleep(time.Second)
		pull(t, lane, "a")
	})
}

// A relay hands on what it is asked, but for what the test takes, and loses what the test has it lose.
func TestRelay(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		newStream(t, s.JetStream(t))
		lost := 0
		s.Relay(t, "relay", func(request *nats.Msg) bool {
			switch {
			case strings.HasSuffix(request.Subject, ".API.INFO"):
				return request.Respond([]byte(`{"streams":42}`)) == nil
			case lost < 1:
				lost++
				request.Reply = "nobody"
			}
			return false
		})
		js, err := jetstream.NewWithDomain(s.Connect(t), "relay")
		if err != nil {
			t.Fatal(err)
		}
		if info, err := js.AccountInfo(t.Context()); err != nil || info.Streams != 42 {
			t.Errorf("the test's answer: %+v, %v", info, err)
		}
		if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an answer that is lost: %v", err)
		}
		b, err := js.KeyValue(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Put(t.Context(), "k", []byte("v")); err != nil {
			t.Error(err)
		}
		if found, err := b.Get(t.Context(), "k"); err != nil || string(found.Value()) != "v" {
			t.Errorf("%v, %v", found, err)
		}
	})
}

// A server that stops tells waiting pulls so and then sleeps, with a lock held that every new consumer needs. A client that
// asks for one meanwhile, or comes back, must not make the bubble's clock stand still.
func TestStopWhileClientsAsk(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		js := s.JetStream(t)
		jobs := newStream(t, js)
		lane := newConsumer(t, jobs)
		waiting, err := lane.Fetch(1, jetstream.FetchMaxWait(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)

		answered := make(chan error, 1)
		go func() {
			time.Sleep(10 * time.Millisecond)
			_, err := js.CreateConsumer(t.Context(), "jobs", jetstream.ConsumerConfig{Durable: "late", FilterSubject: "later.*"})
			answered <- err
		}()
		s.Stop()
		if err := <-answered; err == nil {
			t.Error("a server that stops made a consumer")
		}
		for range waiting.Messages() {
			t.Error("a message")
		}
	})
}

func TestConfigure(t *testing.T) {
	configure := func(o *server.Options) {
		o.JetStream = false
		o.MaxPayload = 16
	}
	natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
		nc := s.Connect(t)
		if got := nc.MaxPayload(); got != 16 {
			t.Errorf("max payload %d, want 16", got)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.AccountInfo(t.Context()); !errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
			t.Errorf("account info: %v, want ErrJetStreamNotEnabled", err)
		}
	})
}

// Accounts are state of a server: a restart must not be given those of the server before.
func TestRestartWithAccounts(t *testing.T) {
	configure := func(o *server.Options) {
		a := server.NewAccount("A")
		o.Accounts = []*server.Account{a}
		o.Users = []*server.User{{Username: "u", Password: "p", Account: a, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"forbidden"}},
		}}}
	}
	natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
		denied := make(chan error, 1)
		nc := s.Connect(t, nats.UserInfo("u", "p"),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
		for range 2 {
			if err := nc.Publish("forbidden", nil); err != nil {
				t.Fatal(err)
			}
			if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("publish: %v, want ErrPermissionViolation", err)
			}
			s.Restart(t)
			time.Sleep(time.Second)
		}
	})
}

// Clients that answer each other inside the server block one another for good if a write can wait for the reader.
func TestCrosstalk(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		const conns, messages = 4, 500
		var got [conns]chan *nats.Msg
		var ncs [conns]*nats.Conn
		for i := range ncs {
			got[i] = make(chan *nats.Msg, conns*messages)
			ncs[i] = s.Connect(t)
			if _, err := ncs[i].ChanSubscribe("all", got[i]); err != nil {
				t.Fatal(err)
			}
			if err := ncs[i].Flush(); err != nil {
				t.Fatal(err)
			}
		}
		for _, nc := range ncs {
			go func() {
				for range messages {
					if err := nc.Publish("all", make([]byte, 1024)); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		time.Sleep(time.Minute)
		for i := range got {
			if len(got[i]) != conns*messages {
				t.Errorf("connection %d got %d messages, want %d", i, len(got[i]), conns*messages)
			}
		}
	})
}

func TestStart(t *testing.T) {
	s := natstest.Start(t, func(o *server.Options) { o.SyncAlways = true })
	back := make(chan bool, 1)
	reconnected := nats.ReconnectHandler(func(*nats.Conn) { back <- true })
	js := s.JetStream(t, reconnected)
	lane := newConsumer(t, newStream(t, js))
	publish(t, js, "a", "b")
	pull(t, lane, "a")

	url := s.ClientURL()
	s.Restart(t)
	if got := s.ClientURL(); got != url {
		t.Errorf("after the restart at %s, before at %s", got, url)
	}
	<-back
	pull(t, lane, "b")

	_, wire := s.ConnectWire(t, reconnected)
	wire.Cut()
	wire.Restore()
	<-back
}

const ackWait = 30 * time.Second

func newStream(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	jobs, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:              "jobs",
		Subjects:          []string{"job.>", "later.>"},
		AllowMsgSchedules: true,
		AllowMsgTTL:       true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

func newConsumer(t *testing.T, jobs jetstream.Stream) jetstream.Consumer {
	t.Helper()
	lane, err := jobs.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
		Durable:       "lane",
		FilterSubject: "job.>",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
	})
	if err != nil {
		t.Fatal(err)
	}
	return lane
}

func publish(t *testing.T, js jetstream.JetStream, jobs ...string) {
	t.Helper()
	for _, job := range jobs {
		if _, err := js.Publish(t.Context(), "job."+job, []byte(job)); err != nil {
			t.Fatal(err)
		}
	}
}

// pull takes the next message, whose body must be want, and acknowledges it.
func pull(t *testing.T, lane jetstream.Consumer, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
	defer cancel()
	m, err := lane.Next(jetstream.FetchContext(ctx))
	if err != nil {
		t.Fatalf("pull %s: %v", want, err)
	}
	if got := string(m.Data()); got != want {
		t.Errorf("pulled %q, want %q", got, want)
	}
	if err := m.DoubleAck(ctx); err != nil {
		t.Errorf("ack %s: %v", want, err)
	}
}
