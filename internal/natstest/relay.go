package natstest

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Relay serves a JetStream domain of that name until tb ends, by handing on what it is asked to the server, which has
// none. A test so stands between the two: take sees each request, one at a time, and has it for itself where it returns
// true; one that it answers may be a fault that a single server does not show, one that it does not answer is lost. An
// answer alone is lost where it gives the request another reply subject.
//
// Only requests of the JetStream API, and writes to buckets, know of domains. Other publishes pass it by.
func (s *Server) Relay(tb testing.TB, domain string, take func(*nats.Msg) bool) {
	tb.Helper()
	nc := s.Connect(tb)
	prefix := "$JS." + domain + ".API."
	if _, err := nc.Subscribe(prefix+">", func(msg *nats.Msg) {
		subject := strings.TrimPrefix(msg.Subject, prefix)
		if take(msg) {
			return
		}
		if !strings.HasPrefix(subject, "$KV.") {
			subject = jetstream.DefaultAPIPrefix + subject
		}
		_ = nc.PublishMsg(&nats.Msg{Subject: subject, Reply: msg.Reply, Header: msg.Header, Data: msg.Data})
	}); err != nil {
		tb.Fatalf("natstest: relay: %v", err)
	}
	if err := nc.Flush(); err != nil {
		tb.Fatalf("natstest: relay: %v", err)
	}
}
