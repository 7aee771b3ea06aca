package mailbox

import "sync"

// rounds is how often one goroutine works for others in a row.
const rounds = 16

// Combiner does work on a state, one piece at a time and in order, on the
// goroutine that brings it or on that of whoever is at work when it comes. So
// the state needs no goroutine of its own, which would have to be woken.
type Combiner struct {
	mu    sync.Mutex
	idle  sync.Cond
	work  []func()
	after func()
	open  bool
	busy  bool
}

// NewCombiner returns a combiner that is closed.
func NewCombiner() *Combiner {
	c := new(Combiner)
	c.idle.L = &c.mu
	return c
}

// Open has the work done that was brought and will be. after is called after
// each piece of it, or several.
func (c *Combiner) Open(after func()) {
	c.mu.Lock()
	c.open, c.after = true, after
	c.begin()
}

// Close waits for who is at work, and leaves undone what is brought from now on.
func (c *Combiner) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = false
	for c.busy {
		c.idle.Wait()
	}
}

// Do does a piece of work, before it returns where nobody is at work. It may be
// called from the work itself, which is then done after that. The caller must
// not hold what work needs.
func (c *Combiner) Do(work func()) {
	c.mu.Lock()
	c.work = append(c.work, work)
	c.begin()
}

// begin works unless somebody does. It is called with mu, and unlocks it.
func (c *Combiner) begin() {
	if c.busy || !c.open {
		c.mu.Unlock()
		return
	}
	c.busy = true
	c.mu.Unlock()
	c.run()
}

func (c *Combiner) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for round := 0; c.open && len(c.work) > 0; round++ {
		if round == rounds {
			go c.run()
			return
		}
		work := c.work
		c.work = nil
		c.mu.Unlock()
		for _, piece := range work {
			piece()
		}
		c.after()
		c.mu.Lock()
	}
	c.busy = false
	c.idle.Broadcast()
}
