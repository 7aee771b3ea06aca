package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
)

// A question to a job is a core request to a subject of the job and a name, and
// is not stored. Question and answer have a value as their data; what else there
// is to say is in headers.
const (
	// headerNonce is that of the job that is asked, where the asker knows it.
	headerNonce = "Asyncnats-Nonce"
	// headerEncoding is the encoding of the value: json, or absent for msgpack.
	headerEncoding = "Asyncnats-Encoding"
	// headerTimeout is how long the asker waits.
	headerTimeout = "Asyncnats-Timeout"
	// headerStatus is absent from an answer; where there is none it says why, and
	// the data is text for people.
	headerStatus = "Asyncnats-Status"
)

const (
	statusFailed  = "failed"  // the handler says that there is no answer
	statusPanic   = "panic"   // it had a panic over it
	statusNotHere = "nothere" // another job has the ID, or the job is over now
)

const (
	// questionsWaiting is how many questions of a name wait for those before them.
	questionsWaiting = 256
	// answerPatience is how long the handler's return waits for an answer under way.
	answerPatience = 200 * time.Millisecond
	// registerPatience is how long the server may take to know who answers.
	registerPatience = time.Second
)

// ErrNotRunning: nobody answers for a job.
var ErrNotRunning = errors.New("nobody answers")

// AnswerError says why a job that was asked something gave no answer.
type AnswerError struct {
	ID   job.ID
	Name string
	// Message is the text of the error that the handler returned.
	Message string
	// Panic says that there was no error, but a panic.
	Panic bool
}

// Error implements error.
func (e *AnswerError) Error() string {
	if e.Panic {
		return fmt.Sprintf("job %s, asked for %s: panic: %s", e.ID, e.Name, e.Message)
	}
	return fmt.Sprintf("job %s, asked for %s: %s", e.ID, e.Name, e.Message)
}

// Ask asks the handler of a running job. nonce is that of the job, or zero for
// whichever has the ID. It waits until ctx ends, 30 s where ctx has no deadline.
//
// Errors: a [*job.NameError]; [ErrNotRunning] where no handler answers to that name
// now; [*AnswerError] where one does and has no answer; [*TooLargeError];
// [ErrPermission]; [ErrUnanswered].
func (q *Queue) Ask(ctx context.Context, id job.ID, nonce job.Nonce, name string, question job.Value) (job.Value, error) {
	step := fmt.Sprintf("ask job %s of queue %s for %s", id, q.names.queue, name)
	if err := job.CheckQuestion(name); err != nil {
		return job.Value{}, fmt.Errorf("%s: %w", step, err)
	}
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	msg := nats.NewMsg(q.names.ask(id, name))
	setValue(msg, question)
	if !nonce.IsZero() {
		msg.Header.Set(headerNonce, nonce.String())
	}
	if deadline, bounded := ctx.Deadline(); bounded {
		msg.Header.Set(headerTimeout, time.Until(deadline).String())
	}
	answer, err := q.conn().RequestMsgWithContext(ctx, msg)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return job.Value{}, fmt.Errorf("%s: %w: it does not run now, or its handler does not answer to that", step, ErrNotRunning)
	case errors.Is(err, nats.ErrMaxPayload):
		return job.Value{}, fmt.Errorf("%s: %w", step, &TooLargeError{What: "question", Size: payload(msg), Max: int(q.conn().MaxPayload())})
	case err != nil:
		return job.Value{}, explain(q.conn(), step, err, msg.Subject)
	}
	switch status := answer.Header.Get(headerStatus); status {
	case "":
		return valueIn(answer), nil
	case statusNotHere:
		return job.Value{}, fmt.Errorf("%s: %w: %s", step, ErrNotRunning, answer.Data)
	default:
		return job.Value{}, &AnswerError{ID: id, Name: name, Message: string(answer.Data), Panic: status == statusPanic}
	}
}

func setValue(msg *nats.Msg, value job.Value) {
	msg.Data = value.Data
	if value.Encoding != job.MsgPack {
		msg.Header.Set(headerEncoding, string(value.Encoding))
	}
}

func valueIn(msg *nats.Msg) job.Value {
	return job.Value{Encoding: job.Encoding(msg.Header.Get(headerEncoding)), Data: msg.Data}
}

// Answer has f answer questions to the job under a name, one at a time in the order
// in which they come, until stop is called or the handler returns. The context of an
// answer ends when its asker waits no longer. Questions that wait at the end are told
// that nobody answers, and the context of the one under way ends; the handler's return
// waits a fifth of a second for it. An error of f, or a panic, is the asker's and does
// nothing to the job.
//
// When Answer has returned, the server knows of it, if it could be reached within
// a second.
func (s *Self) Answer(ctx context.Context, name string, f func(ctx context.Context, question job.Value) (job.Value, error)) (stop func(), err error) {
	step := fmt.Sprintf("answer to %s", name)
	if err := job.CheckQuestion(name); err != nil {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	if !s.claim(name) {
		return nil, fmt.Errorf("%s: this attempt answers to it already: stop that first, or take another name", step)
	}
	a := &answerer{self: s, name: name, answer: f, questions: make(chan *nats.Msg, questionsWaiting), done: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancel(ctx)
	nc := s.Queue.conn()
	if a.sub, err = nc.ChanSubscribe(s.Queue.names.ask(s.ID, name), a.questions); err != nil {
		a.cancel()
		s.release(name)
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	go a.run()
	stop = sync.OnceFunc(a.stop)
	if !s.atEnd(stop) {
		stop()
		return nil, fmt.Errorf("%s: the handler has returned", step)
	}
	flushing, cancel := context.WithTimeout(ctx, registerPatience)
	defer cancel()
	_ = nc.FlushWithContext(flushing) // a connection that comes back says it again
	return stop, nil
}

// claim takes a name. ok is false where it is taken.
func (s *Self) claim(name string) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers[name] {
		return false
	}
	if s.answers == nil {
		s.answers = make(map[string]bool)
	}
	s.answers[name] = true
	return true
}

func (s *Self) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.answers, name)
}

// answerer answers the questions of one name.
type answerer struct {
	self      *Self
	name      string
	answer    func(context.Context, job.Value) (job.Value, error)
	ctx       context.Context
	cancel    context.CancelFunc
	sub       *nats.Subscription
	questions chan *nats.Msg
	done      chan struct{} // closed by run
}

// run answers questions until the attempt, or the answering, ends.
func (a *answerer) run() {
	defer close(a.done)
	defer a.refuse()
	for {
		select {
		case <-a.ctx.Done():
			return
		case msg := <-a.questions:
			a.respond(msg)
		}
	}
}

// refuse ends the subscription, and tells those who wait.
func (a *answerer) refuse() {
	_ = a.sub.Unsubscribe()
	for {
		select {
		case msg := <-a.questions:
			notHere(msg, "it has ended")
		default:
			return
		}
	}
}

func notHere(msg *nats.Msg, why string) {
	reply := nats.NewMsg(msg.Reply)
	reply.Header.Set(headerStatus, statusNotHere)
	reply.Data = []byte(why)
	_ = msg.RespondMsg(reply) // the asker does not wait for ever
}

// respond answers one question; none of another job of the same ID.
func (a *answerer) respond(msg *nats.Msg) {
	if msg.Reply == "" {
		return
	}
	nonce := msg.Header.Get(headerNonce)
	switch {
	case a.ctx.Err() != nil:
		notHere(msg, "it has ended")
		return
	case nonce != "" && nonce != a.self.Nonce.String():
		notHere(msg, "another job has its ID now")
		return
	}
	reply := nats.NewMsg(msg.Reply)
	value, status, text := a.call(msg)
	if status == "" {
		setValue(reply, value)
		if err := msg.RespondMsg(reply); errors.Is(err, nats.ErrMaxPayload) {
			tooLarge := &TooLargeError{What: "answer", Size: payload(reply), Max: int(a.self.Queue.conn().MaxPayload())}
			status, text = statusFailed, tooLarge.Error()
		}
	}
	if status != "" {
		reply := nats.NewMsg(msg.Reply)
		reply.Header.Set(headerStatus, status)
		reply.Data = []byte(text[:min(len(text), maxAnswerError)])
		_ = msg.RespondMsg(reply)
	}
}

// maxAnswerError is how many bytes of an error the asker is told.
const maxAnswerError = 10_000

// call has the handler answer, for as long as the asker waits. status is empty where
// it did; else text says why not.
func (a *answerer) call(msg *nats.Msg) (value job.Value, status, text string) {
	ctx := a.ctx
	if patience, err := time.ParseDuration(msg.Header.Get(headerTimeout)); err == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	defer func() {
		if thrown := recover(); thrown != nil {
			status, text = statusPanic, fmt.Sprint(thrown)
			a.self.failed("panic over a question to "+a.name, fmt.Errorf("%v\n%s", thrown, debug.Stack()))
		}
	}()
	value, err := a.answer(ctx, valueIn(msg))
	if err != nil {
		return job.Value{}, statusFailed, err.Error()
	}
	return value, "", ""
}

// stop ends the answering, and waits a while for the answer under way.
func (a *answerer) stop() {
	a.cancel()
	select {
	case <-a.done:
	case <-time.After(answerPatience):
	}
	a.self.release(a.name)
}
