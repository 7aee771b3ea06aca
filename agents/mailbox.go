package agents

import "sync"

// mailbox hands work to the one goroutine that owns a state. It never blocks
// the sender.
type mailbox struct {
	ready chan struct{} // holds a token while there is mail

	mu   sync.Mutex
	mail []func()
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// post leaves work for the owner.
func (m *mailbox) post(work func()) {
	m.mu.Lock()
	m.mail = append(m.mail, work)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// run does all the work that was left. Only the owner calls it.
func (m *mailbox) run() {
	m.mu.Lock()
	mail := m.mail
	m.mail = nil
	m.mu.Unlock()
	for _, work := range mail {
		work()
	}
}
