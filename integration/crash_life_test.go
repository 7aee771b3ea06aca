package integration

import (
	"encoding/json"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
)

// step is one step of an attempt, as it shows on the wire or, of the start, in
// the handler.
type step string

const (
	claimed  step = "claimed"  // its delivery was read
	entered  step = "entered"  // a slot was asked for
	granted  step = "granted"  // it was written that it has a slot, by its own process
	begun    step = "begun"    // a record in state Active was written
	started  step = "started"  // its handler runs
	left     step = "left"     // a slot was given back, or is to be
	recorded step = "recorded" // a record with an outcome was written
	buried   step = "buried"   // it was written what is kept of it, since it failed
	acked    step = "acked"
	returned step = "returned" // it was handed back
)

// deed is a step that an attempt took.
type deed struct {
	Life      int // of which process
	Job       job.ID
	Delivered int // which delivery of the job it was for
	Step      step
	Struck    bool `json:",omitempty"` // it is the one at which the process died
	Undone    bool `json:",omitempty"` // before it was done
}

// edge is where a process dies: at the n-th deed of a kind, before it or after.
type edge struct {
	Step   step
	Nth    int
	Before bool
	Again  bool // for a job that was delivered before; else the first time
	Quotas int  // for a job that names so many at least
}

type end int

const (
	never end = iota
	before
	after
)

// life is what a process does to jobs, seen at its connection. It ends at an
// edge.
type life struct {
	number     int
	dispatcher string
	edge       edge
	trace      string // file that deeds are appended to

	mu         sync.Mutex
	conn       *mortalConn
	deliveries map[string]job.ID // by the subject that an ack goes to
	delivered  map[job.ID]int
	quotas     map[job.ID]int
	recorded   map[job.ID]bool
	ran        map[job.ID]bool // in this life
	nonces     map[job.Nonce]job.ID
	claims     map[string]map[job.ID]bool // by quota: the jobs that this process claims a slot for
	slots      map[string]map[job.ID]bool // by quota: those that it wrote to have one
	count      int
}

func newLife(number int, dispatcher string, at edge, trace string) *life {
	return &life{
		number: number, dispatcher: dispatcher, edge: at, trace: trace,
		deliveries: make(map[string]job.ID), delivered: make(map[job.ID]int), quotas: make(map[job.ID]int),
		recorded: make(map[job.ID]bool), ran: make(map[job.ID]bool), nonces: make(map[job.Nonce]job.ID), claims: make(map[string]map[job.ID]bool), slots: make(map[string]map[job.ID]bool),
	}
}

// Dial makes a life the dialer of its process's only connection.
func (l *life) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = newMortalConn(conn, l)
	return l.conn, nil
}

// started is called by handlers.
func (l *life) started(id job.ID) {
	if l.does(deed{Job: id, Step: started}) != never {
		l.conn.kill()
	}
}

// received looks at what the server sends.
func (l *life) received(c command) end {
	msg := &nats.Msg{Subject: c.subject, Reply: c.reply, Sub: &nats.Subscription{}}
	meta, err := msg.Metadata()
	if err != nil || !strings.Contains(c.subject, ".job.") {
		return never
	}
	id := job.ID(lastToken(c.subject))
	lane := c.subject[:len(c.subject)-len(id)-1]
	l.mu.Lock()
	l.deliveries[c.reply], l.delivered[id] = id, int(meta.NumDelivered)
	l.quotas[id] = strings.Count(lane, "==")
	l.mu.Unlock()
	return l.does(deed{Job: id, Step: claimed})
}

// sent looks at what the process is about to send.
func (l *life) sent(c command) end {
	switch {
	case strings.HasPrefix(c.subject, "$KV.ASYNC_JOBS."):
		record, err := job.DecodeRecord(c.payload)
		if err != nil {
			return never
		}
		d := deed{Job: job.ID(lastToken(c.subject)), Step: begun}
		if record.State.Final() {
			d.Step = recorded
		}
		return l.does(d)
	case strings.HasPrefix(c.subject, "$KV.ASYNC_DEAD."):
		return l.does(deed{Job: job.ID(lastToken(c.subject)), Step: buried})
	case strings.HasPrefix(c.subject, "$KV.ASYNC_QUOTAS."):
		return l.does(l.turnover(lastToken(c.subject), c.payload)...)
	case strings.Contains(c.subject, ".ctl.quota.") && c.reply != "":
		return l.does(l.wishes(c.payload)...)
	case strings.HasPrefix(c.subject, "$JS.ACK."):
		l.mu.Lock()
		d := deed{Job: l.deliveries[c.subject]}
		l.mu.Unlock()
		switch {
		case strings.HasPrefix(string(c.payload), "+ACK"):
			d.Step = acked
		case strings.HasPrefix(string(c.payload), "-NAK"):
			d.Step = returned
		default:
			return never
		}
		return l.does(d)
	}
	return never
}

// turnover returns what a quota's new value means to the jobs of this process.
func (l *life) turnover(quota string, value []byte) (deeds []deed) {
	var now quotas.Slots
	if msgpack.Unmarshal(value, &now) != nil {
		return nil
	}
	ours := func(claims []quotas.Claim) map[job.ID]bool {
		ids := make(map[job.ID]bool)
		for _, c := range claims {
			if c.Dispatcher == l.dispatcher {
				ids[c.ID] = true
			}
		}
		return ids
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	claims, slots := ours(slices.Concat(now.Holders, now.Waiters)), ours(now.Holders)
	deeds = slices.Concat(news(entered, l.claims[quota], claims), news(granted, l.slots[quota], slots), news(left, claims, l.claims[quota]))
	l.claims[quota], l.slots[quota] = claims, slots
	return deeds
}

// news makes a deed for each job that is in b and not in a.
func news(s step, a, b map[job.ID]bool) (deeds []deed) {
	for id := range b {
		if !a[id] {
			deeds = append(deeds, deed{Job: id, Step: s})
		}
	}
	return deeds
}

// wishes returns what a quota's keeper is asked for.
func (l *life) wishes(request []byte) (deeds []deed) {
	var asked struct {
		Quota string `msgpack:"quota"`
		Ops   []struct {
			Op    string       `msgpack:"op"`
			Claim quotas.Claim `msgpack:"claim"`
		} `msgpack:"ops"`
	}
	if msgpack.Unmarshal(request, &asked) != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.claims[asked.Quota] == nil {
		l.claims[asked.Quota] = make(map[job.ID]bool)
	}
	for _, o := range asked.Ops {
		switch o.Op {
		case "enter":
			l.nonces[o.Claim.Nonce] = o.Claim.ID
			l.claims[asked.Quota][o.Claim.ID] = true
			deeds = append(deeds, deed{Job: o.Claim.ID, Step: entered})
		case "leave":
			id := l.nonces[o.Claim.Nonce] // all that such a claim says
			delete(l.claims[asked.Quota], id)
			deeds = append(deeds, deed{Job: id, Step: left})
		}
	}
	return deeds
}

// does takes deeds that are done by one command, and says whether the process
// ends by it.
func (l *life) does(deeds ...deed) end {
	l.mu.Lock()
	defer l.mu.Unlock()
	how := never
	for i := range deeds {
		d := &deeds[i]
		d.Life, d.Delivered = l.number, l.delivered[d.Job]
		switch d.Step {
		case recorded:
			l.recorded[d.Job] = true
		case started:
			l.ran[d.Job] = true
		}
		if !l.counts(*d) {
			continue
		}
		if l.count++; l.count == l.edge.Nth {
			d.Struck, how = true, after
			if l.edge.Before {
				how = before
			}
		}
	}
	for _, d := range deeds {
		d.Undone = how == before
		appendLine(l.trace, d)
	}
	return how
}

// counts reports whether a deed is of the kind at which the process dies. What
// ends a job whose outcome was recorded in an earlier life is another matter, and
// so is a slot given back by a job that was not started.
func (l *life) counts(d deed) bool {
	return d.Step == l.edge.Step && d.Delivered > 1 == l.edge.Again && l.quotas[d.Job] >= l.edge.Quotas &&
		(d.Step != acked && d.Step != buried || l.recorded[d.Job]) && (d.Step != left || l.ran[d.Job])
}

// readTrace reads the deeds of all lives.
func readTrace(trace string) (deeds []deed, err error) {
	text, err := os.ReadFile(trace)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var d deed
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			return nil, err
		}
		deeds = append(deeds, d)
	}
	return deeds, nil
}

// struck returns the deed at which a life ended.
func struck(deeds []deed, life int) (deed, bool) {
	i := slices.IndexFunc(deeds, func(d deed) bool { return d.Life == life && d.Struck })
	if i < 0 {
		return deed{}, false
	}
	return deeds[i], true
}
