package stream

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// relayed opens the queue over a relay.
func relayed(t *testing.T, s *natstest.Server, take func(*nats.Msg) bool) *Queue {
	t.Helper()
	const domain = "relay"
	s.Relay(t, domain, take)
	js, err := jetstream.NewWithDomain(s.Connect(t), domain)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := Open(t.Context(), js, "")
	if err != nil {
		t.Fatal(err)
	}
	q, err := ns.Queue(t.Context(), "media")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// beforeIt hands a request on, and calls do before the answer is.
func beforeIt(t *testing.T, nc *nats.Conn, request *nats.Msg, do func()) bool {
	t.Helper()
	subject := strings.Replace(request.Subject, "$JS.relay.API.", jetstream.DefaultAPIPrefix, 1)
	answer, err := nc.Request(subject, request.Data, time.Second)
	if err != nil {
		t.Error(err)
		return false
	}
	do()
	return request.Respond(answer.Data) == nil
}

// oncePaused calls do when a lane that was paused is looked at, before whoever looks hears of it.
func oncePaused(t *testing.T, s *natstest.Server, do func()) (take func(*nats.Msg) bool) {
	t.Helper()
	nc := s.Connect(t)
	paused, done := false, false
	return func(request *nats.Msg) bool {
		paused = paused || strings.Contains(request.Subject, ".CONSUMER.PAUSE.")
		if !paused || done || !strings.Contains(request.Subject, ".CONSUMER.INFO.") {
			return false
		}
		done = true
		return beforeIt(t, nc, request, do)
	}
}

func resume(t *testing.T, q *Queue) {
	t.Helper()
	if _, err := q.ns.js.ResumeConsumer(t.Context(), q.names.stream(), lane.Token()); err != nil {
		t.Error(err)
	}
}

// wantNoLease checks that nothing was brought.
func (c *collector) wantNoLease(t *testing.T) {
	t.Helper()
	select {
	case l := <-c.leases:
		t.Errorf("job %s was given out", l.ID)
	default:
	}
}

// takings are the ways to take a job from its lane.
var takings = map[string]func(*testing.T, *Queue, Entry) error{
	"pulled": func(t *testing.T, q *Queue, e Entry) error {
		message, err := q.Pull(t.Context(), e.ID, e.Spec.Nonce)
		if !sameNonce(message, e) {
			t.Errorf("brought %+v", message)
		}
		return err
	},
	"replaced": func(t *testing.T, q *Queue, e Entry) error {
		next := chosen(e.ID, task)
		err := q.Replace(t.Context(), next)
		if found, err := q.Find(t.Context(), e.ID); err != nil || !sameNonce(found, next) {
			t.Errorf("found %+v, %v", found, err)
		}
		return err
	},
	"moved": func(t *testing.T, q *Queue, e Entry) error {
		err := q.Move(t.Context(), e.ID, e.Spec.Nonce, quotaLane.Quotas())
		if found, err := q.Find(t.Context(), e.ID); err != nil || !sameNonce(found, e) || found.Lane != quotaLane {
			t.Errorf("found %+v, %v", found, err)
		}
		return err
	},
}

// A lane may go on before the job is taken from it. Whoever takes that says so, where somebody
// else may have been given it.
func TestLaneGoesOnTooSoon(t *testing.T) {
	for name, take := range takings {
		for _, given := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", and was given out", false: ""}[given], func(t *testing.T) {
				inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
					e := chosen("me", task)
					put(t, q, e)
					c := tap(t, q)
					queue := relayed(t, s, oncePaused(t, s, func() {
						resume(t, q)
						if given {
							c.take(t)
						}
					}))
					if err := take(t, queue, e); given != errors.Is(err, ErrAssigned) || given != (err != nil) {
						t.Error(err)
					}
					wantMessages(t, q, map[string]int{"replaced": 1, "moved": 1}[name])
				})
			})
		}
	}
}

// In a cluster a pause is answered before it is one.
func TestPauseIsAwaited(t *testing.T) {
	for _, given := range []bool{false, true} {
		inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
			e := chosen("me", task)
			put(t, q, e)
			c, nc := tap(t, q), s.Connect(t)
			pauses, looked := 0, false
			queue := relayed(t, s, func(request *nats.Msg) bool {
				switch {
				case strings.Contains(request.Subject, ".CONSUMER.PAUSE."):
					if pauses++; pauses == 1 {
						return request.Respond([]byte(`{"paused":true}`)) == nil
					}
				case pauses == 1 && !looked && strings.Contains(request.Subject, ".CONSUMER.INFO."):
					looked = true
					return beforeIt(t, nc, request, func() {
						if given {
							c.take(t)
						}
					})
				}
				return false
			})
			message, err := queue.Pull(t.Context(), e.ID, e.Spec.Nonce)
			if given && (!errors.Is(err, ErrAssigned) || message.ID != "") || !given && err != nil {
				t.Errorf("brought %q, %v", message.ID, err)
			}
			wantMessages(t, q, map[bool]int{true: 1, false: 0}[given])
		})
	}
}

// Those who take jobs from one lane at the same time do not end each other's pause.
func TestLaneIsTakenFromInTurn(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		first, second := chosen("first", task), chosen("second", task)
		put(t, q, first, second)
		c := tap(t, q)
		answer := make(chan error, 1)
		held := false
		queue := relayed(t, s, func(request *nats.Msg) bool {
			if held || !strings.Contains(request.Subject, ".STREAM.MSG.DELETE.") {
				return false
			}
			held = true
			go func() {
				_, err := q.Pull(t.Context(), second.ID, second.Spec.Nonce)
				answer <- err
			}()
			time.Sleep(time.Second)
			c.pull(t, 2, true)
			time.Sleep(time.Second)
			c.wantNoLease(t)
			return false
		})
		if _, err := queue.Pull(t.Context(), first.ID, first.Spec.Nonce); err != nil || !held {
			t.Error(err)
		}
		if err := <-answer; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		c.wantNoLease(t)
		wantMessages(t, q, 0)
	})
}

// A pause of somebody who has taken no job is left as it is.
func TestForeignPauseStays(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		if _, err := q.consumer(t.Context(), lane); err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(time.Hour)
		if _, err := q.ns.js.PauseConsumer(t.Context(), q.names.stream(), lane.Token(), until); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{5, -1} {
			if err := q.SetFlow(t.Context(), lane, n); err != nil {
				t.Fatal(err)
			}
		}
		within(t, time.Second, "pull", func() {
			if _, err := q.Pull(t.Context(), e.ID, e.Spec.Nonce); err != nil {
				t.Error(err)
			}
		})
		if consumer, err := q.consumer(t.Context(), lane); err != nil || !pausedUntil(consumer).Equal(until) {
			t.Errorf("paused until %v, %v", pausedUntil(consumer), err)
		}
	})
}

// A job is moved although answers are late or lost. Where it was given out meanwhile its message
// stays until it is acked.
func TestMoveUnanswered(t *testing.T) {
	for name, row := range map[string]struct {
		lost    string // the request
		given   time.Duration
		stored  int // messages, before the ack
		assigns bool
	}{
		"late look":                      {".CONSUMER.INFO.", 0, 1, false},
		"late look, and given out":       {".CONSUMER.INFO.", 6 * time.Second, 1, true},
		"lost removal":                   {".STREAM.MSG.DELETE.", 0, 1, false},
		"lost removal, and is given out": {".STREAM.MSG.DELETE.", tryPatience + tryPause/2, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
				e := chosen("me", task)
				put(t, q, e)
				c, nc := tap(t, q), s.Connect(t)
				paused, lost := false, false
				queue := relayed(t, s, func(request *nats.Msg) bool {
					paused = paused || strings.Contains(request.Subject, ".CONSUMER.PAUSE.")
					if lost || !paused || !strings.Contains(request.Subject, row.lost) {
						return false
					}
					lost = true
					if row.given > 0 {
						time.AfterFunc(row.given, func() { c.pull(t, 1, true) })
					}
					if row.lost == ".STREAM.MSG.DELETE." {
						return true
					}
					return beforeIt(t, nc, request, func() { time.Sleep(8 * time.Second) })
				})
				err := queue.Move(t.Context(), e.ID, e.Spec.Nonce, quotaLane.Quotas())
				if row.assigns != errors.Is(err, ErrAssigned) || row.assigns != (err != nil) || !lost {
					t.Errorf("lost %t: %v", lost, err)
				}
				wantMessages(t, q, row.stored)
				if !row.assigns {
					return
				}
				if err := c.next(t).Ack(); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				wantMessages(t, q, row.stored-1)
			})
		})
	}
}
