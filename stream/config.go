package stream

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
)

const (
	// DefaultAckWait is how long a lease lasts without being extended, and so
	// how long a job rests after its worker died.
	DefaultAckWait = 15 * time.Second
	// MinAckWait is the shortest lease: the server may end one half a second
	// early, and its holder gives up one second before.
	MinAckWait = 3 * time.Second
)

// DefaultGrace is how long a dispatcher may be away before what it was to perform
// of a broadcast is given up.
const DefaultGrace = time.Minute

// Config describes a queue when it is created. The zero Config is the default.
type Config struct {
	// AckWait is how long a lease lasts without being extended; 0 means
	// [DefaultAckWait], the least is [MinAckWait].
	AckWait time.Duration
	// Broadcast makes it a queue whose jobs every dispatcher performs that takes
	// their task; see asyncnats.ToAll.
	Broadcast bool
	// Grace is how long, in a broadcast queue, a dispatcher may be away before what
	// it was to perform is given up; 0 means [DefaultGrace].
	Grace time.Duration
	// Replicas is how many servers of a cluster store the queue; 0 means 1.
	Replicas int
}

func (c Config) withDefaults() Config {
	if c.AckWait == 0 {
		c.AckWait = DefaultAckWait
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Grace == 0 && c.Broadcast {
		c.Grace = DefaultGrace
	}
	return c
}

func (c Config) check() error {
	if c.AckWait != 0 && c.AckWait < MinAckWait {
		return fmt.Errorf("ack wait %v is too short: must be at least %v", c.AckWait, MinAckWait)
	}
	if c.Grace < 0 || c.Grace > 0 && !c.Broadcast {
		return fmt.Errorf("grace %v: must not be negative, and is for broadcast queues only", c.Grace)
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		return fmt.Errorf("%d replicas: must be 1 to 5", c.Replicas)
	}
	return nil
}

func streamConfig(n names, c Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               n.stream(),
		Description:        "asyncnats queue " + n.queue,
		Subjects:           n.stored(),
		Retention:          jetstream.WorkQueuePolicy,
		Storage:            jetstream.FileStorage,
		Replicas:           c.Replicas,
		MaxConsumers:       -1,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgsPerSubject:  -1,
		MaxMsgSize:         -1,
		Discard:            jetstream.DiscardOld,
		AllowDirect:        true,
		AllowRollup:        true,
		AllowMsgTTL:        true,
		AllowMsgSchedules:  true,
		AllowAtomicPublish: true,
	}
}

// problems lists what keeps a stream that somebody else made, or edited, from
// serving as the queue. Whatever is not listed (replicas, placement, limits on
// size, compression, metadata) is the administrator's to choose.
func problems(n names, found jetstream.StreamConfig) []string {
	var out []string
	need := func(ok bool, format string, args ...any) {
		if !ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	for _, subject := range n.stored() {
		need(slices.Contains(found.Subjects, subject), "lacks subject %s", subject)
	}
	need(found.Retention == jetstream.WorkQueuePolicy, "has retention %v, needs WorkQueue", found.Retention)
	need(found.MaxAge == 0, "has max age %v, needs none: pending jobs would be dropped", found.MaxAge)
	need(found.MaxMsgsPerSubject <= 0, "has a limit of %d messages per subject, needs none", found.MaxMsgsPerSubject)
	need(!found.Sealed && !found.DenyDelete, "denies deletion")
	need(found.MaxMsgs <= 0 && found.MaxBytes <= 0,
		"has a limit on its size, needs none: old jobs would be dropped (discarding new ones instead excludes schedules)")
	need(found.AllowDirect, "does not allow direct reads")
	need(found.AllowMsgSchedules, "does not allow message schedules")
	need(found.AllowAtomicPublish, "does not allow atomic batches")
	need(found.Mirror == nil && len(found.Sources) == 0, "is a mirror or has sources")
	return out
}

// ConfigError says that a stream or consumer of the name that asyncnats needs
// exists and cannot serve: somebody else made it, or changed it. asyncnats
// never alters what it did not make.
type ConfigError struct {
	What     string // "stream ASYNC_media", "consumer image=thumb of stream ASYNC_media"
	Problems []string
}

// Error implements error.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s exists with other settings: it %s; change or remove it, or use another name",
		e.What, strings.Join(e.Problems, ", it "))
}

// initialFlow is how many jobs of a lane with quotas may be delivered and not
// acked before a dispatcher has set the number that fits their sizes, with
// [Queue.SetFlow].
const initialFlow = 2

func consumerConfig(n names, lane Lane, ackWait time.Duration) jetstream.ConsumerConfig {
	description, flow := "asyncnats lane of task "+lane.Task, -1 // agents bound what is in flight
	if quotas := lane.Quotas(); quotas != nil {
		description += " with quotas " + strings.Join(quotas, ", ")
		flow = initialFlow
	}
	if lane.Priority != job.Normal {
		description += " of priority " + lane.Priority.String()
	}
	return jetstream.ConsumerConfig{
		Durable:       lane.Token(),
		Description:   description,
		FilterSubject: n.lane(lane),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1, // past a limit the message would be stuck in the stream
		MaxAckPending: flow,
		MaxWaiting:    8192,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
	}
}

// dueConfig is the consumer from which every dispatcher of the queue takes the
// timers that have fired.
func dueConfig(n names, ackWait time.Duration) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       dueConsumer,
		Description:   "asyncnats timers that have fired",
		FilterSubject: n.dues(),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		MaxWaiting:    8192,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
	}
}

// consumerProblems lists what keeps a consumer that somebody else made from
// serving in the place of the one that is needed.
func consumerProblems(needed, found jetstream.ConsumerConfig) []string {
	var out []string
	need := func(ok bool, format string, args ...any) {
		if !ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	need(found.FilterSubject == needed.FilterSubject, "filters %q, needs %q", found.FilterSubject, needed.FilterSubject)
	need(found.AckPolicy == jetstream.AckExplicitPolicy, "has ack policy %v, needs explicit", found.AckPolicy)
	need(found.AckWait >= MinAckWait, "has an ack wait of %v, needs at least %v", found.AckWait, MinAckWait)
	need(found.MaxDeliver <= 0, "gives up after %d deliveries, needs no limit", found.MaxDeliver)
	need(found.DeliverSubject == "", "pushes to %q, needs to be pulled", found.DeliverSubject)
	need(len(found.BackOff) == 0, "has a back-off of its own, needs none")
	return out
}
