package kv

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// PublishAll stores messages of one stream, all or none, in an atomic batch, and returns
// the sequence of the last. Each try waits so long for its answer.
//
// A stream takes 50 batches at a time, where the server is not configured otherwise, and
// forgets those that have begun when it elects a leader. A batch that is so refused has
// stored nothing, and is published again until ctx ends.
func PublishAll(ctx context.Context, js jetstream.JetStream, msgs []*nats.Msg, patience time.Duration) (sequence uint64, err error) {
	for tries := 0; ; tries++ {
		ack, err := publishBatch(ctx, js, msgs, patience)
		if err == nil {
			return ack.Sequence, nil
		}
		if !notTaken(err) {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(rand.N(batchPause << min(tries, 5))):
		}
	}
}

// batchPause is the most that lies between the first two tries of a batch.
const batchPause = 10 * time.Millisecond

func publishBatch(ctx context.Context, js jetstream.JetStream, msgs []*nats.Msg, patience time.Duration) (*jetstreamext.BatchAck, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return jetstreamext.PublishMsgBatch(ctx, js, msgs, jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: patience})
}

// notTaken reports whether the server had no place for a batch, or has lost it.
func notTaken(err error) bool {
	var refused *jetstream.APIError
	if !errors.As(err, &refused) {
		return false
	}
	return refused.ErrorCode == jetstreamext.JSErrCodeAtomicPublishTooManyInflight || refused.ErrorCode == jetstreamext.JSErrCodeBatchPublishIncomplete
}
