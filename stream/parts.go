package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// The parts of a composition travel in its message where they are small. Else they
// are stored beside it, in chunks, in the same atomic batch; so a composition may
// be larger than a message. So are, already then, those of a large composition
// within it.

const (
	// inlineParts is how many bytes of parts a message holds at most. It is read for
	// each part that is put.
	inlineParts = 4 << 10
	// chunkBytes is how many bytes of parts a chunk holds, if it holds several and
	// the server takes messages that are as large twice.
	chunkBytes = 256 << 10
)

// besides are parts that are stored beside a job.
type besides struct {
	owner job.ID
	base  job.Nonce
	name  string
	calls []job.Call
}

// stow takes the parts out that are too large to travel with a job of that ID,
// and those of compositions among them, which are then stored beside that job too,
// and go with it. One for another queue keeps its own: it is stored there. It is a
// pure function, and leaves what is stored beside already. most is how many bytes a
// chunk of several parts has.
func stow(id job.ID, parts job.Parts, most int) (stowed job.Parts, beside []besides, err error) {
	if parts.Form == job.FormBroadcast {
		return parts, nil, nil
	}
	parts.Queues = job.QueuesOf(parts.Queues, parts.Calls)
	calls := make([]job.Call, len(parts.Calls))
	sizes := make([]int, len(calls))
	total := 0
	for i, call := range parts.Calls {
		if call.Parts != nil && call.Queue == "" {
			nested := *call.Parts
			nested.Base = parts.PartNonce(i)
			nested, more, err := stow(id, nested, most)
			if err != nil {
				return parts, nil, fmt.Errorf("part %d: %w", i, err)
			}
			if nested.Chunks != nil && nested.At == "" {
				nested.At = id
			}
			call.Parts = &nested
			beside = append(beside, more...)
		}
		data, err := job.EncodeCalls([]job.Call{call})
		if err != nil {
			return parts, nil, fmt.Errorf("part %d: %w", i, err)
		}
		calls[i], sizes[i] = call, len(data)
		total += len(data)
	}
	if parts.Calls = calls; total <= inlineParts {
		return parts, beside, nil
	}
	parts.Calls = nil
	for first, last := range divide(sizes, most) {
		chunk := besides{id, parts.Base, strconv.Itoa(first), calls[first:last]}
		parts.Chunks = append(parts.Chunks, job.Chunk{Name: chunk.name, Count: last - first})
		beside = append(beside, chunk)
	}
	return parts, beside, nil
}

// divide yields the first and the last of things of these sizes, in turn, so that they
// have up to most together, or are alone.
func divide(sizes []int, most int) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for first := 0; first < len(sizes); {
			last, size := first, 0
			for last < len(sizes) && (last == first || size+sizes[last] <= most) {
				size += sizes[last]
				last++
			}
			if !yield(first, last) {
				return
			}
			first = last
		}
	}
}

// chunkSize is how many bytes of several parts the queue takes in one message.
func (q *Queue) chunkSize() int { return min(chunkBytes, q.limit()/2) }

// chunkMessage makes the message of parts that are stored beside a job.
func (q *Queue) chunkMessage(b besides) (*nats.Msg, error) {
	data, err := job.EncodeCalls(b.calls)
	if err != nil {
		return nil, err
	}
	msg := nats.NewMsg(q.names.chunk(b.owner, b.base, b.name))
	msg.Data = data
	if size, limit := payload(msg)+batchHeaders, q.limit(); size > limit {
		return nil, &TooLargeError{What: "part " + b.calls[0].Task, Size: size, Max: limit}
	}
	return msg, nil
}

// storeBeside stores parts of a job. It may be repeated: they are the same then.
func (q *Queue) storeBeside(ctx context.Context, beside []besides) error {
	var msgs []*nats.Msg
	for _, b := range beside {
		msg, err := q.chunkMessage(b)
		if err != nil {
			return err
		}
		msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
		msgs = append(msgs, msg)
	}
	for _, msg := range msgs {
		if err := q.publish(ctx, msg); err != nil && !kv.Refused(err) {
			return explain(q.conn(), fmt.Sprintf("store parts of job %s", beside[0].owner), err, msg.Subject)
		}
	}
	return nil
}

// partsOf reads the parts of a job, from one up to another.
type partsOf struct {
	queue *Queue
	id    job.ID
	parts job.Parts
	chunk []job.Call // the chunk that was read last
	first int        // its first part
}

// errPartsGone: parts of a job that were stored beside it are gone.
var errPartsGone = errors.New("its parts were removed from the stream")

// call returns a part.
func (p *partsOf) call(ctx context.Context, i int) (job.Call, error) {
	if p.parts.Form == job.FormBroadcast {
		return p.parts.Calls[0], nil
	}
	if i < len(p.parts.Calls) {
		return p.parts.Calls[i], nil
	}
	if p.first <= i && i < p.first+len(p.chunk) {
		return p.chunk[i-p.first], nil
	}
	first := len(p.parts.Calls)
	for _, chunk := range p.parts.Chunks {
		if i < first+chunk.Count {
			calls, err := p.read(ctx, chunk)
			if err != nil {
				return job.Call{}, err
			}
			p.chunk, p.first = calls, first
			return calls[i-first], nil
		}
		first += chunk.Count
	}
	return job.Call{}, fmt.Errorf("part %d of job %s: %w", i, p.id, errPartsGone)
}

func (p *partsOf) read(ctx context.Context, chunk job.Chunk) ([]job.Call, error) {
	step := fmt.Sprintf("read parts of job %s", p.id)
	at := p.parts.At
	if at == "" || chunk.Added {
		at = p.id
	}
	subject := p.queue.names.chunk(at, p.parts.Base, chunk.Name)
	if calls, known := p.queue.ns.chunks.get(subject); known {
		return calls, nil
	}
	ctx, cancel := briefly(ctx)
	defer cancel()
	found, err := p.queue.latestOn(ctx, step, subject)
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, fmt.Errorf("%s: %w", step, errPartsGone)
	}
	calls, err := job.DecodeCalls(found.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", step, errPartsGone, err)
	}
	if len(calls) != chunk.Count {
		return nil, fmt.Errorf("%s: %w: %d instead of %d", step, errPartsGone, len(calls), chunk.Count)
	}
	p.queue.ns.chunks.add(subject, calls)
	return calls, nil
}

// chunkCache is the chunks that were read last, by subject. What is stored there
// never changes.
type chunkCache struct {
	mu    sync.Mutex
	calls map[string][]job.Call
	order []string // the oldest first
}

// mostChunks is how many chunks are kept.
const mostChunks = 16

func (c *chunkCache) get(subject string) (calls []job.Call, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls, known = c.calls[subject]
	return calls, known
}

func (c *chunkCache) add(subject string, calls []job.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = make(map[string][]job.Call)
	}
	if _, known := c.calls[subject]; known {
		return
	}
	if len(c.order) == mostChunks {
		delete(c.calls, c.order[0])
		c.order = c.order[1:]
	}
	c.calls[subject], c.order = calls, append(c.order, subject)
}

// Stow stores those parts of a job that are too large to travel in its record, and
// returns what is left. It may be repeated. undo removes them where the record was
// not written.
func (q *Queue) Stow(ctx context.Context, id job.ID, parts job.Parts) (stowed job.Parts, undo func(), err error) {
	stowed, beside, err := stow(id, parts, q.chunkSize())
	if stowed.Beside = len(beside) > 0; err == nil && stowed.Beside {
		err = q.storeBeside(ctx, beside)
	}
	if err != nil {
		return parts, nil, fmt.Errorf("store what job %s waits for: %w", id, err)
	}
	return stowed, func() { q.dropChunks(beside) }, nil
}
