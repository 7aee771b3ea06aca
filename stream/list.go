package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// Place is one of the places where the jobs of a queue are that are not completed.
type Place int

const (
	// OnHand are those that are to be given out, and those that are performed.
	OnHand Place = iota
	// Scheduled are those that are not to begin yet.
	Scheduled
	// Waiting are those that wait for other jobs.
	Waiting
)

// Jobs yields the jobs of the queue in a place, oldest first, in pages, of which the
// first has so many jobs and each one more than that before. A message on a lane with an
// illegal name is left out; [Queue.Info] counts those.
func (q *Queue) Jobs(ctx context.Context, place Place, first int) iter.Seq2[[]Stored, error] {
	subject := map[Place]string{OnHand: q.names.jobs(), Scheduled: q.names.laters(), Waiting: q.names.waits()}[place]
	return func(yield func([]Stored, error) bool) {
		size := min(max(first, 1), pageSize)
		for from := uint64(1); ; size = min(4*size, pageSize) {
			messages, err := q.read(ctx, q.names.stream(), subject, from, size)
			if err != nil {
				yield(nil, explain(q.conn(), "list jobs of queue "+q.names.queue, err))
				return
			}
			page := make([]Stored, 0, len(messages))
			for _, message := range messages {
				if stored, err := q.stored(message); err == nil {
					page = append(page, stored)
				}
				from = message.Sequence + 1
			}
			if !yield(page, nil) || len(messages) < size {
				return
			}
		}
	}
}

// KeptRecord is a record with the job it belongs to.
type KeptRecord struct {
	ID     job.ID
	Record job.Record
}

// Recent returns up to limit records of the queue that keep accepts, the one
// written last first. It reads backwards in growing windows, so that the first
// page costs the same however many records there are.
func (q *Queue) Recent(ctx context.Context, limit int, keep func(KeptRecord) bool) ([]KeptRecord, error) {
	step := "list records of queue " + q.names.queue
	bucket, err := q.ns.js.Stream(ctx, "KV_"+recordsBucket(q.ns.name))
	if err != nil {
		return nil, explain(q.conn(), step, err)
	}
	state := bucket.CachedInfo().State
	prefix := "$KV." + recordsBucket(q.ns.name) + "." + q.names.queue + "."
	var found []KeptRecord
	if limit < 1 {
		return found, nil
	}
	for message, err := range q.backwards(ctx, bucket.CachedInfo().Config.Name, prefix+"*", state, 4*limit) {
		if err != nil {
			return nil, explain(q.conn(), step, err)
		}
		record, err := job.DecodeRecord(message.Data)
		if err != nil {
			continue // a marker, or of a later release
		}
		kept := KeptRecord{ID: job.ID(strings.TrimPrefix(message.Subject, prefix)), Record: record}
		if !keep(kept) {
			continue
		}
		if found = append(found, kept); len(found) == limit {
			break
		}
	}
	return found, nil
}

// Info is what is known of a queue.
type Info struct {
	Name    string   `json:"name"`
	AckWait Duration `json:"ack_wait"`
	// Broadcast says that it is a broadcast queue, and Grace how long a dispatcher may
	// be away then.
	Broadcast bool      `json:"broadcast,omitempty"`
	Grace     Duration  `json:"grace,omitzero"`
	Created   time.Time `json:"created"`
	// Messages and Bytes are the size of the queue's stream, its meta message
	// not counted, nor timers and parts that are not put among the messages.
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	// Scheduled is how many of the messages are jobs that are not to begin yet, and
	// Waiting how many are jobs that wait for others.
	Scheduled uint64     `json:"scheduled,omitempty"`
	Waiting   uint64     `json:"waiting,omitempty"`
	Replicas  int        `json:"replicas"`
	Lanes     []LaneInfo `json:"lanes"`
	// Strays is how many messages no lane accounts for: published by hand on
	// a lane that is not registered. Nobody will perform them.
	Strays uint64 `json:"strays"`
	// Dispatchers are those that answered.
	Dispatchers []Presence `json:"dispatchers"`
}

// Served is how many of the dispatchers that answered take jobs of a task.
func (i Info) Served(task string) int {
	n := 0
	for _, dispatcher := range i.Dispatchers {
		if slices.Contains(dispatcher.Tasks, task) {
			n++
		}
	}
	return n
}

// served is how many of the dispatchers that answered take from a lane.
func (i Info) served(lane Lane) int {
	if lane.To == "" {
		return i.Served(lane.Task)
	}
	for _, dispatcher := range i.Dispatchers {
		if dispatcher.Dispatcher == lane.To && slices.Contains(dispatcher.Tasks, lane.Task) {
			return 1
		}
	}
	return 0
}

// LaneInfo is what is known of a lane.
type LaneInfo struct {
	Task     string       `json:"task"`
	Quotas   []string     `json:"quotas,omitempty"`
	Priority job.Priority `json:"priority,omitempty"`
	// To is the UUID of the one dispatcher that takes the lane's jobs.
	To string `json:"to,omitempty"`
	// Pending is how many jobs nobody has, Assigned how many were delivered
	// and are not completed.
	Pending  uint64 `json:"pending"`
	Assigned int    `json:"assigned"`
	// Served is how many of the dispatchers that answered take the lane's
	// jobs. At 0 they stay pending.
	Served int `json:"served"`
}

// Info asks for the state of the queue, its lanes and, for as long as patience
// lasts, its dispatchers.
func (q *Queue) Info(ctx context.Context, patience time.Duration) (Info, error) {
	who, err := q.Who(ctx, patience)
	if err != nil {
		return Info{}, explain(q.conn(), "look at queue "+q.names.queue, err)
	}
	info, err := q.look(ctx, who)
	// The stream and its lanes are not read at one moment, so a busy queue seems
	// to have strays that are none. Those that are stay.
	for range 3 {
		if err != nil || info.Strays == 0 {
			break
		}
		strays := info.Strays
		info, err = q.look(ctx, who)
		info.Strays = min(info.Strays, strays)
	}
	if err != nil {
		return Info{}, explain(q.conn(), "look at queue "+q.names.queue, err)
	}
	return info, nil
}

// look reads the state of the queue and its lanes once.
func (q *Queue) look(ctx context.Context, who []Presence) (Info, error) {
	lanes, err := q.Lanes(ctx)
	if err != nil {
		return Info{}, err
	}
	handle, err := q.ns.js.Stream(ctx, q.names.stream())
	if err != nil {
		return Info{}, err
	}
	found := handle.CachedInfo()
	info := Info{
		Name: q.names.queue, AckWait: q.meta.AckWait, Broadcast: q.Broadcast(), Grace: q.meta.Grace, Created: q.meta.Created,
		Messages: found.State.Msgs - min(found.State.Msgs, 1), Bytes: found.State.Bytes, Replicas: found.Config.Replicas,
		Lanes: []LaneInfo{}, Dispatchers: who, // not null in JSON
	}
	for _, aside := range []string{q.names.timers(), q.names.dues(), q.names.chunks()} {
		n, err := q.count(ctx, aside)
		if err != nil {
			return Info{}, err
		}
		info.Messages -= min(info.Messages, n)
	}
	if info.Scheduled, err = q.count(ctx, q.names.laters()); err != nil {
		return Info{}, err
	}
	if info.Waiting, err = q.count(ctx, q.names.waits()); err != nil {
		return Info{}, err
	}
	accounted := info.Scheduled + info.Waiting
	for _, lane := range lanes {
		view, err := q.laneInfo(ctx, lane)
		if err != nil {
			return Info{}, err
		}
		view.Served = info.served(lane)
		accounted += view.Pending + uint64(view.Assigned)
		info.Lanes = append(info.Lanes, view)
	}
	info.Strays = info.Messages - min(info.Messages, accounted)
	return info, nil
}

// laneInfo counts a lane's jobs: by its consumer, or where nobody ever pulled
// from it and there is none, in the stream.
func (q *Queue) laneInfo(ctx context.Context, lane Lane) (LaneInfo, error) {
	view := LaneInfo{Task: lane.Task, Quotas: lane.Quotas(), Priority: lane.Priority, To: lane.To}
	info, err := q.laneConsumer(ctx, lane)
	if err == nil && info == nil {
		view.Pending, err = q.count(ctx, q.names.lane(lane))
	}
	if err != nil || info == nil {
		return view, err
	}
	// A job that was handed back is in both of the server's numbers' gaps: it
	// waits for redelivery, not yet given out again.
	view.Pending, view.Assigned = info.NumPending, info.NumAckPending
	return view, nil
}

// laneConsumer asks for a lane's consumer; nil where there is none.
func (q *Queue) laneConsumer(ctx context.Context, lane Lane) (*jetstream.ConsumerInfo, error) {
	consumer, err := q.ns.js.Consumer(ctx, q.names.stream(), lane.Token())
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrConsumerDoesNotExist):
		return nil, nil
	case err != nil:
		return nil, explain(q.conn(), "look at lane "+lane.Token(), err)
	}
	return consumer.CachedInfo(), nil
}

// count counts the messages on a subject with wildcards, by what a direct get
// of the first says of the rest.
func (q *Queue) count(ctx context.Context, subject string) (uint64, error) {
	ctx, cancel := withTimeout(ctx, q.ns.js.Options().DefaultTimeout)
	defer cancel()
	request := fmt.Sprintf(`{"seq":1,"batch":1,"next_by_subj":%q}`, subject)
	reply, err := q.conn().RequestWithContext(ctx, kv.APIPrefix(q.ns.js)+"DIRECT.GET."+q.names.stream(), []byte(request))
	if err != nil {
		return 0, err
	}
	if reply.Header.Get("Status") == "404" {
		return 0, nil
	}
	rest, err := strconv.ParseUint(reply.Header.Get("Nats-Num-Pending"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", subject, err)
	}
	return rest + 1, nil
}

// Assigned reports whether any job of a lane was delivered and is not
// completed.
func (q *Queue) Assigned(ctx context.Context, lane Lane) (bool, error) {
	info, err := q.laneConsumer(ctx, lane)
	return info != nil && info.NumAckPending > 0, err
}
