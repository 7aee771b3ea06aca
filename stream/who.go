package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
)

// Presence is a dispatcher's answer to the question who serves a queue.
type Presence struct {
	Dispatcher string          `json:"dispatcher"` // UUID
	Host       string          `json:"host"`
	PID        int             `json:"pid"`
	Tasks      []string        `json:"tasks"` // that it has a handler for and an agent takes
	Agents     []AgentPresence `json:"agents"`
	Jobs       []Running       `json:"jobs"` // that it performs now
}

// AgentPresence is one agent of a dispatcher.
type AgentPresence struct {
	Name   string   `json:"name"`
	Size   int      `json:"size"`
	Filter []string `json:"filter,omitempty"`
	Prefer []string `json:"prefer,omitempty"`
	Paused bool     `json:"paused,omitempty"`
	Active int      `json:"active"`
}

// Running is a job that a dispatcher performs.
type Running struct {
	ID      job.ID    `json:"id"`
	Task    string    `json:"task"`
	Agent   string    `json:"agent"`
	Attempt int       `json:"attempt"`
	Since   time.Time `json:"since"`
}

// question is what is asked of the dispatchers of a queue. One with an ID is
// answered by the dispatcher that performs that job, and nobody else; one with a
// dispatcher by that one.
type question struct {
	ID         job.ID `json:"id,omitempty"`
	Dispatcher string `json:"dispatcher,omitempty"`
}

// Who asks the dispatchers of the queue who they are and what they do, and
// returns the answers that arrive within patience. Nothing is written for it:
// a dispatcher that is silent is not known to be dead.
func (q *Queue) Who(ctx context.Context, patience time.Duration) ([]Presence, error) {
	return q.ask(ctx, question{}, patience, 0)
}

// Performer asks who performs a job now, and returns the first answer. ok is
// false where there was none within patience.
func (q *Queue) Performer(ctx context.Context, id job.ID, patience time.Duration) (who Presence, ok bool, err error) {
	answers, err := q.ask(ctx, question{ID: id}, patience, 1)
	if err != nil || len(answers) == 0 {
		return Presence{}, false, err
	}
	return answers[0], true, nil
}

// Presence asks one dispatcher what it does in the queue. ok is false where it did
// not answer within patience.
func (q *Queue) Presence(ctx context.Context, dispatcher string, patience time.Duration) (who Presence, ok bool, err error) {
	answers, err := q.ask(ctx, question{Dispatcher: dispatcher}, patience, 1)
	if err != nil || len(answers) == 0 {
		return Presence{}, false, err
	}
	return answers[0], true, nil
}

// ask collects answers until patience ends or there are enough (0: no limit).
func (q *Queue) ask(ctx context.Context, ask question, patience time.Duration, enough int) ([]Presence, error) {
	data, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	inbox := q.conn().NewInbox()
	sub, err := q.conn().SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("ask dispatchers of queue %s: %w", q.names.queue, err)
	}
	defer sub.Unsubscribe()
	if err := q.conn().PublishRequest(q.names.who(), inbox, data); err != nil {
		return nil, fmt.Errorf("ask dispatchers of queue %s: %w", q.names.queue, err)
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := []Presence{} // not null in JSON
	for enough == 0 || len(answers) < enough {
		msg, err := sub.NextMsgWithContext(waiting)
		if err != nil || msg.Header.Get("Status") == "503" {
			break
		}
		var answer Presence
		if json.Unmarshal(msg.Data, &answer) != nil || ask.Dispatcher != "" && answer.Dispatcher != ask.Dispatcher {
			continue
		}
		answers = append(answers, answer)
	}
	return answers, ctx.Err()
}

// Answer has the questions of Who and Performer answered with what tell
// returns, until stop is called. tell is called from another goroutine.
func (q *Queue) Answer(tell func() Presence) (stop func(), err error) {
	sub, err := q.conn().Subscribe(q.names.who(), func(msg *nats.Msg) {
		var asked question
		if json.Unmarshal(msg.Data, &asked) != nil {
			return
		}
		answer := tell()
		if asked.ID != "" && !answer.performs(asked.ID) || asked.Dispatcher != "" && asked.Dispatcher != answer.Dispatcher {
			return
		}
		if data, err := json.Marshal(answer); err == nil {
			_ = msg.Respond(data) // the asker does not wait for ever
		}
	})
	if err != nil {
		return nil, fmt.Errorf("answer questions about queue %s: %w", q.names.queue, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

func (p Presence) performs(id job.ID) bool {
	for _, running := range p.Jobs {
		if running.ID == id {
			return true
		}
	}
	return false
}
