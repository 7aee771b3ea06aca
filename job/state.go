package job

import (
	"fmt"
	"slices"
	"strings"
)

// State is where a job is in its life. Pending and Assigned are derived from
// where its message is; the others are written in its [Record].
type State string

const (
	// Pending: stored in its queue, nobody has it. Derived.
	Pending State = "pending"
	// Assigned: delivered to a dispatcher; performed, or about to be, without
	// a record yet. Derived.
	Assigned State = "assigned"
	// Active: recorded as started by one attempt. Found by another attempt, it
	// means that the first was interrupted.
	Active State = "active"
	// Retrying: an attempt ended and another is scheduled.
	Retrying State = "retrying"
	// Waiting: delegated to other jobs; holds no place in any agent.
	Waiting State = "waiting"
	// Callbacks: the outcome is recorded, and something is still owed: a
	// callback, a slot of a quota, or word to a parent.
	Callbacks State = "callbacks"
	// Completed: the outcome is recorded and nothing is owed. Final.
	Completed State = "completed"
)

// A Transition is one legal step in a job's life.
type Transition struct {
	From, To State
	Event    string
}

// Transitions is the whole life of a job. The diagram of docs/design.md is
// drawn from it.
var Transitions = []Transition{
	{Pending, Assigned, "claimed by an agent"},
	{Pending, Callbacks, "cancelled"},
	{Pending, Completed, "its deadline passed"},
	{Pending, Waiting, "a composition, its parts are put"},
	{Assigned, Pending, "handed back unstarted, or its worker died"},
	{Assigned, Active, "started, where a record must come first"},
	{Assigned, Completed, "outcome recorded"},
	{Assigned, Callbacks, "outcome recorded, something owed"},
	{Assigned, Retrying, "failed, to be tried again later"},
	{Assigned, Waiting, "returned a call"},
	{Active, Active, "interrupted, started again"},
	{Active, Completed, "outcome recorded"},
	{Active, Callbacks, "outcome recorded, something owed"},
	{Active, Retrying, "failed, to be tried again later"},
	{Active, Waiting, "returned a call"},
	{Retrying, Pending, "due"},
	{Retrying, Callbacks, "cancelled"},
	{Retrying, Completed, "its deadline passed"},
	{Waiting, Callbacks, "the jobs it waits for ended, or it was cancelled"},
	{Callbacks, Completed, "nothing owed any more"},
}

// CanBecome reports whether a job in state s may step to next.
func (s State) CanBecome(next State) bool {
	return slices.ContainsFunc(Transitions, func(t Transition) bool {
		return t.From == s && t.To == next
	})
}

// Final reports whether a job in state s is over: its outcome is recorded and
// nothing is owed (rule R1 of docs/design.md).
func (s State) Final() bool { return s == Completed }

// Ended reports whether a job in state s has its outcome.
func (s State) Ended() bool { return s == Callbacks || s == Completed }

// States lists every state in the order of a job's life.
func States() []State {
	return []State{Pending, Assigned, Active, Retrying, Waiting, Callbacks, Completed}
}

// ParseState reads a state's name.
func ParseState(s string) (State, error) {
	if state := State(s); slices.Contains(States(), state) {
		return state, nil
	}
	names := make([]string, 0, len(States()))
	for _, state := range States() {
		names = append(names, string(state))
	}
	return "", fmt.Errorf("unknown state %q: must be one of %s", s, strings.Join(names, ", "))
}

// Diagram draws [Transitions] in Mermaid's state diagram notation.
func Diagram() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n    [*] --> pending: put\n")
	for _, t := range Transitions {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", t.From, t.To, t.Event)
	}
	b.WriteString("    completed --> [*]\n")
	return b.String()
}
