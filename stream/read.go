package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// One request for stored messages asks for so many, of so many bytes. More
// bytes might make the server take us for a slow consumer and hang up.
const (
	pageSize  = 1000
	pageBytes = 4 << 20
)

// read reads up to limit stored messages of a stream, from a sequence on and
// on subjects that match, by direct get. Each page is read at one moment.
func (q *Queue) read(ctx context.Context, stream, subject string, from uint64, limit int) (found []*jetstream.RawStreamMsg, err error) {
	for page, err := range q.pages(ctx, stream, subject, from, limit) {
		if err != nil {
			return nil, err
		}
		found = append(found, page...)
	}
	return found, nil
}

// pages is read, a page at a time.
//
// It does what jetstreamext.GetBatch does, except that it says when the server
// falls silent, and works in a JetStream domain.
func (q *Queue) pages(ctx context.Context, stream, subject string, from uint64, limit int) iter.Seq2[[]*jetstream.RawStreamMsg, error] {
	return func(yield func([]*jetstream.RawStreamMsg, error) bool) {
		sub, err := q.conn().SubscribeSync(q.conn().NewInbox())
		if err != nil {
			yield(nil, err)
			return
		}
		defer sub.Unsubscribe()
		if err := sub.SetPendingLimits(-1, -1); err != nil {
			yield(nil, err)
			return
		}
		for left := limit; left > 0; {
			page, rest, err := q.nextPage(ctx, sub, stream, subject, from, min(pageSize, left))
			if !yield(page, err) || err != nil || rest == 0 || len(page) == 0 {
				return
			}
			from, left = page[len(page)-1].Sequence+1, left-len(page)
		}
	}
}

// nextPage reads one page into a subscription. rest is how many messages there are
// beyond it.
func (q *Queue) nextPage(ctx context.Context, sub *nats.Subscription, stream, subject string, from uint64, limit int) (page []*jetstream.RawStreamMsg, rest uint64, err error) {
	request, err := json.Marshal(struct {
		From    uint64 `json:"seq"`
		Batch   int    `json:"batch"`
		Bytes   int    `json:"max_bytes"`
		Subject string `json:"next_by_subj"`
	}{from, limit, pageBytes, subject})
	if err != nil {
		return nil, 0, err
	}
	if err := q.conn().PublishRequest(kv.APIPrefix(q.ns.js)+"DIRECT.GET."+stream, sub.Subject, request); err != nil {
		return nil, 0, err
	}
	return q.page(ctx, sub)
}

// windowPages is how many pages a window of sequences may bring at most. Where it brings
// no more than one the next is so many times as wide.
const windowPages = 4

// fill reports whether n messages of so many bytes take more than so many pages.
func fill(n, bytes, pages int) bool { return n > pages*pageSize || bytes > pages*pageBytes }

// backwards yields the stored messages of a stream on subjects that match, the
// newest first. It reads windows of sequences, of which the first is as wide as
// given, the next ones wider while little is found in them, and narrower where it
// is too much: so the first messages cost the same however many there are, and not
// many are held at a time.
func (q *Queue) backwards(ctx context.Context, stream, subject string, state jetstream.StreamState, first int) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		window := uint64(max(1, first))
		for upTo := state.LastSeq + 1; upTo > state.FirstSeq; {
			from := max(state.FirstSeq, upTo-min(upTo, window))
			messages, bytes, err := q.between(ctx, stream, subject, from, upTo)
			if err != nil {
				yield(nil, err)
				return
			}
			if fill(len(messages), bytes, windowPages) && upTo-from > 1 {
				window = max(1, (upTo-from)/windowPages)
				continue
			}
			for _, message := range slices.Backward(messages) {
				if !yield(message, nil) {
					return
				}
			}
			if !fill(len(messages), bytes, 1) {
				window *= windowPages
			}
			upTo = from
		}
	}
}

// forwards yields the stored messages of a stream on subjects that match, the
// oldest first, up to those that were there when state was read.
func (q *Queue) forwards(ctx context.Context, stream, subject string, state jetstream.StreamState) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		for from := state.FirstSeq; from <= state.LastSeq; {
			messages, err := q.read(ctx, stream, subject, from, pageSize)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(messages) == 0 {
				return
			}
			for _, message := range messages {
				if message.Sequence > state.LastSeq || !yield(message, nil) {
					return
				}
				from = message.Sequence + 1
			}
		}
	}
}

// between reads the stored messages with sequences in [from, upTo) on subjects
// that match, the oldest first, and counts their bytes. It ends early where they take
// more than windowPages.
func (q *Queue) between(ctx context.Context, stream, subject string, from, upTo uint64) (found []*jetstream.RawStreamMsg, bytes int, err error) {
	for page, err := range q.pages(ctx, stream, subject, from, int(upTo-from)) {
		if err != nil {
			return nil, 0, err
		}
		for _, message := range page {
			if message.Sequence >= upTo {
				return found, bytes, nil
			}
			found, bytes = append(found, message), bytes+len(message.Data)
		}
		if fill(len(found), bytes, windowPages) {
			break
		}
	}
	return found, bytes, nil
}

// page takes the answers to one request. rest is how many messages there are
// beyond them: the server ends a page early that grows large.
func (q *Queue) page(ctx context.Context, sub *nats.Subscription) (page []*jetstream.RawStreamMsg, rest uint64, err error) {
	ctx, cancel := withTimeout(ctx, q.ns.js.Options().DefaultTimeout)
	defer cancel()
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, 0, err
		}
		switch status := msg.Header.Get("Status"); {
		case len(msg.Data) == 0 && status == "404":
			return page, 0, nil
		case len(msg.Data) == 0 && status == "204":
			rest, err := strconv.ParseUint(msg.Header.Get("Nats-Num-Pending"), 10, 64)
			return page, rest, err
		case len(msg.Data) == 0 && status == "503":
			return nil, 0, nats.ErrNoResponders
		}
		stored, err := storedMessage(msg)
		if err != nil {
			return nil, 0, err
		}
		page = append(page, stored)
	}
}

// storedMessage reads an answer to a direct get.
func storedMessage(reply *nats.Msg) (*jetstream.RawStreamMsg, error) {
	if reply.Header.Get(jetstream.SequenceHeader) == "" {
		return nil, fmt.Errorf("direct get: %s %s", reply.Header.Get("Status"), reply.Header.Get("Description"))
	}
	sequence, err := strconv.ParseUint(reply.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("direct get: sequence: %w", err)
	}
	stored, err := time.Parse(time.RFC3339Nano, reply.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return nil, fmt.Errorf("direct get: time: %w", err)
	}
	return &jetstream.RawStreamMsg{
		Subject: reply.Header.Get(jetstream.SubjectHeader), Sequence: sequence, Time: stored, Data: reply.Data,
		Header: reply.Header,
	}, nil
}

// latestRecords reads the records of several jobs, as of a moment during the call. Each
// has one of some keys. A key that has none is absent.
//
// They are read from any replica first, many at a time; a job that has none, or none that
// is completed, is read once more from the leader.
func (q *Queue) latestRecords(ctx context.Context, keys [][]string) (map[string]kv.Entry[job.Record], error) {
	found := make(map[string]kv.Entry[job.Record], len(keys))
	for page := range slices.Chunk(slices.Concat(keys...), recordsAtOnce) {
		if err := q.lastOnEach(ctx, page, found); err != nil {
			return nil, err
		}
	}
	var behind []string
	for _, places := range keys {
		if !slices.ContainsFunc(places, func(key string) bool { return found[key].Value.State.Final() }) {
			behind = append(behind, places...)
		}
	}
	var mu sync.Mutex
	err := each(behind, func(key string) error {
		ctx, cancel := briefly(ctx)
		defer cancel()
		entry, err := q.records.Latest(ctx, key)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, kv.ErrNotFound):
			delete(found, key)
			return nil
		case err != nil:
			return err
		}
		found[key] = entry
		return nil
	})
	return found, err
}

// recordsAtOnce is how many records one request asks for. The server reads 1024 at
// most.
const recordsAtOnce = 500

// lastOnEach reads the last record of each key, as far as the replica that answers
// has it.
func (q *Queue) lastOnEach(ctx context.Context, keys []string, into map[string]kv.Entry[job.Record]) error {
	prefix := "$KV." + recordsBucket(q.ns.name) + "."
	inbox := q.conn().NewInbox()
	sub, err := q.conn().SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	left := make(map[string]bool, len(keys)) // subjects
	for _, key := range keys {
		left[prefix+key] = true
	}
	for more := true; more; {
		request, err := json.Marshal(struct {
			Batch    int      `json:"batch"`
			Bytes    int      `json:"max_bytes"`
			Subjects []string `json:"multi_last"`
		}{len(left), pageBytes, slices.Collect(maps.Keys(left))})
		if err != nil {
			return err
		}
		if err := q.conn().PublishRequest(kv.APIPrefix(q.ns.js)+"DIRECT.GET.KV_"+recordsBucket(q.ns.name), inbox, request); err != nil {
			return err
		}
		try, cancel := briefly(ctx)
		page, rest, err := q.page(try, sub)
		cancel()
		if err != nil {
			return err
		}
		for _, message := range page {
			delete(left, message.Subject)
			record, err := job.DecodeRecord(message.Data)
			if err != nil {
				continue // a marker; or whoever reads it from the leader will say what is wrong
			}
			key := strings.TrimPrefix(message.Subject, prefix)
			into[key] = kv.Entry[job.Record]{Key: key, Value: record, Revision: message.Sequence, Written: message.Time}
		}
		more = rest > 0 && len(page) > 0 && len(left) > 0
	}
	return nil
}

// purge removes the messages on a subject with wildcards, up to a sequence.
func (q *Queue) purge(ctx context.Context, subject string, upTo uint64) error {
	stream, err := q.ns.js.Stream(ctx, q.names.stream())
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(upTo+1))
	}
	if err != nil {
		return explain(q.conn(), "purge "+subject, err)
	}
	return nil
}
