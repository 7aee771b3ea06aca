package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// PurgeAll removes every key of a bucket that matches pattern (NATS wildcards),
// whatever its value. Watchers do not hear of it.
func PurgeAll(ctx context.Context, js jetstream.JetStream, bucket, pattern string) error {
	_, err := Purge(ctx, js, bucket, pattern, Newest)
	return err
}

// Newest, as a revision, is that of the newest entry.
const Newest uint64 = 0

// Purge removes every entry of a bucket whose key matches pattern (NATS
// wildcards) and whose revision is upTo at most, and returns how many they were.
// It leaves no markers, and watchers do not hear of it. With a key and its
// revision it removes that entry, and none that was written since.
func Purge(ctx context.Context, js jetstream.JetStream, bucket, pattern string, upTo uint64) (removed int, err error) {
	step := fmt.Sprintf("purge %s of %s", pattern, bucket)
	before := upTo + 1
	if upTo == Newest {
		before = 0
	}
	request, err := json.Marshal(struct {
		Filter string `json:"filter"`
		Before uint64 `json:"seq,omitempty"`
	}{"$KV." + bucket + "." + pattern, before})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", step, err)
	}
	ctx, cancel := bounded(ctx, js)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, APIPrefix(js)+"STREAM.PURGE.KV_"+bucket, request)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", step, err)
	}
	var answer struct {
		Error  *jetstream.APIError `json:"error"`
		Purged int                 `json:"purged"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return 0, fmt.Errorf("%s: %w", step, err)
	}
	switch {
	case answer.Error == nil:
		return answer.Purged, nil
	case errors.Is(answer.Error, jetstream.ErrStreamNotFound):
		return 0, fmt.Errorf("%s: %w", step, ErrNoBucket)
	}
	return 0, fmt.Errorf("%s: %w", step, answer.Error)
}
