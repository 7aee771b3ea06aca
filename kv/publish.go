package kv

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Publish stores a message, and returns its sequence, as js.PublishMsg does and with its
// errors. That reads each answer with encoding/json, which takes longer than all the
// rest of a publish; here the usual answer is read by hand.
func Publish(ctx context.Context, js jetstream.JetStream, msg *nats.Msg) (sequence uint64, err error) {
	if _, bounded := ctx.Deadline(); bounded {
		answer, err := js.Conn().RequestMsgWithContext(ctx, msg)
		if err == nil {
			return acknowledged(answer)
		}
		if !errors.Is(err, nats.ErrNoResponders) {
			return 0, err
		}
	}
	// A stream that elects its leader has nobody to answer: this tries some times.
	ack, err := js.PublishMsg(ctx, msg)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// stored reads {"stream":"NAME","seq":N}, with a domain in the middle or not, which is
// what a server says that stored a message. ok is false for any other answer, be it
// that the message is stored or not.
func stored(answer []byte) (sequence uint64, ok bool) {
	rest, ok := textField(answer, `{"stream":"`)
	if !ok {
		return 0, false
	}
	if domain, named := textField(rest, `,"domain":"`); named {
		rest = domain
	}
	digits, ok := bytes.CutPrefix(rest, []byte(`,"seq":`))
	if !ok {
		return 0, false
	}
	if digits, ok = bytes.CutSuffix(digits, []byte("}")); !ok {
		return 0, false
	}
	sequence, err := strconv.ParseUint(string(digits), 10, 64)
	return sequence, err == nil && sequence > 0
}

// textField skips a field with the text that follows it, which is not empty and has
// nothing to unquote.
func textField(answer []byte, field string) (rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(answer, []byte(field))
	end := bytes.IndexAny(rest, `"\\`)
	if !ok || end <= 0 || rest[end] != '"' {
		return answer, false
	}
	return rest[end+1:], true
}
