package agents

import "github.com/asyncnats/asyncnats/internal/roster"

// Agent is the policy of one dispatcher in its queues: which tasks it performs, in
// which preference, and how many jobs at once. Agents may overlap: "main takes
// anything, mul takes only mul".
type Agent = roster.Agent

const (
	// DefaultName is the name of the agent that a dispatcher has where it is
	// given none. zc.async: 'main' (FEATURES 122).
	DefaultName = roster.MainAgent
	// DefaultSize is how many jobs an agent performs at once where it is not said
	// (FEATURES 118).
	DefaultSize = roster.DefaultSize
)

// Main is the agent that a dispatcher has where it is given none.
func Main() Agent { return roster.Main() }
