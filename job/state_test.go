package job_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats/job"
)

// TestTransitions tries every pair of states against the life of a job as it
// is written here a second time.
func TestTransitions(t *testing.T) {
	legal := map[job.State][]job.State{
		job.Pending:   {job.Assigned, job.Callbacks, job.Completed, job.Waiting},
		job.Assigned:  {job.Pending, job.Active, job.Completed, job.Callbacks, job.Retrying, job.Waiting},
		job.Active:    {job.Active, job.Completed, job.Callbacks, job.Retrying, job.Waiting},
		job.Retrying:  {job.Pending, job.Callbacks, job.Completed},
		job.Waiting:   {job.Callbacks},
		job.Callbacks: {job.Completed},
		job.Completed: nil,
	}
	for _, from := range job.States() {
		for _, to := range job.States() {
			if got, want := from.CanBecome(to), slices.Contains(legal[from], to); got != want {
				t.Errorf("%s can become %s: %t, want %t", from, to, got, want)
			}
		}
	}
}

func TestTransitionsAreWellFormed(t *testing.T) {
	type pair struct{ from, to job.State }
	seen := map[pair]bool{}
	for _, step := range job.Transitions {
		if !slices.Contains(job.States(), step.From) || !slices.Contains(job.States(), step.To) {
			t.Errorf("%v names an unknown state", step)
		}
		if step.Event == "" || strings.ContainsAny(step.Event, ":;\n") {
			t.Errorf("%v: the event cannot be drawn", step)
		}
		if seen[pair{step.From, step.To}] {
			t.Errorf("%v is listed twice", step)
		}
		seen[pair{step.From, step.To}] = true
	}
}

// reach returns the states that can be reached from one, itself included.
func reach(from job.State) []job.State {
	found := []job.State{from}
	for i := 0; i < len(found); i++ {
		for _, next := range job.States() {
			if found[i].CanBecome(next) && !slices.Contains(found, next) {
				found = append(found, next)
			}
		}
	}
	return found
}

func TestEveryStateIsReachableAndEnds(t *testing.T) {
	born := reach(job.Pending)
	for _, state := range job.States() {
		if !slices.Contains(born, state) {
			t.Errorf("no way from pending to %s", state)
		}
		if !slices.Contains(reach(state), job.Completed) {
			t.Errorf("no way from %s to completed", state)
		}
	}
}

func TestCompletedIsFinal(t *testing.T) {
	for _, state := range job.States() {
		if job.Completed.CanBecome(state) {
			t.Errorf("a completed job can become %s", state)
		}
		if got, want := state.Final(), state == job.Completed; got != want {
			t.Errorf("%s is final: %t", state, got)
		}
		if got, want := state.Ended(), state == job.Completed || state == job.Callbacks; got != want {
			t.Errorf("%s is ended: %t", state, got)
		}
		if state.Ended() {
			for _, next := range job.States() {
				if state.CanBecome(next) && !next.Ended() {
					t.Errorf("%s can become %s: an outcome would be taken back", state, next)
				}
			}
		}
	}
}

func TestParseState(t *testing.T) {
	for _, state := range job.States() {
		if got, err := job.ParseState(string(state)); got != state || err != nil {
			t.Errorf("ParseState(%q) = %q, %v", state, got, err)
		}
	}
	for _, text := range []string{"", "Pending", "pending ", "done", "pendin"} {
		state, err := job.ParseState(text)
		if err == nil || state != "" {
			t.Errorf("ParseState(%q) = %q, %v; want an error", text, state, err)
			continue
		}
		for _, known := range job.States() {
			if !strings.Contains(err.Error(), string(known)) {
				t.Errorf("error %q does not name %s", err, known)
			}
		}
	}
}

func TestDiagramOfTheDocumentation(t *testing.T) {
	section(t, "../docs/design.md", "diagram of the states", "```mermaid\n"+job.Diagram()+"```\n")
}

func TestDiagramDrawsEveryTransition(t *testing.T) {
	drawn := job.Diagram()
	if lines, want := strings.Count(drawn, "\n"), len(job.Transitions)+3; lines != want {
		t.Errorf("%d lines, want %d", lines, want)
	}
	for _, step := range job.Transitions {
		if line := "    " + string(step.From) + " --> " + string(step.To) + ": " + step.Event + "\n"; !strings.Contains(drawn, line) {
			t.Errorf("%q is not drawn", line)
		}
	}
}
