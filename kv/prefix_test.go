package kv_test

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/kv"
)

func TestAPIPrefix(t *testing.T) {
	plain := func(nc *nats.Conn) (jetstream.JetStream, error) { return jetstream.New(nc) }
	domain := func(nc *nats.Conn) (jetstream.JetStream, error) { return jetstream.NewWithDomain(nc, "hub") }
	tests := map[string]struct {
		make func(*nats.Conn) (jetstream.JetStream, error)
		want string
	}{
		"plain":  {plain, "$JS.API."},
		"domain": {domain, "$JS.hub.API."},
		"prefix": {func(nc *nats.Conn) (jetstream.JetStream, error) {
			return jetstream.NewWithAPIPrefix(nc, "import.js")
		}, "import.js."},
	}
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		nc := s.Connect(t)
		for name, test := range tests {
			js, err := test.make(nc)
			if err != nil {
				t.Fatal(err)
			}
			if got := kv.APIPrefix(js); got != test.want {
				t.Errorf("%s: %q, want %q", name, got, test.want)
			}
		}
	})
}

func TestDomain(t *testing.T) {
	inDomain := func(o *server.Options) { o.JetStreamDomain = "hub" }
	natstest.RunWith(t, inDomain, func(t *testing.T, s *natstest.Server) {
		js, err := jetstream.NewWithDomain(s.Connect(t), "hub")
		if err != nil {
			t.Fatal(err)
		}
		b := open(t, js, kv.Config{Bucket: "b"})
		w := watch(t, b, ">")
		w.next(t, 1)
		revision := create(t, b, "k", "1", kv.Forever)
		w.next(t, 1)
		revision = update(t, b, "k", "2", revision, kv.Forever)
		w.next(t, 1)
		wantValue(t, b, "k", "2")
		_, err = b.Create(t.Context(), "k", "x", kv.Forever)
		wantConflict(t, "create", err)
		remove(t, b, "k", revision)
		w.next(t, 1)
		wantValue(t, b, "k", "")
		create(t, b, "k", "3", kv.Forever)
		w.next(t, 1)
		if err := kv.PurgeAll(t.Context(), js, "b", ">"); err != nil {
			t.Error(err)
		}
		wantValue(t, b, "k", "")
	})
}
