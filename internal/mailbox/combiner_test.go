package mailbox_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asyncnats/asyncnats/internal/mailbox"
)

// Work waits for Open, is done in order and at once, and what is brought by the
// work itself after it.
func TestCombinerOrder(t *testing.T) {
	c, got := mailbox.NewCombiner(), []string{}
	say := func(word string) func() { return func() { got = append(got, word) } }
	c.Do(say("early"))
	if len(got) > 0 {
		t.Error("done before it was opened")
	}
	c.Open(say("after"))
	c.Do(func() {
		c.Do(say("nested"))
		say("outer")()
	})
	c.Close()
	c.Do(say("late"))
	if want := []string{"early", "after", "outer", "after", "nested", "after"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// No two pieces are done at one time, none is forgotten, and those of one sender
// stay in order, however many there are: nobody works for others for ever.
func TestCombinerConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders, each = 20, 500
		c := mailbox.NewCombiner()
		last, afters := make([]int, senders), 0
		c.Open(func() { afters++ })
		for sender := range senders {
			go func() {
				for i := range each {
					c.Do(func() {
						if last[sender] != i {
							t.Errorf("sender %d: %d, want %d", sender, i, last[sender])
						}
						last[sender] = i + 1
					})
				}
			}()
		}
		synctest.Wait()
		c.Close()
		if slices.Min(last) < each || afters == 0 || afters > senders*each {
			t.Errorf("done %v; after %d times", last, afters)
		}
	})
}

// Whoever works for others is relieved.
func TestCombinerRelieves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := mailbox.NewCombiner(), 0
		c.Open(func() {})
		var more func()
		more = func() {
			n++
			time.Sleep(time.Second)
			c.Do(more)
		}
		began := time.Now()
		c.Do(more)
		if took := time.Since(began); took > time.Minute {
			t.Errorf("worked for others for %v", took)
		}
		time.Sleep(time.Hour)
		c.Close()
		if n < 3000 {
			t.Errorf("%d pieces were done", n)
		}
	})
}

// Close waits for who is at work.
func TestCombinerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, done := mailbox.NewCombiner(), false
		c.Open(func() {})
		go c.Do(func() {
			time.Sleep(time.Minute)
			done = true
		})
		synctest.Wait()
		c.Close()
		if !done {
			t.Error("somebody is still at work")
		}
	})
}
