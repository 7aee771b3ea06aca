package asyncnats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/stream"
)

// Agent is a stored agent: one dispatcher's, in one queue.
type Agent = roster.Stored

// AgentPolicy is what an agent does: its name, how many jobs at once, of which
// tasks.
type AgentPolicy = roster.Agent

// Agents lists the agents that are stored for the queue, of a dispatcher or, where
// its UUID is empty, of all, sorted by dispatcher and name.
func (q *Queue) Agents(ctx context.Context, dispatcher string) (list []Agent, err error) {
	if dispatcher == "" {
		dispatcher = "*"
	}
	err = q.agents(ctx, func(store *roster.Agents) error {
		list, err = store.List(ctx, q.name, dispatcher)
		return err
	})
	return list, err
}

// AddAgent gives a dispatcher an agent in the queue. A running dispatcher has it at
// once, another when it runs. It returns [ErrAgentExists] where the dispatcher has
// one of that name.
func (q *Queue) AddAgent(ctx context.Context, dispatcher string, policy AgentPolicy) error {
	policy.Queue = q.name
	return q.agents(ctx, func(store *roster.Agents) error { return store.Add(ctx, q.name, dispatcher, policy) })
}

// ChangeAgent changes the size, filter, preference or pause of an agent, at once
// where its dispatcher runs. change may be called more than once. Jobs that are
// performed go on; where they are more than the new size, nothing starts until they
// are fewer. It returns [ErrNoAgent] where there is none.
func (q *Queue) ChangeAgent(ctx context.Context, dispatcher, name string, change func(*Agent)) error {
	return q.agents(ctx, func(store *roster.Agents) error {
		return store.Change(ctx, q.name, dispatcher, name, func(a *Agent) error {
			change(a)
			return nil
		})
	})
}

// PauseAgent has an agent take no more jobs, until ResumeAgent is called. What it
// performs goes on. It is stored, and outlives the dispatcher.
func (q *Queue) PauseAgent(ctx context.Context, dispatcher, name string) error {
	return q.ChangeAgent(ctx, dispatcher, name, func(a *Agent) { a.Paused = true })
}

// ResumeAgent ends a pause.
func (q *Queue) ResumeAgent(ctx context.Context, dispatcher, name string) error {
	return q.ChangeAgent(ctx, dispatcher, name, func(a *Agent) { a.Paused = false })
}

// RemoveAgent removes an agent that performs no job. One that does is refused with
// [ErrAgentBusy] (FEATURES 127) and goes on.
func (q *Queue) RemoveAgent(ctx context.Context, dispatcher, name string) error {
	if err := q.refuseBusy(ctx, dispatcher, name); err != nil {
		return err
	}
	if err := q.DrainAgent(ctx, dispatcher, name); err != nil {
		return err
	}
	// It may have begun a job in between.
	busy := q.refuseBusy(ctx, dispatcher, name)
	if busy == nil {
		return q.awaitGone(ctx, dispatcher, name)
	}
	err := q.ChangeAgent(ctx, dispatcher, name, func(a *Agent) { a.Leaving = false })
	if errors.Is(err, ErrNoAgent) {
		return nil // the job is over, and the agent gone
	}
	return errors.Join(busy, err)
}

// DrainAgent has an agent take no more jobs, and be removed when those that it
// performs are done: at once where it performs none, or its dispatcher does not
// run.
func (q *Queue) DrainAgent(ctx context.Context, dispatcher, name string) error {
	err := q.ChangeAgent(ctx, dispatcher, name, func(a *Agent) { a.Leaving = true })
	if err != nil {
		return err
	}
	_, up, err := q.presence(ctx, dispatcher)
	if up || err != nil {
		return err
	}
	return q.agents(ctx, func(store *roster.Agents) error {
		left, err := store.Get(ctx, q.name, dispatcher, name)
		if errors.Is(err, roster.ErrNoAgent) || err == nil && !left.Leaving {
			return nil
		}
		if err == nil {
			_, err = store.Remove(ctx, left)
		}
		return err
	})
}

// gonePatience is how long an agent that performs nothing may take to go, once it
// is to.
const gonePatience = 5 * time.Second

// awaitGone waits until an agent that is leaving is gone.
func (q *Queue) awaitGone(ctx context.Context, dispatcher, name string) error {
	ctx, cancel := context.WithTimeout(ctx, gonePatience)
	defer cancel()
	return q.agents(ctx, func(store *roster.Agents) error {
		for {
			_, err := store.Get(ctx, q.name, dispatcher, name)
			if errors.Is(err, roster.ErrNoAgent) {
				return nil
			}
			if err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("agent %s of dispatcher %s is to leave, and has not yet: %w", name, dispatcher, ctx.Err())
			case <-time.After(time.Millisecond):
			}
		}
	})
}

func (q *Queue) refuseBusy(ctx context.Context, dispatcher, name string) error {
	who, _, err := q.presence(ctx, dispatcher)
	if err != nil {
		return err
	}
	for _, agent := range who.Agents {
		if agent.Name == name && agent.Active > 0 {
			return fmt.Errorf("asyncnats: remove agent %s of dispatcher %s in queue %s: %w, %d running: drain it, and it goes when they are done",
				name, dispatcher, q.name, ErrAgentBusy, agent.Active)
		}
	}
	return nil
}

// alivePatience is how long a dispatcher that shows that it is alive may take to answer:
// its machine may be busy.
const alivePatience = 3 * time.Second

// presence asks a dispatcher what it does in the queue. up is false where it does
// not answer.
func (q *Queue) presence(ctx context.Context, dispatcher string) (who stream.Presence, up bool, err error) {
	opened, err := q.open(ctx)
	if err == nil {
		who, up, err = opened.Presence(ctx, dispatcher, whoPatience)
	}
	if err == nil && !up {
		var entry Dispatcher
		if entry, err = q.client.Dispatcher(ctx, dispatcher); errors.Is(err, ErrNoDispatcher) {
			return who, false, nil
		}
		if err == nil && entry.State == DispatcherActive {
			who, up, err = opened.Presence(ctx, dispatcher, alivePatience)
		}
	}
	if err != nil {
		return who, false, fmt.Errorf("asyncnats: %w", err)
	}
	return who, up, nil
}

// Pause has all dispatchers take no more jobs of a task from the queue, or of any
// where task is empty, until Resume is called. Jobs can be put meanwhile, and those
// that are performed go on. It is stored, and outlives dispatchers.
func (q *Queue) Pause(ctx context.Context, task string) error {
	return q.use(ctx, func(opened *stream.Queue) error { return opened.Pause(ctx, task) })
}

// Resume ends the pause of a task, or that of the queue where task is empty.
func (q *Queue) Resume(ctx context.Context, task string) error {
	return q.use(ctx, func(opened *stream.Queue) error { return opened.Resume(ctx, task) })
}

// Paused lists the tasks that are paused, sorted; an empty one stands for the
// queue.
func (q *Queue) Paused(ctx context.Context) (tasks []string, err error) {
	err = q.use(ctx, func(opened *stream.Queue) error {
		tasks, err = opened.Paused(ctx)
		return err
	})
	return tasks, err
}

// use calls do with the queue opened.
func (q *Queue) use(ctx context.Context, do func(*stream.Queue) error) error {
	opened, err := q.open(ctx)
	if err == nil {
		err = do(opened)
	}
	if err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	return nil
}

func (q *Queue) agents(ctx context.Context, use func(*roster.Agents) error) error {
	return q.use(ctx, func(opened *stream.Queue) error {
		store, err := roster.OpenAgents(ctx, opened.Namespace())
		if err != nil {
			return err
		}
		return use(store)
	})
}
