package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// Write is one key of several that are written together.
type Write[T any] struct {
	Key   string
	Value T
	// Revision is the key's last one, 0 for a key without a value.
	Revision uint64
}

// UpdateAll writes several keys, all or none: each at the revision given, and
// for good. It returns the new revisions, in order. It returns [ErrConflict]
// where any key has another revision, and then nothing was written. The bucket
// must be Atomic.
//
// On a single server a batch of two takes as long as ten single writes: it is
// for the cases that need it.
func (b *Bucket[T]) UpdateAll(ctx context.Context, writes []Write[T]) ([]uint64, error) {
	msgs := make([]*nats.Msg, len(writes))
	for i, w := range writes {
		data, err := b.codec.Encode(w.Value)
		if err != nil {
			return nil, fmt.Errorf("write %s of %s: %w", w.Key, b.name, err)
		}
		msgs[i] = b.message(w.Key, w.Revision)
		msgs[i].Data = data
	}
	ctx, cancel := bounded(ctx, b.js)
	defer cancel()
	last, err := PublishAll(ctx, b.js, msgs, b.js.Options().DefaultTimeout)
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == jetstreamext.JSErrCodeBatchPublishNotEnabled {
		return nil, fmt.Errorf("write %d keys of %s: the bucket was made by somebody else and takes no atomic batches: change that (nats stream edit KV_%s --allow-batch): %w", len(writes), b.name, b.name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("write %d keys of %s: %w", len(writes), b.name, conflict(err))
	}
	revisions := make([]uint64, len(writes))
	for i := range revisions {
		revisions[i] = last - uint64(len(writes)-1-i)
	}
	return revisions, nil
}

// UpdateEach writes several keys, each at the revision given and with a time to live,
// and waits for all answers at once: keys that have another revision are left as they
// are, and conflicts says how many these are. Where the error is not nil the others
// may have been written.
func (b *Bucket[T]) UpdateEach(ctx context.Context, writes []Write[T], ttl time.Duration) (conflicts int, err error) {
	inbox := b.js.Conn().NewInbox()
	sub, err := b.js.Conn().SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return 0, err
	}
	for _, w := range writes {
		if err := b.Send(w.Key, w.Value, w.Revision, ttl, inbox); err != nil {
			return 0, err
		}
	}
	for range writes {
		answer, err := sub.NextMsgWithContext(ctx)
		if err == nil {
			_, err = Answered(answer)
		}
		switch {
		case errors.Is(err, ErrConflict):
			conflicts++
		case err != nil:
			return conflicts, fmt.Errorf("write %d keys of %s: %w", len(writes), b.name, err)
		}
	}
	return conflicts, nil
}
