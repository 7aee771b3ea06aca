package roster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
	"github.com/asyncnats/asyncnats/stream"
)

// Errors of Agents.
var (
	ErrAgentExists = errors.New("agent exists")
	ErrNoAgent     = errors.New("no such agent")
)

// Stored is an agent as it is stored: one dispatcher's, in one queue.
type Stored struct {
	Agent
	Dispatcher string // UUID
	// Paused has it take no more jobs.
	Paused bool
	// Leaving has it take no more jobs, and be removed when those that it
	// performs are done.
	Leaving bool

	revision uint64
}

// Agents keeps the stored agents of a namespace. Every client can change them; the
// dispatchers watch those that are theirs.
//
// An agent is one key, agent.<queue>.<dispatcher>.<name>. Which agents a
// dispatcher has ever installed in a queue is noted in the key
// installed.<queue>.<dispatcher>, so that one which was removed stays removed.
type Agents struct {
	agents    *kv.Bucket[agentEntry]
	installed *kv.Bucket[[]string]
}

// agentEntry is an agent's value.
type agentEntry struct {
	Size    int      `json:"size"`
	Filter  []string `json:"filter,omitempty"`
	Prefer  []string `json:"prefer,omitempty"`
	Paused  bool     `json:"paused,omitempty"`
	Leaving bool     `json:"leaving,omitempty"`
}

// OpenAgents opens the agents of a namespace, which must have a queue.
func OpenAgents(ctx context.Context, ns *stream.Namespace) (*Agents, error) {
	agents, err := kv.Open(ctx, ns.JetStream(), ns.Dispatchers(), kv.JSON[agentEntry]())
	if err != nil {
		return nil, fmt.Errorf("open agents: %w", err)
	}
	return &Agents{agents: agents, installed: kv.View(agents, kv.JSON[[]string]())}, nil
}

func agentKey(queue, dispatcher, name string) string {
	return "agent." + queue + "." + dispatcher + "." + name
}

func installedKey(queue, dispatcher string) string { return "installed." + queue + "." + dispatcher }

// Install adds those of the agents that this dispatcher never installed in the
// queue before, and returns them. One whose name is taken is left as it is.
//
// A crash between the two writes has them installed again, which changes
// nothing.
func (s *Agents) Install(ctx context.Context, queue, dispatcher string, list []Agent) (installed []Agent, err error) {
	known, err := s.installed.Latest(ctx, installedKey(queue, dispatcher))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return nil, fmt.Errorf("install agents in queue %s: %w", queue, err)
	}
	names := known.Value
	for _, agent := range list {
		if slices.Contains(names, agent.Name) {
			continue
		}
		err := s.Add(ctx, queue, dispatcher, agent)
		if err != nil && !errors.Is(err, ErrAgentExists) {
			return installed, err
		}
		names = append(names, agent.Name)
		if err == nil {
			installed = append(installed, agent)
		}
	}
	if len(names) == len(known.Value) {
		return nil, nil
	}
	if known.Revision == 0 {
		_, err = s.installed.Create(ctx, installedKey(queue, dispatcher), names, kv.Forever)
	} else {
		_, err = s.installed.Update(ctx, installedKey(queue, dispatcher), names, known.Revision, kv.Forever)
	}
	if err != nil {
		return installed, fmt.Errorf("install agents in queue %s: %w", queue, err)
	}
	return installed, nil
}

// Add adds an agent. The error is [ErrAgentExists] where there is one of that name.
func (s *Agents) Add(ctx context.Context, queue, dispatcher string, a Agent) error {
	what := fmt.Sprintf("add agent %s of dispatcher %s in queue %s", a.Name, dispatcher, queue)
	if err := errors.Join(checkAgent(queue, dispatcher, a.Name), a.Check()); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	_, err := s.agents.Create(ctx, agentKey(queue, dispatcher, a.Name), entryOfAgent(Stored{Agent: a}), kv.Forever)
	if errors.Is(err, kv.ErrConflict) {
		err = fmt.Errorf("%w: change it (asyncnats agent set), or remove it first", ErrAgentExists)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Change changes an agent by compare-and-set: change is called again where
// somebody else changed it meanwhile. The error is [ErrNoAgent] where there is
// none, or what change returns.
func (s *Agents) Change(ctx context.Context, queue, dispatcher, name string, change func(*Stored) error) error {
	what := fmt.Sprintf("change agent %s of dispatcher %s in queue %s", name, dispatcher, queue)
	if err := checkAgent(queue, dispatcher, name); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for {
		now, err := s.get(ctx, queue, dispatcher, name)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := change(&now); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := now.Check(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		_, err = s.agents.Update(ctx, agentKey(queue, dispatcher, name), entryOfAgent(now), now.revision, kv.Forever)
		if errors.Is(err, kv.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
}

// Remove removes an agent that is as it was read. gone is false where it was
// changed since.
func (s *Agents) Remove(ctx context.Context, a Stored) (gone bool, err error) {
	err = s.agents.Delete(ctx, agentKey(a.Queue, a.Dispatcher, a.Name), a.revision)
	switch {
	case errors.Is(err, kv.ErrConflict):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("remove agent %s of dispatcher %s in queue %s: %w", a.Name, a.Dispatcher, a.Queue, err)
	}
	return true, nil
}

// Get reads an agent. The error is [ErrNoAgent] where there is none.
func (s *Agents) Get(ctx context.Context, queue, dispatcher, name string) (Stored, error) {
	err := checkAgent(queue, dispatcher, name)
	found := Stored{}
	if err == nil {
		found, err = s.get(ctx, queue, dispatcher, name)
	}
	if err != nil {
		return found, fmt.Errorf("agent %s of dispatcher %s in queue %s: %w", name, dispatcher, queue, err)
	}
	return found, nil
}

func (s *Agents) get(ctx context.Context, queue, dispatcher, name string) (Stored, error) {
	found, err := s.agents.Latest(ctx, agentKey(queue, dispatcher, name))
	if errors.Is(err, kv.ErrNotFound) {
		return Stored{}, fmt.Errorf("%w (asyncnats agent ls lists those there are)", ErrNoAgent)
	}
	if err != nil {
		return Stored{}, err
	}
	return agentOf(found)
}

// List lists the agents of a queue and a dispatcher, each "*" for all, sorted.
func (s *Agents) List(ctx context.Context, queue, dispatcher string) ([]Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	entries, err := s.agents.List(ctx, agentKey(queue, dispatcher, "*"))
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	list := make([]Stored, 0, len(entries))
	for _, found := range entries {
		a, err := agentOf(found)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Stored) int {
		return strings.Compare(agentKey(a.Queue, a.Dispatcher, a.Name), agentKey(b.Queue, b.Dispatcher, b.Name))
	})
	return list, nil
}

const listPatience = 5 * time.Second

// AgentChange is what a watch of agents yields: an agent as it is now, or one that
// was removed, or (once, with neither) word that all there were have been
// yielded.
type AgentChange struct {
	Agent   Stored
	Removed bool
	Current bool
}

// Watch yields a dispatcher's agents in a queue and what becomes of them, until
// ctx ends. An error with an agent's name is of a value that cannot be read.
func (s *Agents) Watch(ctx context.Context, queue, dispatcher string) iter.Seq2[AgentChange, error] {
	return func(yield func(AgentChange, error) bool) {
		for change, err := range s.agents.Watch(ctx, agentKey(queue, dispatcher, "*")) {
			next := AgentChange{Removed: change.Deleted, Current: change.Current}
			if change.Entry.Key != "" {
				found, wrong := agentOf(change.Entry)
				next.Agent, err = found, errors.Join(err, wrong)
			}
			if !yield(next, err) {
				return
			}
		}
	}
}

// forgetAgents removes all agents of a dispatcher, and what it installed.
func forgetAgents(ctx context.Context, ns *stream.Namespace, dispatcher string) error {
	js, bucket := ns.JetStream(), ns.Dispatchers()
	return errors.Join(
		kv.PurgeAll(ctx, js, bucket, agentKey("*", dispatcher, "*")),
		kv.PurgeAll(ctx, js, bucket, installedKey("*", dispatcher)),
	)
}

// checkAgent reports what is wrong with what names an agent. A UUID must be in the
// form that keys have.
func checkAgent(queue, dispatcher, name string) error {
	return errors.Join(job.CheckQueue(queue), job.CheckAgent(name), checkUUID(dispatcher))
}

func checkUUID(dispatcher string) error {
	id, err := uuid.Parse(dispatcher)
	if err != nil || id.String() != dispatcher {
		return fmt.Errorf("dispatcher %q: must be a UUID in lower case with hyphens (asyncnats dispatcher ls lists them)", dispatcher)
	}
	return nil
}

func entryOfAgent(a Stored) agentEntry {
	return agentEntry{Size: a.Places(), Filter: a.Filter, Prefer: a.Prefer, Paused: a.Paused, Leaving: a.Leaving}
}

func agentOf(found kv.Entry[agentEntry]) (Stored, error) {
	parts := strings.Split(found.Key, ".")
	if len(parts) != 4 {
		return Stored{}, fmt.Errorf("key %q is not that of an agent", found.Key)
	}
	value := found.Value
	return Stored{
		Agent:      Agent{Name: parts[3], Queue: parts[1], Size: value.Size, Filter: value.Filter, Prefer: value.Prefer},
		Dispatcher: parts[2], Paused: value.Paused, Leaving: value.Leaving, revision: found.Revision,
	}, nil
}
