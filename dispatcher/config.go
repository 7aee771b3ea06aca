package dispatcher

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/job"
)

// DefaultPingInterval is how often a dispatcher shows that it is alive. zc.async:
// 30 s, and dead after 60 (FEATURES 144).
const DefaultPingInterval = 5 * time.Second

// shortestDeath leaves a second to notice that one is taken for dead.
const shortestDeath = 3 * time.Second

// DefaultGrace is how long a stopping dispatcher lets running jobs go on.
const DefaultGrace = 10 * time.Second

// Config describes a dispatcher. Handlers is required; the zero value of
// everything else is a default.
type Config struct {
	// Namespace is the system that the queues are in; empty means
	// stream.DefaultNamespace.
	Namespace string
	// Domain is the JetStream domain, where the connection's is not meant.
	Domain string
	// UUID identifies the dispatcher across restarts; zero means that of this
	// instance, in the file that the environment variable ASYNCNATS_UUID names, or
	// ./uuid.txt, which is made where it does not exist. Of processes with the same
	// UUID only one performs jobs at a time.
	UUID uuid.UUID
	// Queues names the queues to serve, which must exist; empty means all there
	// are, as they come and go.
	Queues []string
	// Handlers performs the tasks, one each.
	Handlers []job.Handler
	// Agents says which tasks are performed and how many jobs at once; nil
	// means agents.Main() in every queue. They are stored when the dispatcher
	// first serves a queue, and can be changed from anywhere after that: what is
	// stored then counts, and an agent that was removed is not stored again. An
	// empty list adds none; without a stored agent no job is performed.
	Agents []agents.Agent
	// PingInterval is how often the dispatcher shows that it is alive; 0 means
	// DefaultPingInterval. PingDeathInterval is after what silence others take it
	// for dead, in whole seconds; 0 means three ping intervals.
	PingInterval, PingDeathInterval time.Duration
	// CatchUp has the dispatcher perform, when it first hears of a broadcast queue, and
	// when it is back there after others took it for dead, the broadcasts that were put
	// there within that time and that it was not to perform, as long as their records
	// are kept; 0 means none. One that is to begin later it performs then. Nobody waits
	// for these: the aggregates stay what they are, and to cancel one is not to cancel
	// what this dispatcher performs of it.
	CatchUp time.Duration
	// OnEvent is told of what happens to this dispatcher, and of others that it
	// found dead, one event after another. It must not block.
	OnEvent func(Event)
	// Grace is how long running jobs go on after Run's context ended; 0 means
	// DefaultGrace, a negative value none.
	Grace time.Duration
	// Log takes what happens, failed jobs among it; nil means slog.Default().
	// (zc.async.events, FEATURES 163.)
	Log *slog.Logger
	// Trace takes what becomes of each job and poll, at level debug; nil means
	// Log. (zc.async.trace.)
	Trace *slog.Logger
}

// Event is what happened to a dispatcher. It is told on a core subject as well.
type Event = roster.Event

func (c Config) withDefaults() Config {
	if c.Agents == nil {
		c.Agents = []agents.Agent{agents.Main()}
	}
	switch {
	case c.Grace == 0:
		c.Grace = DefaultGrace
	case c.Grace < 0:
		c.Grace = 0
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Trace == nil {
		c.Trace = c.Log
	}
	if c.PingInterval == 0 {
		c.PingInterval = DefaultPingInterval
	}
	if c.PingDeathInterval == 0 {
		c.PingDeathInterval = max(3*c.PingInterval, shortestDeath).Round(time.Second)
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	return c
}

// check reports everything that is wrong with a config that has its defaults.
func (c Config) check() error {
	var errs []error
	if c.Namespace != "" {
		errs = append(errs, job.CheckNamespace(c.Namespace))
	}
	for i, queue := range c.Queues {
		errs = append(errs, job.CheckQueue(queue))
		if slices.Contains(c.Queues[:i], queue) {
			errs = append(errs, fmt.Errorf("queue %q is named twice", queue))
		}
	}
	if c.PingInterval < 0 || c.PingDeathInterval < shortestDeath || c.PingDeathInterval < 2*c.PingInterval || c.PingDeathInterval%time.Second != 0 {
		errs = append(errs, fmt.Errorf("ping interval %v with death interval %v: the latter must be whole seconds, at least %v and twice the former",
			c.PingInterval, c.PingDeathInterval, shortestDeath))
	}
	if len(c.Handlers) == 0 {
		errs = append(errs, errors.New("no handlers: a dispatcher performs only tasks that it has a handler for"))
	}
	seen := make(map[string]bool)
	for _, handler := range c.Handlers {
		errs = append(errs, job.CheckTask(handler.Task))
		if handler.Perform == nil {
			errs = append(errs, fmt.Errorf("handler of task %q has no function", handler.Task))
		}
		if seen[handler.Task] {
			errs = append(errs, fmt.Errorf("task %q has two handlers", handler.Task))
		}
		seen[handler.Task] = true
	}
	for i, agent := range c.Agents {
		errs = append(errs, agent.Check())
		if agent.Queue != "" && len(c.Queues) > 0 && !slices.Contains(c.Queues, agent.Queue) {
			errs = append(errs, fmt.Errorf("agent %s serves queue %q, which is not among the dispatcher's", agent.Name, agent.Queue))
		}
		for _, other := range c.Agents[:i] {
			if other.Name == agent.Name && (other.Queue == agent.Queue || other.Queue == "" || agent.Queue == "") {
				errs = append(errs, fmt.Errorf("two agents are named %q in one queue", agent.Name))
			}
		}
	}
	return errors.Join(errs...)
}
