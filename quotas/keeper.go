package quotas

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/vmihailenco/msgpack/v5"
)

// Where several processes use one quota, their writes would mostly refuse each
// other. So one gate, the quota's keeper, writes for all: the others ask it to,
// by core messages, and it puts what they want into its next write and tells
// those whom that concerns. Which gate that is stands in the quota's value;
// whoever gets no answer, or one from a keeper that sees nothing to do, writes
// itself, and becomes the keeper by that.
//
// A request is carried out only in the term in which it was made. An asker that
// gives up on it does so by ending the term, or by seeing it ended; so what it
// asked for is then either written, where it can be seen, or never will be. One
// that died ends nothing, so a request says too which revision it rests on, and
// claims nothing for a job that has left since (late.go). Administrators ask as well
// where their own writes are refused (change.go).
// Whatever a keeper does it does by compare-and-set, so nothing else rests on
// there being one.

// keeperPatience is how long a keeper may take to answer.
const keeperPatience = 250 * time.Millisecond

// request is what a keeper is asked to write.
type request struct {
	Quota    string `msgpack:"quota"`
	Term     uint64 `msgpack:"term"`
	Revision uint64 `msgpack:"revision,omitempty"` // of the value that it rests on
	From     string `msgpack:"from"`               // dispatcher
	Ops      []op   `msgpack:"ops"`
}

// news is a quota's value after it was written: the answer to a request, and
// told to those who have a claim that changed. The revision is 0 in the answer
// of a gate that is not the keeper, or to a request that comes late.
type news struct {
	Quota    string `msgpack:"quota"`
	Revision uint64 `msgpack:"revision,omitempty"`
	Value    []byte `msgpack:"value,omitempty"`
}

// guest is a request that this gate is to carry out as the keeper.
type guest struct {
	request
	reply string
}

// keeps reports whether the gate may write a quota itself: as its keeper, or in
// place of one that is missing or silent.
func (g *Gate) keeps(l *line) bool {
	return l.known.Keeper == g.config.Dispatcher || l.known.Keeper == "" || l.unsure || l.take
}

// listen takes requests, answers and news until stop is called.
func (g *Gate) listen() (stop func(), err error) {
	conn := g.set.conn
	g.inbox = conn.NewInbox()
	var subs []*nats.Subscription
	stop = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe()
		}
	}
	for subject, take := range map[string]nats.MsgHandler{
		g.inbox + ".*":                       g.takeAnswer,
		g.set.subject:                        g.takeNews,
		g.set.subjectOf(g.config.Dispatcher): g.takeMail,
	} {
		sub, err := conn.Subscribe(subject, take)
		if err != nil {
			stop()
			return nil, err
		}
		subs = append(subs, sub)
	}
	return stop, nil
}

// takeMail takes what is sent to this gate alone: requests, which want an
// answer, and news.
func (g *Gate) takeMail(msg *nats.Msg) {
	if msg.Reply == "" {
		g.takeNews(msg)
		return
	}
	asked := &guest{reply: msg.Reply}
	if msgpack.Unmarshal(msg.Data, &asked.request) != nil {
		return
	}
	g.work.Do(func() {
		l := g.line(asked.Quota)
		l.guests, l.dirty = append(l.guests, asked), true
		// The asker knows more than this gate does.
		l.stale = l.stale || l.known.Term < asked.Term || l.revision < asked.Revision
	})
}

func (g *Gate) takeNews(msg *nats.Msg) {
	var told news
	if msgpack.Unmarshal(msg.Data, &told) != nil {
		return
	}
	g.work.Do(func() { g.tell(told) })
}

// tell takes news.
func (g *Gate) tell(told news) {
	l := g.line(told.Quota)
	if told.Revision <= l.newest {
		return
	}
	now, err := codec.Decode(told.Value)
	if err != nil {
		g.refuse(l, err)
		return
	}
	g.learn(l, now, told.Revision)
}

// Succeed makes the gate the keeper of the quotas whose keeper was a dispatcher
// that died, and that have claims: those of jobs that are gone are nobody's to
// sweep but the keeper's.
func (g *Gate) Succeed(dead string) {
	g.work.Do(func() {
		g.dead = append(g.dead, dead)
		for _, l := range g.lines {
			l.dead, l.stale, l.dirty = append(l.dead, dead), true, true
		}
	})
}

// succeed takes over a line whose keeper died and that has claims.
func (l *line) succeed() {
	if slices.Contains(l.dead, l.known.Keeper) && len(l.known.Holders)+len(l.known.Waiters) > 0 {
		l.take = true
	}
	l.dead = nil
}

// ask has the keeper write what this process wants.
func (g *Gate) ask(l *line, ops []op) {
	asked := &request{Quota: l.name, Term: l.known.Term, Revision: l.revision, From: g.config.Dispatcher, Ops: ops}
	data, err := msgpack.Marshal(asked)
	if err == nil {
		reply, number := g.expect(keeperPatience, func(answer *nats.Msg) { g.answered(l, asked, answer) })
		if err = g.set.conn.PublishRequest(g.set.subjectOf(l.known.Keeper), reply, data); err != nil {
			g.forget(number)
		}
	}
	if err != nil {
		l.take, l.dirty = true, true
		return
	}
	l.sent, l.fresh = append(l.sent, asked), false
}

// answered takes what the keeper said to a request, or that there is none.
func (g *Gate) answered(l *line, asked *request, answer *nats.Msg) {
	i := slices.Index(l.sent, asked)
	if i < 0 {
		return // void
	}
	l.sent, l.dirty = slices.Delete(l.sent, i, i+1), true
	var told news
	switch {
	case answer == nil, answer.Header.Get("Status") == "503", msgpack.Unmarshal(answer.Data, &told) != nil:
		l.sent, l.take = nil, asked.Term == l.known.Term
	case told.Revision == 0:
		l.stale = true
	case told.Revision <= asked.Revision && l.revision == asked.Revision:
		l.take = true // it sees nothing to do, and would see nothing again
	default:
		g.tell(told)
	}
}

// dismiss refuses the guests of a quota that do not ask in this gate's term, or
// come late.
func (g *Gate) dismiss(l *line) {
	kept := l.guests[:0]
	for _, guest := range l.guests {
		if l.known.Keeper == g.config.Dispatcher && l.known.Term == guest.Term && !l.left.late(guest.request) {
			kept = append(kept, guest)
			continue
		}
		g.send(guest.reply, news{Quota: l.name})
	}
	l.guests = kept
}

// spread answers the guests whose wishes are written, and tells those
// dispatchers of whose claims one was changed by what this gate wrote; all, where
// the quota has another keeper since, or another setting.
func (g *Gate) spread(l *line) {
	was := l.known
	if l.untold != nil {
		was, l.untold = *l.untold, nil
	}
	answers := l.guests[:l.included]
	l.guests, l.included = l.guests[l.included:], 0
	concerned := changed(was, l.known)
	delete(concerned, g.config.Dispatcher)
	for _, guest := range answers {
		delete(concerned, guest.From)
	}
	all := was.Term != l.known.Term || was.setting() != l.known.setting()
	if len(answers) == 0 && len(concerned) == 0 && !all {
		return
	}
	value, err := codec.Encode(l.known)
	if err != nil {
		g.log.Error("quota cannot be told of", "quota", l.name, "err", err)
		return
	}
	told := news{Quota: l.name, Revision: l.revision, Value: value}
	for _, guest := range answers {
		g.send(guest.reply, told)
	}
	if all {
		g.send(g.set.subject, told)
		return
	}
	for dispatcher := range concerned {
		g.send(g.set.subjectOf(dispatcher), told)
	}
}

// changed lists the dispatchers that have, or had, a claim which is not the
// same in both.
func changed(was, now Slots) map[string]bool {
	concerned := make(map[string]bool)
	each := func(a, b Slots) {
		for _, c := range a.Holders {
			if other, ok := b.holder(c.Nonce); !ok || other.Token != c.Token {
				concerned[c.Dispatcher] = true
			}
		}
	}
	each(was, now)
	each(now, was)
	for _, c := range now.Waiters {
		if !c.Several {
			continue
		}
		// Only its own gate can let it in, and have a slot kept free for it.
		old, _ := was.waiter(c.Nonce)
		if now.ready(c.Nonce) && !was.ready(c.Nonce) || c.Passed >= patience && old.Passed < patience {
			concerned[c.Dispatcher] = true
		}
	}
	for _, c := range was.Waiters {
		if !now.has(func(other Claim) bool { return other.Nonce == c.Nonce && other.Token == c.Token }) {
			concerned[c.Dispatcher] = true
		}
	}
	return concerned
}

// send sends a core message. Who misses it reads the quota from time to time.
func (g *Gate) send(subject string, told news) {
	if data, err := msgpack.Marshal(told); err == nil {
		_ = g.set.conn.Publish(subject, data)
	}
}
