package stream

import (
	"context"
	"encoding/json"
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

// Namespace is one system: its queues, and the buckets they share. Creating a
// queue creates the buckets; nothing else does.
type Namespace struct {
	js       jetstream.JetStream
	name     string
	payments payments
	queues   queues
	chunks   chunkCache
}

// buckets are what the queues of a namespace share.
type buckets struct {
	records *kv.Bucket[job.Record]
	lanes   *kv.Bucket[laneEntry]
	pauses  *kv.Bucket[pauseEntry]
	crons   *kv.Bucket[Recurring]
	hearers *kv.Bucket[hearer]
}

var records = kv.Codec[job.Record]{Encode: job.EncodeRecord, Decode: job.DecodeRecord}

// Open opens a namespace; the empty name is [DefaultNamespace]. It writes
// nothing. It refuses a server that cannot hold queues with an error that is
// [ErrServer].
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
	return &Namespace{js: js, name: name}, nil
}

// createBuckets creates the buckets, or opens those that exist.
func (ns *Namespace) createBuckets(ctx context.Context, replicas int) (b buckets, err error) {
	b.records, err = kv.Create(ctx, ns.js, kv.Config{
		Bucket:      recordsBucket(ns.name),
		Description: "asyncnats job records",
		Replicas:    replicas,
	}, records)
	if err != nil {
		return b, err
	}
	b.lanes, err = kv.Create(ctx, ns.js, kv.Config{
		Bucket:      dispatchersBucket(ns.name),
		Description: "asyncnats dispatchers, agents and lanes",
		Markers:     time.Minute,
		Replicas:    replicas,
	}, kv.JSON[laneEntry]())
	if err != nil {
		return b, err
	}
	b.pauses = kv.View(b.lanes, kv.JSON[pauseEntry]())
	if err := kv.Make(ctx, ns.js, deadConfig(ns.name, replicas)); err != nil {
		return b, err
	}
	if err := kv.Make(ctx, ns.js, notesConfig(ns.name, replicas)); err != nil {
		return b, err
	}
	b.crons = kv.View(b.lanes, kv.JSON[Recurring]())
	b.hearers = kv.View(b.lanes, kv.JSON[hearer]())
	return b, kv.Make(ctx, ns.js, kv.Config{
		Bucket:      quotasBucket(ns.name),
		Description: "asyncnats quotas",
		Markers:     time.Minute,
		Atomic:      true,
		Replicas:    replicas,
	})
}

func (ns *Namespace) openBuckets(ctx context.Context) (b buckets, err error) {
	if b.records, err = kv.Open(ctx, ns.js, recordsBucket(ns.name), records); err != nil {
		return b, err
	}
	if b.lanes, err = kv.Open(ctx, ns.js, dispatchersBucket(ns.name), kv.JSON[laneEntry]()); err != nil {
		return b, err
	}
	b.pauses = kv.View(b.lanes, kv.JSON[pauseEntry]())
	b.crons = kv.View(b.lanes, kv.JSON[Recurring]())
	b.hearers = kv.View(b.lanes, kv.JSON[hearer]())
	return b, nil
}

// Name returns the namespace's name.
func (ns *Namespace) Name() string { return ns.name }

// Dispatchers returns the name of the bucket of dispatchers and their agents. It
// exists where there is a queue.
func (ns *Namespace) Dispatchers() (bucket string) { return dispatchersBucket(ns.name) }

// ToDispatcher returns the subject where a dispatcher is asked something.
func (ns *Namespace) ToDispatcher(dispatcher, verb string) string {
	return toDispatcher(ns.name, dispatcher, verb)
}

// Event returns the subject where it is told what happened in a queue, "*" for
// all of them.
func (ns *Namespace) Event(queue, what string) string { return names{ns.name, queue}.event(what) }

// JetStream returns the connection's JetStream.
func (ns *Namespace) JetStream() jetstream.JetStream { return ns.js }

// CreateQueue creates a queue, or opens the one of that name. A queue that
// exists is never altered: c applies to a new one only.
//
// Each step is taken again while the server does not answer ([Namespace.Persist]).
//
// The namespace's buckets are made first, so that where there is a queue there
// are buckets; a crash between leaves buckets that no queue uses yet.
func (ns *Namespace) CreateQueue(ctx context.Context, name string, c Config) (*Queue, error) {
	n := names{ns.name, name}
	if err := errors.Join(job.CheckQueue(name), c.check()); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	step := "create queue " + name
	err := ns.Persist(ctx, step, func(ctx context.Context) error {
		_, err := ns.createBuckets(ctx, c.Replicas)
		return explainNil(ns.js.Conn(), step, err)
	})
	if err == nil {
		err = ns.Persist(ctx, step, func(ctx context.Context) error {
			_, err := ns.js.CreateStream(ctx, streamConfig(n, c))
			return explainNil(ns.js.Conn(), step, err)
		})
	}
	created := err == nil
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil, err
	}
	var q *Queue
	err = ns.Persist(ctx, step, func(ctx context.Context) (err error) {
		q, err = ns.open(ctx, n, c)
		return err
	})
	if err == nil && q.Broadcast() != c.Broadcast {
		return nil, fmt.Errorf("create queue %s: it exists, and is of kind %s: use another name", name, q.meta.Kind)
	}
	if err == nil && created {
		ns.tellCreated(n)
	}
	return q, err
}

// QueueCreated is the event that a queue was created. Its message is, in JSON, the
// type "io.asyncnats.event.v1.queue_created", the time and the queue.
const QueueCreated = "queue.created"

// tellCreated tells that a queue was created. Who misses it finds the queue.
func (ns *Namespace) tellCreated(n names) {
	data, err := json.Marshal(struct {
		Type  string    `json:"type"`
		Time  time.Time `json:"time"`
		Queue string    `json:"queue"`
	}{"io.asyncnats.event.v1.queue_created", time.Now().UTC(), n.queue})
	if err == nil {
		_ = ns.js.Conn().Publish(n.event(QueueCreated), data)
	}
}

// Queue opens a queue, and persists in that while the server does not answer
// ([Namespace.Persist]). It returns [ErrNoQueue] where there is none, and a
// [*ConfigError] where its stream cannot serve.
func (ns *Namespace) Queue(ctx context.Context, name string) (q *Queue, err error) {
	if err := job.CheckQueue(name); err != nil {
		return nil, err
	}
	err = ns.Persist(ctx, "open queue "+name, func(ctx context.Context) (err error) {
		q, err = ns.open(ctx, names{ns.name, name}, Config{}.withDefaults())
		return err
	})
	return q, err
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
	q.buckets, err = ns.openBuckets(ctx)
	if errors.Is(err, kv.ErrNoBucket) {
		err = fmt.Errorf("%w: create the queue again, which makes it anew (asyncnats queue add %s)", err, n.queue)
	}
	if err != nil {
		return nil, explain(ns.js.Conn(), "open queue "+n.queue, err)
	}
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

// DeleteQueue removes a queue with its pending jobs, its lanes, pauses, agents and
// quotas, its records and annotations, and what is kept of its failed jobs. It
// returns [ErrNoQueue] where there is none, and a [*ConfigError] where the stream
// of that name is somebody else's.
//
// A crash between the steps leaves lanes, quotas, records, annotations or failed
// jobs of a queue that is gone; they are read by nobody, and deleting the queue
// again after creating it anew, or the age of records, annotations and failed
// jobs, removes them.
func (ns *Namespace) DeleteQueue(ctx context.Context, name string) error {
	if err := job.CheckQueue(name); err != nil {
		return err
	}
	n := names{ns.name, name}
	found, err := ns.js.Stream(ctx, n.stream())
	if err == nil {
		if !slices.Contains(found.CachedInfo().Config.Subjects, n.meta()) {
			return &ConfigError{What: "stream " + n.stream(), Problems: []string{"lacks subject " + n.meta()}}
		}
		err = ns.js.DeleteStream(ctx, n.stream())
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("queue %s: %w (asyncnats queue ls lists those that do)", name, ErrNoQueue)
	}
	if err != nil {
		return explain(ns.js.Conn(), "delete queue "+name, err)
	}
	err = errors.Join(
		kv.PurgeAll(ctx, ns.js, dispatchersBucket(ns.name), n.ofQueue()),
		kv.PurgeAll(ctx, ns.js, quotasBucket(ns.name), name+".*"),
		kv.PurgeAll(ctx, ns.js, recordsBucket(ns.name), n.records()),
		ns.forgetDead(ctx, n),
		ns.forgetNotes(ctx, n),
	)
	if err != nil {
		return explain(ns.js.Conn(), "delete queue "+name, err)
	}
	return nil
}
