package roster

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/asyncnats/asyncnats/job"
)

const (
	// MainAgent is the name of the agent that a dispatcher has where it is
	// given none. zc.async: 'main' (FEATURES 122).
	MainAgent = "main"
	// DefaultSize is how many jobs an agent performs at once where it is not
	// said (FEATURES 118).
	DefaultSize = 3
)

// Agent is the policy of one dispatcher in its queues: which tasks it performs
// and how many jobs at once. Agents may overlap: "main takes anything, mul
// takes only mul".
type Agent struct {
	// Name is required, and unique in its dispatcher and queue.
	Name string
	// Queue is the queue that the agent serves; empty for every queue of its
	// dispatcher.
	Queue string
	// Size is the most jobs at once; 0 means [DefaultSize].
	Size int
	// Filter lists the tasks that the agent takes, as NATS wildcards over the
	// parts of their names: "image.thumbnail", "image.*", "image.>". Empty
	// takes all.
	Filter []string
	// Prefer lists tasks, as Filter does, whose jobs the agent takes before
	// others of the same priority while it has to choose, the first first; it
	// takes others where there are none of them, and with every tenth job. (The
	// choosers of zc.async, FEATURES 120.)
	Prefer []string
}

// Main is the agent that a dispatcher has where it is given none.
func Main() Agent { return Agent{Name: MainAgent, Size: DefaultSize} }

// Check reports everything that is wrong with the agent, joined.
func (a Agent) Check() error {
	errs := []error{job.CheckAgent(a.Name)}
	if a.Queue != "" {
		errs = append(errs, job.CheckQueue(a.Queue))
	}
	if a.Size < 0 {
		errs = append(errs, fmt.Errorf("agent %s: size %d is negative", a.Name, a.Size))
	}
	for what, patterns := range map[string][]string{"filter": a.Filter, "preference": a.Prefer} {
		for _, pattern := range patterns {
			if err := CheckPattern(what, pattern); err != nil {
				errs = append(errs, fmt.Errorf("agent %s: %w", a.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Takes reports whether the agent takes jobs of a task.
func (a Agent) Takes(task string) bool {
	return len(a.Filter) == 0 || place(a.Filter, task) < len(a.Filter)
}

// Rank is the place of a task in the agent's preference, 0 the first.
func (a Agent) Rank(task string) int { return place(a.Prefer, task) }

// place returns the index of the first pattern that a task matches, or how many
// there are.
func place(patterns []string, task string) int {
	i := slices.IndexFunc(patterns, func(pattern string) bool { return Matches(pattern, task) })
	if i < 0 {
		return len(patterns)
	}
	return i
}

// Serves reports whether the agent works in a queue.
func (a Agent) Serves(queue string) bool { return a.Queue == "" || a.Queue == queue }

// Places is the agent's size, with its default.
func (a Agent) Places() int {
	if a.Size == 0 {
		return DefaultSize
	}
	return a.Size
}

// CheckPattern reports an illegal pattern over the names of tasks; what says what it
// is for.
func CheckPattern(what, pattern string) error {
	parts := strings.Split(pattern, ".")
	for i, part := range parts {
		switch {
		case part == "*", part == ">" && i == len(parts)-1:
		case job.CheckTask(part) != nil:
			return fmt.Errorf("illegal %s %q: must be a task, with * for any one part, or > at the end for any number, like image.* or image.>", what, pattern)
		}
	}
	return nil
}

// Matches reports whether a task matches a pattern, as NATS matches subjects.
func Matches(pattern, task string) bool {
	wanted, parts := strings.Split(pattern, "."), strings.Split(task, ".")
	for i, part := range wanted {
		switch {
		case part == ">":
			return len(parts) > i
		case i >= len(parts), part != "*" && part != parts[i]:
			return false
		}
	}
	return len(parts) == len(wanted)
}
