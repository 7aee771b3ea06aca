package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// codeElecting is what a cluster answers that has no leader yet. The client has no name
// for it.
const codeElecting = 10008

// bounded bounds a context that has no deadline by the client's default timeout.
func bounded(ctx context.Context, js jetstream.JetStream) (context.Context, context.CancelFunc) {
	if _, bounded := ctx.Deadline(); bounded {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, js.Options().DefaultTimeout)
}

// Unanswered reports whether a request ended without the server's answer, so that
// what it asked for may have happened; or with the answer that there is nobody yet to
// give one.
func Unanswered(err error) bool {
	for _, silence := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		&jetstream.APIError{ErrorCode: codeElecting},
		// A watch is made by the client's older half.
		nats.ErrJetStreamNotEnabled, &nats.APIError{ErrorCode: codeElecting},
	} {
		if errors.Is(err, silence) {
			return true
		}
	}
	return false
}

// Answered reads the server's answer to a write of [Bucket.Send]: the revision
// that was written, or [ErrConflict] where the key has another than was given. An
// error that [Unanswered] knows leaves open whether it was written.
func Answered(answer *nats.Msg) (revision uint64, err error) {
	if answer.Header.Get("Status") == "503" {
		return 0, jetstream.ErrNoStreamResponse
	}
	revision, err = acknowledged(answer)
	return revision, conflict(err)
}

// acknowledged reads the server's answer to a publish.
func acknowledged(answer *nats.Msg) (sequence uint64, err error) {
	if sequence, ok := stored(answer.Data); ok {
		return sequence, nil
	}
	return decoded(answer)
}

// decoded reads any answer to a publish.
func decoded(answer *nats.Msg) (sequence uint64, err error) {
	var ack struct {
		Stream   string              `json:"stream"`
		Sequence uint64              `json:"seq"`
		Error    *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, fmt.Errorf("answer to a write cannot be read: %w", err)
	}
	switch {
	case ack.Error != nil:
		return 0, ack.Error
	case ack.Stream == "" || ack.Sequence == 0:
		return 0, jetstream.ErrInvalidJSAck
	}
	return ack.Sequence, nil
}
