package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
)

const (
	quotasStream  = "KV_ASYNC_QUOTAS"
	recordsStream = "KV_ASYNC_JOBS"
)

// keepRevisions makes the buckets of quotas and of records before the first
// queue does, such that every value they ever have stays to be read.
func keepRevisions(ctx context.Context, js jetstream.JetStream, replicas int) error {
	for _, name := range []string{quotasStream, recordsStream} {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{
			Name: name, Subjects: []string{"$KV." + strings.TrimPrefix(name, "KV_") + ".>"},
			MaxMsgsPerSubject: 1 << 40, // not unlimited, which no bucket may be
			Discard:           jetstream.DiscardNew, AllowRollup: true, DenyDelete: true, AllowDirect: true,
			AllowMsgTTL: true, AllowAtomicPublish: true, Replicas: replicas,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readRevisions reads every value that a queue's quotas had.
func readRevisions(ctx context.Context, js jetstream.JetStream) (revisions []quotaRevision, err error) {
	err = readAll(ctx, js, quotasStream, func(msg *jetstream.RawStreamMsg) error {
		var value struct {
			Version int `msgpack:"v"`
			quotas.Slots
		}
		if err := msgpack.Unmarshal(msg.Data, &value); err != nil {
			return err
		}
		revisions = append(revisions, quotaRevision{
			Sequence: msg.Sequence, Quota: lastToken(msg.Subject), Batch: msg.Header.Get(jetstreamext.BatchIDHeader),
			At: msg.Time, Slots: value.Slots,
		})
		return nil
	})
	return revisions, err
}

// readOutcomes reads every record in its final state.
func readOutcomes(ctx context.Context, js jetstream.JetStream) (outcomes []quotaOutcome, err error) {
	err = readAll(ctx, js, recordsStream, func(msg *jetstream.RawStreamMsg) error {
		record, err := job.DecodeRecord(msg.Data)
		if err == nil && record.State.Final() {
			outcomes = append(outcomes, quotaOutcome{job.ID(lastToken(msg.Subject)), msg.Time, record.Outcome.Succeeded()})
		}
		return err
	})
	return outcomes, err
}

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// readAll reads a stream from its beginning, and makes sure that nothing is
// missing in it.
func readAll(ctx context.Context, js jetstream.JetStream, stream string, take func(*jetstream.RawStreamMsg) error) error {
	for next := uint64(1); ; {
		batch, err := jetstreamext.GetBatch(ctx, js, stream, 500, jetstreamext.GetBatchSeq(next))
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		for msg, err := range batch {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				return nil
			}
			if err == nil && msg.Sequence != next {
				err = fmt.Errorf("history begins at %d", msg.Sequence)
			}
			if err == nil {
				err = take(msg)
			}
			if err != nil {
				return fmt.Errorf("read %d of %s: %w", next, stream, err)
			}
			next++
		}
	}
}
