package dispatcher

import (
	"time"

	"github.com/asyncnats/asyncnats/stream"
)

// State is whether a dispatcher works (FEATURES 160).
type State string

// States of a dispatcher.
const (
	// StateStopped: it is not started, or has stopped.
	StateStopped State = "STOPPED"
	// StateStarting: it has not noted a poll yet. It waits for the server, or for a
	// process that has its UUID.
	StateStarting State = "STARTING"
	// StateStuck: its last poll is older than one and a half ping intervals, and
	// than the ping interval and a second. The process was halted, or has no time
	// to run. It is so too where the first poll is as late.
	StateStuck State = "STUCK"
	// StateRunning: it noted a poll in time.
	StateRunning State = "RUNNING"
)

// Status is how a dispatcher is (FEATURES 221).
type Status struct {
	State State  `json:"status"`
	UUID  string `json:"uuid"`
	// PollInterval is how often it notes a poll: Config.PingInterval.
	PollInterval stream.Duration `json:"poll_interval"`
	// SinceLastPoll is the time since the last poll, or since it was started where
	// there was none yet. Uptime is the time since it was started. Both are nil
	// while it is stopped.
	SinceLastPoll *stream.Duration `json:"time_since_last_poll"`
	Uptime        *stream.Duration `json:"uptime"`
	// Suspended says that it takes no jobs because it cannot show that it is alive,
	// or another process has its UUID.
	Suspended bool `json:"suspended"`
	// Paused lists what is paused. Like Suspended it is of the last poll.
	Paused []Pause `json:"paused"`
}

// Pause is something that takes no jobs, because somebody paused it: a queue, a
// task of a queue, or an agent in a queue.
type Pause struct {
	Queue string `json:"queue"`
	Task  string `json:"task,omitempty"`
	Agent string `json:"agent,omitempty"`
}

// Status tells how the dispatcher is.
func (d *Dispatcher) Status() Status {
	return d.history.status(d.UUID(), d.config.PingInterval, time.Now())
}

func (h *history) status(uuid string, interval time.Duration, now time.Time) Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	status := Status{State: StateStopped, UUID: uuid, PollInterval: stream.Duration(interval), Paused: []Pause{}}
	if h.began.IsZero() || !h.ended.IsZero() {
		return status
	}
	last, inTime := h.began, StateStarting
	for poll := range h.polls.newest() {
		last, inTime = poll.Time, StateRunning
		break
	}
	since := now.Sub(last)
	status.SinceLastPoll, status.Uptime = new(stream.Duration(since)), new(stream.Duration(now.Sub(h.began)))
	status.Suspended, status.Paused = h.suspends, h.paused
	status.State = inTime
	if since > interval+max(interval/2, time.Second) {
		status.State = StateStuck
	}
	return status
}
