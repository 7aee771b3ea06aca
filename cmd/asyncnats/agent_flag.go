package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/asyncnats/asyncnats/agents"
)

// agentForm is how an agent is written.
const agentForm = "name=main,size=3,filter=image.>|mail.send,prefer=mail.send,queue=default, of which only name is required"

// agentFlag is an agent as text, in [agentForm].
type agentFlag agents.Agent

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *agentFlag) UnmarshalText(text []byte) error {
	agent, err := parseAgent(string(text))
	if err != nil {
		return fmt.Errorf("%q: %w: must be like %s", text, err, agentForm)
	}
	*f = agentFlag(agent)
	return nil
}

func parseAgent(text string) (agents.Agent, error) {
	var agent agents.Agent
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || value == "" {
			return agents.Agent{}, fmt.Errorf("%q is not key=value", part)
		}
		if seen[key] && key != "filter" && key != "prefer" {
			return agents.Agent{}, fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		switch key {
		case "name":
			agent.Name = value
		case "queue":
			agent.Queue = value
		case "filter":
			agent.Filter = append(agent.Filter, strings.Split(value, "|")...)
		case "prefer":
			agent.Prefer = append(agent.Prefer, strings.Split(value, "|")...)
		case "size":
			size, err := strconv.Atoi(value)
			if err != nil || size < 1 {
				return agents.Agent{}, fmt.Errorf("size %q is not a positive number", value)
			}
			agent.Size = size
		default:
			return agents.Agent{}, fmt.Errorf("unknown key %q", key)
		}
	}
	if !seen["name"] {
		return agents.Agent{}, fmt.Errorf("name is missing")
	}
	return agent, agent.Check()
}
