package quotas

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// exchange is a message of a gate that wants an answer.
type exchange struct {
	answered func(*nats.Msg) // with nil where no answer came in time
	timer    *time.Timer
}

// expect returns the subject for an answer, and the number to take it back by.
func (g *Gate) expect(patience time.Duration, answered func(*nats.Msg)) (reply string, number int) {
	g.number++
	number = g.number
	g.exchanges[number] = exchange{answered, time.AfterFunc(patience, func() {
		g.work.Do(func() { g.settle(number, nil) })
	})}
	return g.inbox + "." + strconv.Itoa(number), number
}

// takeAnswer takes an answer.
func (g *Gate) takeAnswer(msg *nats.Msg) {
	number, err := strconv.Atoi(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:])
	if err != nil {
		return
	}
	g.work.Do(func() { g.settle(number, msg) })
}

// settle ends an exchange, once.
func (g *Gate) settle(number int, answer *nats.Msg) {
	if e, open := g.exchanges[number]; open {
		g.forget(number)
		e.answered(answer)
	}
}

// forget ends an exchange whose message could not be sent.
func (g *Gate) forget(number int) {
	g.exchanges[number].timer.Stop()
	delete(g.exchanges, number)
}
