package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// leader reads the last message of a key by the JetStream API, which the
// stream's leader answers; a direct get may be answered by a follower, and
// jetstream.Stream offers no other on a bucket that allows direct gets.
// revision is 0 where the key has no message; marker says that the message is
// a delete or expiry marker.
func (b *Bucket[T]) leader(ctx context.Context, key string) (revision uint64, marker bool, data []byte, written time.Time, err error) {
	request, err := json.Marshal(struct {
		LastBySubject string `json:"last_by_subj"`
	}{"$KV." + b.name + "." + key})
	if err != nil {
		return 0, false, nil, time.Time{}, err
	}
	ctx, cancel := bounded(ctx, b.js)
	defer cancel()
	subject := APIPrefix(b.js) + "STREAM.MSG.GET.KV_" + b.name
	reply, err := b.js.Conn().RequestWithContext(ctx, subject, request)
	if err != nil {
		return 0, false, nil, time.Time{}, fmt.Errorf("read %s of %s: %w", key, b.name, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return 0, false, nil, time.Time{}, fmt.Errorf("read %s of %s: %w", key, b.name, err)
	}
	if answer.Error != nil {
		if errors.Is(answer.Error, jetstream.ErrMsgNotFound) {
			return 0, false, nil, time.Time{}, nil
		}
		return 0, false, nil, time.Time{}, fmt.Errorf("read %s of %s: %w", key, b.name, answer.Error)
	}
	if len(answer.Message.Header) > 0 {
		header, err := nats.DecodeHeadersMsg(answer.Message.Header)
		if err != nil {
			return 0, false, nil, time.Time{}, fmt.Errorf("read %s of %s: %w", key, b.name, err)
		}
		marker = header.Get("KV-Operation") != "" || header.Get(jetstream.MarkerReasonHeader) != ""
	}
	return answer.Message.Sequence, marker, answer.Message.Data, answer.Message.Time, nil
}
