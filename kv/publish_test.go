package kv

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// The usual answer is read by hand, and means what it means otherwise; all others are
// left to encoding/json.
func TestStored(t *testing.T) {
	for answer, want := range map[string]uint64{
		`{"stream":"KV_A","seq":1}`:                                    1,
		`{"stream":"KV_A","seq":18446744073709551615}`:                 1<<64 - 1,
		`{"stream":"KV_A","seq":0}`:                                    0,
		`{"stream":"KV_A","seq":18446744073709551616}`:                 0,
		`{"stream":"","seq":1}`:                                        0,
		`{"stream":"KV_A","domain":"hub","seq":7}`:                     7,
		`{"stream":"KV_A","seq":1,"domain":"hub"}`:                     0,
		`{"stream":"KV_A","domain":"","seq":7}`:                        0,
		`{"stream":"KV_A" ,"seq":1}`:                                   0,
		`{"stream":"KV_A","seq":1,"duplicate": true}`:                  0,
		`{"stream":"KV\u0041","seq":1}`:                                0,
		`{"stream":"a"b","seq":1}`:                                     0,
		`{"stream":"KV_A","seq":-1}`:                                   0,
		`{"stream":"KV_A","seq":1`:                                     0,
		`{"error":{"code":400,"err_code":10071},"stream":"A","seq":0}`: 0,
		``: 0,
	} {
		got, ok := stored([]byte(answer))
		if !ok {
			got = 0
		}
		if got != want {
			t.Errorf("%s: %d, want %d", answer, got, want)
		}
		if slow, err := decoded(&nats.Msg{Data: []byte(answer)}); ok && (err != nil || slow != got) {
			t.Errorf("%s: %d, and %d by encoding/json, %v", answer, got, slow, err)
		}
	}
}

// The server says what is read by hand, with a domain or without.
func TestStoredReadsTheServer(t *testing.T) {
	for _, domain := range []string{"", "hub"} {
		configure := func(o *server.Options) { o.JetStreamDomain = domain }
		natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
			js := s.JetStream(t)
			if err := Make(t.Context(), js, Config{Bucket: "b"}); err != nil {
				t.Fatal(err)
			}
			answer, err := js.Conn().RequestWithContext(t.Context(), "$KV.b.k", nil)
			if err != nil {
				t.Fatal(err)
			}
			if sequence, ok := stored(answer.Data); !ok || sequence != 1 {
				t.Errorf("domain %q: %s is read as %d, %t", domain, answer.Data, sequence, ok)
			}
		})
	}
}
