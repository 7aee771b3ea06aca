package main

import (
	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// composeFlags make one job of several, and say what follows it.
type composeFlags struct {
	Parallel  bool     `xor:"form" help:"Make the jobs parts of one, whose result is the list of their outcomes."`
	Serial    bool     `xor:"form" help:"The same with parts that begin one after another."`
	Then      string   `placeholder:"TASK" help:"Go on with a job of this task, which gets the result; its outcome is that of the whole."`
	OnSuccess []string `placeholder:"TASK" help:"Put a job of this task if it succeeds, with the result. May be repeated."`
	OnFailure []string `placeholder:"TASK" help:"Put a job of this task if it fails, with the failure. May be repeated."`
	OnDone    []string `placeholder:"TASK" help:"Put a job of this task when it is over, with the outcome. May be repeated."`
}

// composed makes the calls one, where the flags say so, and adds what follows.
func (c *putCmd) composed(calls []asyncnats.Call[job.Value]) []asyncnats.Call[job.Value] {
	if c.toAll {
		for i, call := range calls {
			calls[i] = asyncnats.ToAll(call).Keep(job.Keep(c.Keep)).Any()
		}
	}
	switch {
	case c.Parallel:
		calls = []asyncnats.Call[job.Value]{asyncnats.Parallel(calls...).Keep(job.Keep(c.Keep)).Any()}
	case c.Serial:
		calls = []asyncnats.Call[job.Value]{asyncnats.Serial(calls...).Keep(job.Keep(c.Keep)).Any()}
	}
	for i, call := range calls {
		if c.Then != "" {
			call = asyncnats.Then(call, asyncnats.Define[job.Value, job.Value](c.Then)).Keep(job.Keep(c.Keep))
		}
		for _, task := range c.OnSuccess {
			call = call.OnSuccess(asyncnats.Define[job.Value, job.Value](task))
		}
		for _, task := range c.OnFailure {
			call = call.OnFailure(asyncnats.Define[job.Failure, job.Value](task))
		}
		for _, task := range c.OnDone {
			call = call.OnDone(asyncnats.Define[asyncnats.Outcome[job.Value], job.Value](task))
		}
		calls[i] = c.timed(call.ID(c.ID))
	}
	return calls
}
