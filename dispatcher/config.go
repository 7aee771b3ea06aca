package dispatcher

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/job"
)

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
	// UUID identifies the dispatcher; zero means a new one for each run.
	UUID uuid.UUID
	// Queues names the queues to serve, which must exist; empty means the one
	// named job.DefaultQueue.
	Queues []string
	// Handlers performs the tasks, one each.
	Handlers []job.Handler
	// Agents says which tasks are performed and how many jobs at once; nil
	// means agents.Main() in every queue. An empty list means no agents, and
	// then no job is performed.
	Agents []agents.Agent
	// Grace is how long running jobs go on after Run's context ended; 0 means
	// DefaultGrace, a negative value none.
	Grace time.Duration
	// Log takes the dispatcher's log; nil means slog.Default().
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.UUID == uuid.Nil {
		c.UUID = uuid.New()
	}
	if len(c.Queues) == 0 {
		c.Queues = []string{job.DefaultQueue}
	}
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
		if agent.Queue != "" && !slices.Contains(c.Queues, agent.Queue) {
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
