package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

type jobWatchCmd struct {
	format
	ID      string        `arg:"" help:"ID of the job."`
	Queue   string        `short:"q" env:"ASYNCNATS_QUEUE" default:"default" help:"Queue that it was put on."`
	Timeout time.Duration `help:"How long to watch; until the job is completed if not given."`
}

// Help is shown below the usage.
func (*jobWatchCmd) Help() string {
	return `A line is printed for each change of the job's state and of its annotations, its progress among them, until it is completed; with --json each is an object. States that last less than a second may be missed.

    asyncnats job watch tonight`
}

// stateEvery is how often the state of a watched job is looked at.
const stateEvery = time.Second

// sight is what is seen of a job at a moment, as JSON shows it: a state, an
// annotation, or the outcome with the state completed.
type sight struct {
	Time       time.Time       `json:"time"`
	State      job.State       `json:"state,omitempty"`
	Dispatcher string          `json:"dispatcher,omitempty"`
	Attempt    int             `json:"attempt,omitempty"`
	Done       int             `json:"done,omitempty"` // parts that are completed
	Parts      int             `json:"parts,omitempty"`
	Result     json.RawMessage `json:"result,omitempty"`
	Failure    *job.Failure    `json:"failure,omitempty"`
	Annotation string          `json:"annotation,omitempty"`
	Value      json.RawMessage `json:"value,omitempty"`
	Removed    bool            `json:"removed,omitempty"`
	By         string          `json:"by,omitempty"`
}

// Run follows the job.
func (c *jobWatchCmd) Run(ctx context.Context, a *app) error {
	finding, cancel := context.WithTimeout(ctx, findPatience)
	defer cancel()
	client, disconnect, err := a.client(finding, "job watch")
	if err != nil {
		return err
	}
	defer disconnect()
	j, err := asyncnats.Lookup[job.Value](finding, client.Queue(c.Queue), c.ID)
	if err != nil {
		return err
	}
	if c.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	return c.follow(ctx, a, j)
}

// follow prints what is seen of the job until it is completed. What was set before
// the outcome is printed before it.
func (c *jobWatchCmd) follow(ctx context.Context, a *app, j *asyncnats.Job[job.Value]) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	type end struct {
		outcome awaited
		err     error
	}
	notes, states, ended, lost := make(chan asyncnats.Note), make(chan sight), make(chan end, 1), make(chan error, 1)
	go func() {
		for note, err := range j.WatchAnnotations(watching) {
			if err != nil {
				lost <- err
				return
			}
			select {
			case notes <- note:
			case <-watching.Done():
			}
		}
	}()
	go watchState(watching, j, states)
	go func() {
		outcome, err := outcomeOf(ctx, j)
		ended <- end{outcome, err}
	}()
	seen := make(map[string]uint64)
	for {
		select {
		case note := <-notes:
			seen[note.Name] = note.Revision
			if err := c.print(a, sightOf(note)); err != nil {
				return err
			}
		case s := <-states:
			if err := c.print(a, s); err != nil {
				return err
			}
		case err := <-lost:
			return err
		case e := <-ended:
			if e.err != nil && e.outcome.Failure == nil {
				return e.err
			}
			return errors.Join(c.rest(ctx, a, j, seen), c.printEnd(a, e.outcome), e.err)
		}
	}
}

// rest prints the annotations that the watch has not brought yet.
func (c *jobWatchCmd) rest(ctx context.Context, a *app, j *asyncnats.Job[job.Value], seen map[string]uint64) error {
	ctx, cancel := context.WithTimeout(ctx, findPatience)
	defer cancel()
	notes, err := j.Annotations(ctx)
	for _, note := range notes {
		if note.Revision > seen[note.Name] {
			err = errors.Join(err, c.print(a, sightOf(note)))
		}
	}
	return err
}

// watchState sends each state that a job is seen in, but for the last.
func watchState(ctx context.Context, j *asyncnats.Job[job.Value], states chan<- sight) {
	var last sight
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		if status, err := j.Status(ctx); err == nil && status.State != job.Completed { // what cannot be asked now is asked again
			now := sight{State: status.State, Dispatcher: status.Dispatcher}
			if status.Running != nil {
				now.Attempt = status.Running.Attempt
			}
			if status.Record != nil && status.Record.Parts != nil {
				now.Done, now.Parts = status.Record.Parts.Completed(), status.Record.Parts.Count
			}
			if now.State != last.State || now.Attempt != last.Attempt || now.Done != last.Done || now.Parts != last.Parts {
				last = now
				now.Time = time.Now().UTC()
				select {
				case states <- now:
				case <-ctx.Done():
				}
			}
		}
		pause.Reset(stateEvery)
	}
}

func sightOf(note asyncnats.Note) sight {
	s := sight{Time: note.At, Annotation: note.Name, Removed: note.Removed, By: note.By}
	if note.Removed {
		s.Time = time.Now().UTC()
		return s
	}
	var err error
	if s.Value, err = note.Value.AsJSON(); err != nil {
		s.Value, _ = json.Marshal(err.Error()) // a text always can be
	}
	return s
}

func (c *jobWatchCmd) printEnd(a *app, outcome awaited) error {
	return c.print(a, sight{Time: time.Now().UTC(), State: job.Completed, Result: outcome.Result, Failure: outcome.Failure})
}

func (c *jobWatchCmd) print(a *app, s sight) error {
	if c.JSON {
		encoder := json.NewEncoder(a.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(s)
	}
	_, err := fmt.Fprintf(a.out, "%s  %s\n", s.Time.Local().Format("15:04:05.000"), s)
	return err
}

// String says in a line what is seen.
func (s sight) String() string {
	switch {
	case s.Annotation != "" && s.Removed:
		return s.Annotation + " removed"
	case s.Annotation == asyncnats.ProgressAnnotation:
		var p asyncnats.Progress
		if json.Unmarshal(s.Value, &p) == nil {
			return s.Annotation + " " + printable(p.String())
		}
		fallthrough
	case s.Annotation != "":
		return s.Annotation + " " + printable(string(s.Value))
	case s.Failure != nil:
		return string(s.State) + ": " + firstLine(s.Failure.Error(), 200)
	case s.State == job.Completed:
		return string(s.State) + ": " + printable(string(s.Result))
	case s.Parts > 0:
		return fmt.Sprintf("%s, %d of %s completed", s.State, s.Done, plural(s.Parts, "part"))
	case s.Attempt > 0:
		return fmt.Sprintf("%s, attempt %d, by dispatcher %s", s.State, s.Attempt, s.Dispatcher)
	}
	return string(s.State)
}
