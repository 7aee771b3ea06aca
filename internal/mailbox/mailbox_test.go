package mailbox_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/asyncnats/asyncnats/internal/mailbox"
)

func ready(m *mailbox.Mailbox) bool {
	select {
	case <-m.Ready():
		return true
	default:
		return false
	}
}

// Work is done once, in order, by whoever calls Run, and Ready yields while
// there is some.
func TestInOrder(t *testing.T) {
	m := mailbox.New()
	m.Run()
	if ready(m) {
		t.Error("ready without mail")
	}
	var got []int
	for i := range 10 {
		m.Post(func() { got = append(got, i) })
	}
	if !ready(m) || ready(m) {
		t.Error("mail yields once")
	}
	if len(got) > 0 {
		t.Error("work was done by the sender")
	}
	m.Run()
	m.Run()
	if !slices.Equal(got, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("done %v", got)
	}
}

// What is posted by the work itself is left for the next time, and announced.
func TestPostFromWork(t *testing.T) {
	m := mailbox.New()
	done := 0
	m.Post(func() { m.Post(func() { done++ }) })
	<-m.Ready()
	m.Run()
	if done != 0 || !ready(m) {
		t.Errorf("done %d times", done)
	}
	if m.Run(); done != 1 {
		t.Errorf("done %d times", done)
	}
}

// Nothing that is posted while the owner works is forgotten: whoever waits for
// Ready does it all.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders, each = 20, 500
		m := mailbox.New()
		last := make([]int, senders) // of each sender; the owner's
		for sender := range senders {
			go func() {
				for i := range each {
					m.Post(func() {
						if last[sender] != i {
							t.Errorf("sender %d: %d, want %d", sender, i, last[sender])
						}
						last[sender] = i + 1
					})
				}
			}()
		}
		for slices.Min(last) < each {
			<-m.Ready() // if something was forgotten nobody would post any more, and the bubble says so
			m.Run()
		}
	})
}
