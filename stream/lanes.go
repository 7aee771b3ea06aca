package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// laneEntry is what the namespace's bucket keeps of a lane.
type laneEntry struct {
	Task     string       `json:"task"`
	Quotas   []string     `json:"quotas,omitempty"`
	Priority job.Priority `json:"priority,omitempty"`
	To       string       `json:"to,omitempty"`
	Created  time.Time    `json:"created"`
}

// registerAgain is how long a registration is relied on. Somebody may have
// removed it: by deleting the queue and creating it anew.
const registerAgain = time.Minute

// laneSet remembers when this process has registered lanes.
type laneSet struct {
	mu    sync.RWMutex
	lanes map[Lane]time.Time
}

func (s *laneSet) has(lane Lane) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	registered, known := s.lanes[lane]
	return known && time.Since(registered) < registerAgain
}

func (s *laneSet) add(lane Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes == nil {
		s.lanes = make(map[Lane]time.Time)
	}
	s.lanes[lane] = time.Now()
}

// Register makes a lane known to every dispatcher, before the first job is put
// on it. Registering is idempotent, and remembered by this process for a minute.
//
// A crash between the registration and the put leaves a lane without jobs,
// which costs its pullers an idle pull.
func (q *Queue) Register(ctx context.Context, lane Lane) error {
	if q.known.has(lane) {
		return nil
	}
	err := q.ns.Persist(ctx, fmt.Sprintf("register lane %s of queue %s", lane.Token(), q.names.queue), func(ctx context.Context) error {
		return q.register(ctx, lane)
	})
	if err == nil {
		q.known.add(lane)
	}
	return err
}

// register tries once.
func (q *Queue) register(ctx context.Context, lane Lane) error {
	key := q.names.laneKey(lane)
	_, err := q.lanes.Create(ctx, key, laneEntry{Task: lane.Task, Quotas: lane.Quotas(), Priority: lane.Priority, To: lane.To, Created: time.Now().UTC()}, kv.Forever)
	if err == nil || errors.Is(err, kv.ErrConflict) {
		return nil
	}
	return explain(q.conn(), fmt.Sprintf("register lane %s of queue %s", lane.Token(), q.names.queue), err, key)
}

// Lanes lists the registered lanes, sorted.
func (q *Queue) Lanes(ctx context.Context) ([]Lane, error) {
	entries, err := q.lanes.List(ctx, q.names.laneKeys())
	if err != nil {
		return nil, explain(q.conn(), "list lanes of queue "+q.names.queue, err)
	}
	lanes := make([]Lane, 0, len(entries))
	for _, entry := range entries {
		lane, err := q.laneOf(entry.Key)
		if err != nil {
			return nil, err
		}
		lanes = append(lanes, lane)
	}
	slices.SortFunc(lanes, func(a, b Lane) int { return strings.Compare(a.Token(), b.Token()) })
	return lanes, nil
}

// RemoveLane removes the lane of a dispatcher that is gone, unless there are jobs on
// it. A dispatcher that comes back makes it again when it is put on.
func (q *Queue) RemoveLane(ctx context.Context, lane Lane) error {
	step := fmt.Sprintf("remove lane %s of queue %s", lane.Token(), q.names.queue)
	n, err := q.count(ctx, q.names.lane(lane))
	if err != nil || n > 0 {
		return explainNil(q.conn(), step, err)
	}
	found, err := q.lanes.Latest(ctx, q.names.laneKey(lane))
	if err == nil {
		err = q.lanes.Delete(ctx, q.names.laneKey(lane), found.Revision)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return explain(q.conn(), step, err)
	}
	err = q.ns.js.DeleteConsumer(ctx, q.names.stream(), lane.Token())
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConsumerDoesNotExist) {
		return nil
	}
	return explainNil(q.conn(), step, err)
}

// explainNil is explain for what may be no error.
func explainNil(nc *nats.Conn, step string, err error) error {
	if err == nil {
		return nil
	}
	return explain(nc, step, err)
}

// WatchLanes yields the registered lanes and then new ones, until ctx ends.
// Lanes are not withdrawn while their queue exists, but for those of one dispatcher,
// when it is gone.
func (q *Queue) WatchLanes(ctx context.Context) iter.Seq2[Lane, error] {
	return func(yield func(Lane, error) bool) {
		for change, err := range q.lanes.Watch(ctx, q.names.laneKeys()) {
			if err == nil && (change.Current || change.Deleted) {
				continue
			}
			var lane Lane
			if err == nil {
				lane, err = q.laneOf(change.Entry.Key)
			}
			if !yield(lane, err) {
				return
			}
		}
	}
}

func (q *Queue) laneOf(key string) (Lane, error) {
	return ParseLane(strings.TrimPrefix(key, "lane."+q.names.queue+"."))
}

// consumer makes sure that the lane has its durable consumer, and returns it as it is.
func (q *Queue) consumer(ctx context.Context, lane Lane) (*jetstream.ConsumerInfo, error) {
	step := fmt.Sprintf("open lane %s of queue %s", lane.Token(), q.names.queue)
	consumer, err := q.durable(ctx, step, consumerConfig(q.names, lane, q.AckWait()))
	if err != nil {
		return nil, err
	}
	return consumer.CachedInfo(), nil
}

// durable makes sure that the stream has a durable consumer. One that somebody
// else made is used as it is if it can serve, and refused with a [*ConfigError]
// if not; it is never altered.
//
// It is looked for first. The server, asked to make a consumer that it has with the
// same settings, sets it to those a moment later, and so undoes what [Queue.SetFlow]
// did in between; it writes the settings too, which it may not be able to, though
// the consumer serves.
func (q *Queue) durable(ctx context.Context, step string, needed jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	consumer, err := q.ns.js.Consumer(ctx, q.names.stream(), needed.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = q.ns.js.CreateConsumer(ctx, q.names.stream(), needed)
	}
	if errors.Is(err, jetstream.ErrConsumerExists) {
		consumer, err = q.ns.js.Consumer(ctx, q.names.stream(), needed.Durable)
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%s: %w", step, ErrNoQueue)
	}
	if err != nil {
		return nil, explain(q.conn(), step, err)
	}
	if wrong := consumerProblems(needed, consumer.CachedInfo().Config); len(wrong) > 0 {
		return nil, &ConfigError{What: fmt.Sprintf("consumer %s of stream %s", needed.Durable, q.names.stream()), Problems: wrong}
	}
	return consumer, nil
}

// unwritten reports whether the server could not write a consumer's settings.
// Its disk may be full, or it has lost the consumer's folder: a server that
// removes a consumer deletes the folder some time after it forgets the name, and
// takes with it that of one made by the same name in between.
func unwritten(err error) bool { return errors.Is(err, jetstream.ErrConsumerCreate) }
