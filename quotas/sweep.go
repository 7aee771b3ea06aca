package quotas

import (
	"context"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// suspect is a claim whose job was found gone.
type suspect struct {
	quota string
	nonce job.Nonce
	token job.Token
}

// sweep looks for claims of jobs that are gone, since somebody deleted their
// messages: nobody else would free those slots. A claim is removed when its job
// is found gone twice, an ack wait apart: by then a worker that had it has
// noticed (it looks a third of the ack wait after each extension of its lease).
func (g *Gate) sweep() {
	if g.sweeping {
		return
	}
	type candidate struct {
		suspect
		id job.ID
	}
	var candidates []candidate
	for _, l := range g.lines {
		if !l.loaded || l.known.Keeper != g.config.Dispatcher {
			continue // others may be behind
		}
		for _, c := range slices.Concat(l.known.Holders, l.known.Waiters) {
			if !slices.ContainsFunc(l.tickets, func(t *Ticket) bool { return t.is(c) }) {
				candidates = append(candidates, candidate{suspect{l.name, c.Nonce, c.Token}, c.ID})
			}
		}
	}
	if len(candidates) == 0 {
		clear(g.suspects)
		return
	}
	g.sweeping = true
	go func() {
		gone := make(map[suspect]bool)
		for _, c := range candidates {
			ctx, cancel := context.WithTimeout(g.ctx, tryPatience)
			yes, err := g.config.Gone(ctx, c.id, c.nonce)
			cancel()
			if err == nil && yes {
				gone[c.suspect] = true
			}
		}
		g.work.Do(func() { g.swept(gone, time.Now()) })
	}()
}

// swept takes which claims' jobs were found gone.
func (g *Gate) swept(gone map[suspect]bool, now time.Time) {
	g.sweeping = false
	since := make(map[suspect]time.Time, len(gone))
	for s := range gone {
		first, before := g.suspects[s]
		switch {
		case !before:
			since[s] = now
		case now.Sub(first) < g.config.AckWait:
			since[s] = first
		default:
			g.log.Warn("slot freed: its job is gone", "quota", s.quota, "nonce", s.nonce)
			l := g.line(s.quota)
			l.condemned[condemned{s.nonce, s.token}], l.dirty = true, true
		}
	}
	g.suspects = since
}
