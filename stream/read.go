package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
//
// It does what jetstreamext.GetBatch does, except that it says when the server
// falls silent, and works in a JetStream domain.
func (q *Queue) read(ctx context.Context, stream, subject string, from uint64, limit int) ([]*jetstream.RawStreamMsg, error) {
	inbox := q.conn().NewInbox()
	sub, err := q.conn().SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	var found []*jetstream.RawStreamMsg
	for more := true; more && len(found) < limit; {
		request, err := json.Marshal(struct {
			From    uint64 `json:"seq"`
			Batch   int    `json:"batch"`
			Bytes   int    `json:"max_bytes"`
			Subject string `json:"next_by_subj"`
		}{from, min(pageSize, limit-len(found)), pageBytes, subject})
		if err != nil {
			return nil, err
		}
		if err := q.conn().PublishRequest(kv.APIPrefix(q.ns.js)+"DIRECT.GET."+stream, inbox, request); err != nil {
			return nil, err
		}
		page, rest, err := q.page(ctx, sub)
		if err != nil {
			return nil, err
		}
		found = append(found, page...)
		more = rest > 0 && len(page) > 0
		if more {
			from = page[len(page)-1].Sequence + 1
		}
	}
	return found, nil
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
