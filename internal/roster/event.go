package roster

import (
	"encoding/json"
	"time"
)

// EventKind is what happened to a dispatcher (FEATURES 141).
type EventKind string

// Kinds of events.
const (
	Registered   EventKind = "registered"   // it was never there before, or was removed since
	Activated    EventKind = "activated"    // it begins to take jobs
	Deactivated  EventKind = "deactivated"  // it takes no more: it stopped, or died
	Reactivated  EventKind = "reactivated"  // it was taken for dead, and lives
	Unregistered EventKind = "unregistered" // an administrator removed it
)

// Event tells what happened to a dispatcher, in one of its queues. It is told on
// the core subject <namespace>.<queue>.event.dispatcher.<kind>, in JSON.
type Event struct {
	// Type is "io.asyncnats.event.v1.dispatcher_<kind>". A later version of the
	// format has another number.
	Type       string    `json:"type"`
	Kind       EventKind `json:"-"`
	Time       time.Time `json:"time"`
	Queue      string    `json:"queue"`
	Dispatcher string    `json:"dispatcher"` // UUID
	Host       string    `json:"host,omitempty"`
	PID        int       `json:"pid,omitempty"`
	// Reason says why a dispatcher was deactivated: "stopped" or "died".
	Reason string `json:"reason,omitempty"`
	// By is the UUID of the dispatcher that found it dead; empty for itself.
	By string `json:"by,omitempty"`
}

const eventType = "io.asyncnats.event.v1.dispatcher_"

// Reasons of a deactivation.
const (
	Stopped = "stopped"
	Died    = "died"
)

// DecodeEvent reads an event. Unknown fields are ignored.
func DecodeEvent(data []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return e, err
	}
	if len(e.Type) > len(eventType) {
		e.Kind = EventKind(e.Type[len(eventType):])
	}
	return e, nil
}

// tell tells an event in each of a dispatcher's queues. Who misses it finds the
// entry.
func (r *Roster) tell(kind EventKind, e Entry, reason, by string) []Event {
	var events []Event
	for _, queue := range e.Queues {
		event := Event{
			Type: eventType + string(kind), Kind: kind, Time: time.Now().UTC(), Queue: queue,
			Dispatcher: e.Dispatcher, Host: e.Host, PID: e.PID, Reason: reason, By: by,
		}
		if data, err := json.Marshal(event); err == nil {
			_ = r.nc.Publish(r.ns.Event(queue, "dispatcher."+string(kind)), data)
		}
		events = append(events, event)
	}
	return events
}
