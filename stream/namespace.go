package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// DefaultKeep is how long outcomes are kept where a job does not say. A kept
// record costs the server about 140 bytes of memory; zc.async kept seven days.
const DefaultKeep = 24 * time.Hour

// Namespace is one system: its queues, and the buckets they share.
type Namespace struct {
	js    jetstream.JetStream
	name  string
	lanes *kv.Bucket[laneEntry]

	records *kv.Bucket[job.Record]
}

// Open opens a namespace (the empty name is [DefaultNamespace]) and makes its
// buckets where they do not exist. It refuses a server that cannot hold queues
// with an error that is [ErrServer].
func Open(ctx context.Context, js jetstream.JetStream, name string) (*Namespace, error) {
	if name == "" {
		name = DefaultNamespace
	}
	if err := job.CheckNamespace(name); err != nil {
		return nil, err
	}
	if err := checkServer(ctx, js); err != nil {
		return nil, err
	}
	records, err := kv.Open(ctx, js, kv.Config{
		Bucket:      recordsBucket(name),
		Description: "asyncnats job records",
	}, kv.Codec[job.Record]{Encode: job.EncodeRecord, Decode: job.DecodeRecord})
	if err != nil {
		return nil, explain(js.Conn(), "open namespace "+name, err)
	}
	lanes, err := kv.Open(ctx, js, kv.Config{
		Bucket:      dispatchersBucket(name),
		Description: "asyncnats dispatchers, agents and lanes",
		Markers:     time.Minute,
	}, kv.JSON[laneEntry]())
	if err != nil {
		return nil, explain(js.Conn(), "open namespace "+name, err)
	}
	return &Namespace{js: js, name: name, records: records, lanes: lanes}, nil
}

// Name returns the namespace's name.
func (ns *Namespace) Name() string { return ns.name }

// JetStream returns the connection's JetStream.
func (ns *Namespace) JetStream() jetstream.JetStream { return ns.js }

// CreateQueue creates a queue, or opens the one of that name. A queue that
// exists is never altered: c applies to a new one only.
func (ns *Namespace) CreateQueue(ctx context.Context, name string, c Config) (*Queue, error) {
	n := names{ns.name, name}
	if err := errors.Join(job.CheckQueue(name), c.check()); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	_, err := ns.js.CreateStream(ctx, streamConfig(n, c))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil, explain(ns.js.Conn(), "create queue "+name, err)
	}
	return ns.open(ctx, n, c)
}

// Queue opens a queue. It returns [ErrNoQueue] where there is none, and a
// [*ConfigError] where its stream cannot serve.
func (ns *Namespace) Queue(ctx context.Context, name string) (*Queue, error) {
	if err := job.CheckQueue(name); err != nil {
		return nil, err
	}
	return ns.open(ctx, names{ns.name, name}, Config{}.withDefaults())
}

// open checks the stream and reads the meta message. A stream whose creator
// died before writing it, or that was purged, gets it now, with settings c;
// until the jobs that were put before are done, deliveries may be slower
// (docs/adr/0003).
func (ns *Namespace) open(ctx context.Context, n names, c Config) (*Queue, error) {
	found, err := ns.js.Stream(ctx, n.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("queue %s: %w: create it first (asyncnats queue add %s)", n.queue, ErrNoQueue, n.queue)
	}
	if err != nil {
		return nil, explain(ns.js.Conn(), "open queue "+n.queue, err)
	}
	config := found.CachedInfo().Config
	if wrong := problems(n, config); len(wrong) > 0 {
		return nil, &ConfigError{What: "stream " + n.stream(), Problems: wrong}
	}
	q := &Queue{ns: ns, names: n, maxMsgSize: int(config.MaxMsgSize)}
	if q.meta, err = q.readMeta(ctx, c); err != nil {
		return nil, err
	}
	return q, nil
}

// Queues lists the names of the namespace's queues, sorted.
func (ns *Namespace) Queues(ctx context.Context) ([]string, error) {
	prefix := streamPrefix(ns.name)
	lister := ns.js.StreamNames(ctx, jetstream.WithStreamListSubject(ns.name+".*.meta"))
	var queues []string
	for name := range lister.Name() {
		if queue, ok := strings.CutPrefix(name, prefix); ok && job.CheckQueue(queue) == nil {
			queues = append(queues, queue)
		}
	}
	if err := lister.Err(); err != nil {
		return nil, explain(ns.js.Conn(), "list queues", err)
	}
	slices.Sort(queues)
	return queues, nil
}

// DeleteQueue removes a queue with its pending jobs, its lanes and its
// records. It returns [ErrNoQueue] where there is none.
//
// A crash between the steps leaves lanes or records of a queue that is gone;
// they are read by nobody, and deleting the queue again after creating it
// anew, or the records' age, removes them.
func (ns *Namespace) DeleteQueue(ctx context.Context, name string) error {
	if err := job.CheckQueue(name); err != nil {
		return err
	}
	n := names{ns.name, name}
	err := ns.js.DeleteStream(ctx, n.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("queue %s: %w", name, ErrNoQueue)
	}
	if err != nil {
		return explain(ns.js.Conn(), "delete queue "+name, err)
	}
	if err := ns.lanes.PurgeAll(ctx, n.laneKeys()); err != nil {
		return err
	}
	return ns.records.PurgeAll(ctx, n.records())
}
