package kv

import (
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// APIPrefix is what stands before the subjects of JetStream requests, with its
// final dot, for those requests that jetstream.JetStream does not offer.
func APIPrefix(js jetstream.JetStream) string {
	options := js.Options()
	switch {
	case options.APIPrefix != "":
		return strings.TrimSuffix(options.APIPrefix, ".") + "."
	case options.Domain != "":
		return "$JS." + options.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}
