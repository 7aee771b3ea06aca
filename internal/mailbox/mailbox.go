// Package mailbox hands work to the one goroutine that owns a state.
package mailbox

import "sync"

// Mailbox takes work from any goroutine and never blocks the sender.
type Mailbox struct {
	ready chan struct{} // holds a token while there is mail

	mu   sync.Mutex
	mail []func()
}

// New returns an empty mailbox.
func New() *Mailbox { return &Mailbox{ready: make(chan struct{}, 1)} }

// Ready yields while there is mail.
func (m *Mailbox) Ready() <-chan struct{} { return m.ready }

// Post leaves work for the owner.
func (m *Mailbox) Post(work func()) {
	m.mu.Lock()
	m.mail = append(m.mail, work)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// Run does all the work that was left. Only the owner calls it.
func (m *Mailbox) Run() {
	m.mu.Lock()
	mail := m.mail
	m.mail = nil
	m.mu.Unlock()
	for _, work := range mail {
		work()
	}
}
