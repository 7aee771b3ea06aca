package dispatcher

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// Poll is what a dispatcher was doing at one moment. It notes one when it is
// activated and then at each ping interval, and remembers the last 400
// (FEATURES 156, 219). Nothing is asked of the server for it.
type Poll struct {
	// Key counts the polls since the dispatcher was started, from 1.
	Key  int       `json:"key"`
	Time time.Time `json:"time"`
	// Results is by queue and by agent. An agent is in it while it is carried out.
	Results PollResults `json:"results"`
}

// PollResults is what the agents were doing: by queue, by agent.
type PollResults map[string]map[string]AgentPoll

// AgentPoll is what an agent was doing.
type AgentPoll struct {
	// ActiveJobs are the jobs that it was performing, sorted: 100 of them at most.
	ActiveJobs []job.ID `json:"active_jobs"`
	// Error is why it cannot take jobs; empty where it can.
	Error string `json:"error"`
	// Len is how many jobs it was performing.
	Len int `json:"len"`
	// NewJobs are the jobs that it started since the last poll, in that order: 100
	// of them at most.
	NewJobs []job.ID `json:"new_jobs"`
	// Started is how many jobs it started since the last poll.
	Started int `json:"started"`
	// Size is how many jobs it performs at once; 0 where it was removed since.
	Size int `json:"size"`
	// Paused says that it takes no jobs, because it is paused, or its queue, or the
	// dispatcher is suspended.
	Paused bool `json:"paused"`
}

// LogValue groups the results by queue and agent, for the trace.
func (p PollResults) LogValue() slog.Value {
	var queues []slog.Attr
	for _, queue := range slices.Sorted(maps.Keys(p)) {
		var each []any
		for _, agent := range slices.Sorted(maps.Keys(p[queue])) {
			a := p[queue][agent]
			each = append(each, slog.Group(agent, "active_jobs", a.ActiveJobs, "error", a.Error, "len", a.Len,
				"new_jobs", a.NewJobs, "started", a.Started, "size", a.Size, "paused", a.Paused))
		}
		queues = append(queues, slog.Group(queue, each...))
	}
	return slog.GroupValue(queues...)
}

// Poll returns the last poll that the query's At or Before allows, narrowed to its
// Queue and Agent. The error is [ErrForgotten] where there is none.
func (d *Dispatcher) Poll(q Query) (Poll, error) {
	if err := q.only("queue", "agent", "at", "before"); err != nil {
		return Poll{}, err
	}
	polls := d.history.recent(q, 1, time.Now())
	if len(polls) == 0 {
		return Poll{}, fmt.Errorf("poll: %w: there is none of that time, a dispatcher knows its last %d", ErrForgotten, keptPolls)
	}
	return polls[0], nil
}

// Polls returns the last polls that the query's At, Before and Since allow, the
// newest first, narrowed to its Queue and Agent: as many as its Count says
// (FEATURES 220).
func (d *Dispatcher) Polls(q Query) ([]Poll, error) {
	if err := q.only("queue", "agent", "at", "before", "since", "count"); err != nil {
		return nil, err
	}
	return d.history.recent(q, cmp.Or(q.Count, DefaultPolls), time.Now()), nil
}

func (h *history) recent(q Query, count int, now time.Time) []Poll {
	polls := []Poll{} // not null in JSON
	h.mu.Lock()
	defer h.mu.Unlock()
	for poll := range h.spanned(q, now) {
		if len(polls) == count {
			break
		}
		poll.Results = poll.Results.narrowed(q)
		polls = append(polls, poll)
	}
	return polls
}

// spanned yields the polls whose time a query allows, the newest first. The mutex
// is held.
func (h *history) spanned(q Query, now time.Time) iter.Seq[Poll] {
	return func(yield func(Poll) bool) {
		for poll := range h.polls.newest() {
			if q.spans(poll.Time, now) && !yield(poll) {
				return
			}
		}
	}
}

func (p PollResults) narrowed(q Query) PollResults {
	if q.Queue == "" && q.Agent == "" {
		return p
	}
	narrow := make(PollResults)
	for queue, agents := range p {
		for name, a := range agents {
			if q.takes(queue, name) {
				narrow.put(place{queue, name}, a)
			}
		}
	}
	return narrow
}

func (p PollResults) put(at place, a AgentPoll) {
	if p[at.queue] == nil {
		p[at.queue] = make(map[string]AgentPoll)
	}
	p[at.queue][at.agent] = a
}

// sight is what is seen of the agents when a poll is noted.
type sight struct {
	results   PollResults // without jobs, which the history adds
	suspended bool
	paused    []Pause
}

// note notes a poll, and keeps what was seen. news says that it differs from the
// one before (FEATURES 158).
func (h *history) note(seen sight, now time.Time) (poll Poll, news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.suspends, h.paused = seen.suspended, seen.paused
	results := seen.results
	for at, ids := range h.running() {
		a := results[at.queue][at.agent]
		a.Len = len(ids)
		slices.Sort(ids)
		a.ActiveJobs = slices.Clone(ids[:min(len(ids), listedJobs)])
		results.put(at, a)
	}
	for at, started := range h.fresh {
		a := results[at.queue][at.agent]
		a.Started, a.NewJobs = started.count, started.ids
		results.put(at, a)
	}
	clear(h.fresh)
	for _, agents := range results { // not null in JSON
		for name, a := range agents {
			if a.ActiveJobs == nil {
				a.ActiveJobs = []job.ID{}
			}
			if a.NewJobs == nil {
				a.NewJobs = []job.ID{}
			}
			agents[name] = a
		}
	}
	news = true
	for before := range h.polls.newest() {
		news = !reflect.DeepEqual(before.Results, results)
		break
	}
	poll = Poll{Key: h.last, Time: now.UTC(), Results: results}
	h.polls.push(poll)
	return poll, news
}

// running lists the jobs that are performed. The mutex is held.
func (h *history) running() map[place][]job.ID {
	ids := make(map[place][]job.ID)
	for _, r := range h.active {
		at := place{r.Queue, r.Agent}
		ids[at] = append(ids[at], r.ID)
	}
	return ids
}

// monitor notes a poll at each ping interval, and answers whoever asks, until ctx
// ends.
func (s *site) monitor(ctx context.Context) {
	s.note()
	defer s.answer()()
	ticks := time.NewTicker(s.d.config.PingInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			s.note()
		}
	}
}

func (s *site) note() {
	if poll, news := s.d.history.note(s.look(), time.Now()); news {
		s.d.trace.Debug("poll", "poll", poll.Key, "results", poll.Results)
	}
}

// look sees what the agents are.
func (s *site) look() sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := sight{results: make(PollResults), suspended: s.suspended, paused: []Pause{}}
	for _, queue := range slices.Sorted(maps.Keys(s.stations)) {
		agents, paused := s.stations[queue].look()
		seen.results[queue] = agents
		seen.paused = append(seen.paused, paused...)
	}
	return seen
}

func (s *station) look() (agents map[string]AgentPoll, paused []Pause) {
	agents = make(map[string]AgentPoll)
	queue := s.queue.Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, task := range slices.Sorted(maps.Keys(s.paused)) {
		paused = append(paused, Pause{Queue: queue, Task: task})
	}
	for _, name := range slices.Sorted(maps.Keys(s.runners)) {
		agent, _ := s.runners[name].Presence()
		agents[name] = AgentPoll{Size: agent.Size, Paused: agent.Paused, Error: s.runners[name].Trouble()}
		if s.stored[name].Paused {
			paused = append(paused, Pause{Queue: queue, Agent: name})
		}
	}
	return agents, paused
}
