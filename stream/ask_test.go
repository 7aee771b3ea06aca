package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// handled is the context of a job's handler, with its own view of the job, that
// ends with the test.
func handled(t *testing.T, q *Queue, e Entry) (ctx context.Context, s *Self, end func()) {
	t.Helper()
	ctx, end = inHandler(t, q, e)
	t.Cleanup(end)
	s, _ = FromContext(ctx)
	return ctx, s, end
}

func echo(_ context.Context, question job.Value) (job.Value, error) { return question, nil }

func ask(t *testing.T, q *Queue, e Entry, name string, question job.Value) (job.Value, error) {
	t.Helper()
	return q.Ask(t.Context(), e.ID, e.Spec.Nonce, name, question)
}

func TestAsk(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		far, _ := wired(t, s)
		e := newEntry()
		ctx, self, _ := handled(t, q, e)
		self.failed = func(string, error) {}
		for name, f := range map[string]func(context.Context, job.Value) (job.Value, error){
			"echo": echo,
			"none": func(context.Context, job.Value) (job.Value, error) { return job.Value{}, nil },
			"fail": func(context.Context, job.Value) (job.Value, error) {
				return job.Value{}, errors.New("no\nsuch \"thing\"")
			},
			"panic": func(context.Context, job.Value) (job.Value, error) { panic("out of cheese") },
			"unreadable": func(context.Context, job.Value) (job.Value, error) {
				var missing *fs.PathError
				return job.Value{}, missing
			},
			"large": func(context.Context, job.Value) (job.Value, error) { return text(strings.Repeat("x", 1<<20)), nil },
			"long": func(context.Context, job.Value) (job.Value, error) {
				return job.Value{}, errors.New(strings.Repeat("x", 1<<20))
			},
		} {
			if _, err := self.Answer(ctx, name, f); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []job.Value{text("hello"), {Data: []byte{0xa1, 'x'}}, {}, {Encoding: job.JSON}} {
			if got, err := ask(t, far, e, "echo", want); err != nil || got.Encoding != want.Encoding || string(got.Data) != string(want.Data) {
				t.Errorf("asked %q: %q, %v", want, got, err)
			}
		}
		if got, err := ask(t, far, e, "none", text("x")); err != nil || !got.IsNone() {
			t.Errorf("an answer of nothing: %q, %v", got, err)
		}
		for name, want := range map[string]AnswerError{
			"fail": {e.ID, "fail", "no\nsuch \"thing\"", false}, "panic": {e.ID, "panic", "out of cheese", true},
			"unreadable": {e.ID, "unreadable", "runtime error: invalid memory address or nil pointer dereference", true},
			"long":       {e.ID, "long", strings.Repeat("x", maxAnswerError), false},
		} {
			_, err := ask(t, far, e, name, text("x"))
			if got, ok := errors.AsType[*AnswerError](err); !ok || *got != want {
				t.Errorf("%s: %.200v", name, err)
			}
		}
		_, err := ask(t, far, e, "large", text("x"))
		if _, ok := errors.AsType[*AnswerError](err); !ok || !strings.Contains(err.Error(), "answer of ") || !strings.Contains(err.Error(), "raise max_payload") {
			t.Errorf("too large an answer: %v", err)
		}
		if _, err := ask(t, far, e, "echo", text(strings.Repeat("x", 1<<20))); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "question of ") {
			t.Errorf("too large a question: %.200v", err)
		}
		for _, name := range []string{"", "a.b", "*", ">"} {
			_, answers := self.Answer(ctx, name, echo)
			if _, asks := ask(t, far, e, name, text("x")); !isNameError(asks) || !isNameError(answers) {
				t.Errorf("%q: %v, %v", name, asks, answers)
			}
		}
		if got, err := ask(t, far, e, "echo", text("still there")); err != nil || string(got.Data) != `"still there"` {
			t.Errorf("after all that: %q, %v", got, err)
		}
	})
}

func TestNobodyAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		e, other := chosen("a", task), chosen("a", task)
		ctx, self, end := handled(t, q, e)
		stop, err := self.Answer(ctx, "echo", echo)
		if err != nil {
			t.Fatal(err)
		}
		notRunning := func(when, name string, e Entry) {
			t.Helper()
			within(t, time.Second, when, func() {
				if got, err := ask(t, q, e, name, text("x")); !errors.Is(err, ErrNotRunning) {
					t.Errorf("%s: %q, %v", when, got, err)
				}
			})
		}
		notRunning("of another name", "other", e)
		notRunning("of another job with its ID", "echo", other)
		if _, err := q.Ask(t.Context(), e.ID, job.Nonce{}, "echo", text("x")); err != nil {
			t.Errorf("whichever has the ID: %v", err)
		}
		if _, err := self.Answer(ctx, "echo", echo); err == nil || !strings.Contains(err.Error(), "stop that first") {
			t.Errorf("a second of its name: %v", err)
		}
		stop()
		stop()
		notRunning("stopped", "echo", e)
		if _, err := self.Answer(ctx, "echo", echo); err != nil {
			t.Errorf("again, after it was stopped: %v", err)
		}
		if _, err := ask(t, q, e, "echo", text("x")); err != nil {
			t.Error(err)
		}
		end()
		notRunning("the handler has returned", "echo", e)
		if _, err := self.Answer(ctx, "echo", echo); err == nil || !strings.Contains(err.Error(), "has returned") {
			t.Errorf("after the handler's return: %v", err)
		}
		notRunning("that", "echo", e)
	})
}

// An attempt that must end answers nothing more, though its handler goes on.
func TestAnsweringEndsWithTheAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := newEntry()
		ctx, self, _ := handled(t, q, e)
		ctx, lose := context.WithCancelCause(ctx)
		if _, err := self.Answer(ctx, "echo", echo); err != nil {
			t.Fatal(err)
		}
		lose(job.ErrLeaseLost)
		synctest.Wait()
		if _, err := ask(t, q, e, "echo", text("x")); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%v, want ErrNotRunning", err)
		}
	})
}

// Questions are answered one by one, in order; those that wait when the handler
// returns are told, and the one under way has its context ended. The handler's return
// waits for nobody long.
func TestQuestionsWait(t *testing.T) {
	for name, deaf := range map[string]bool{"heeds its context": false, "deaf": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
				e := newEntry()
				ctx, self, end := handled(t, q, e)
				var order []string
				release := make(chan struct{})
				_, err := self.Answer(ctx, "slow", func(ctx context.Context, question job.Value) (job.Value, error) {
					order = append(order, string(question.Data))
					if len(order) == 3 {
						if deaf {
							<-release
						} else {
							<-ctx.Done()
						}
					}
					return question, nil
				})
				if err != nil {
					t.Fatal(err)
				}
				type answered struct {
					n   int
					err error
				}
				answers := make(chan answered, 10)
				for n := range 5 {
					go func() {
						_, err := ask(t, q, e, "slow", text(fmt.Sprint(n)))
						answers <- answered{n, err}
					}()
					synctest.Wait()
				}
				for n := range 2 {
					if a := <-answers; a.n != n || a.err != nil {
						t.Errorf("answer %d: %v", a.n, a.err)
					}
				}
				within(t, answerPatience+time.Millisecond, "the handler's return", end)
				if deaf {
					close(release)
				}
				for range 3 {
					if a := <-answers; (a.n == 2) != (a.err == nil) || a.n > 2 && !errors.Is(a.err, ErrNotRunning) {
						t.Errorf("answer %d, after the handler's return: %v", a.n, a.err)
					}
				}
				if strings.Join(order, " ") != `"0" "1" "2"` {
					t.Errorf("answered %s", order)
				}
			})
		})
	}
}

// An answer that nobody waits for any more holds up no other.
func TestAnswerEndsWithItsAsker(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := newEntry()
		ctx, self, _ := handled(t, q, e)
		_, err := self.Answer(ctx, "slow", func(ctx context.Context, question job.Value) (job.Value, error) {
			if question.IsNone() {
				return question, nil
			}
			<-ctx.Done()
			return question, context.Cause(ctx)
		})
		if err != nil {
			t.Fatal(err)
		}
		asking, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := q.Ask(asking, e.ID, e.Spec.Nonce, "slow", text("x")); err == nil {
			t.Error("it answered")
		}
		within(t, 10*time.Millisecond, "the next answer", func() {
			if _, err := ask(t, q, e, "slow", job.Value{}); err != nil {
				t.Error(err)
			}
		})
	})
}

// When Answer has returned the server knows of it, however slow the way there is.
func TestAnswerIsKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		far, wire := wired(t, s)
		e := newEntry()
		ctx, self, _ := handled(t, far, e)
		wire.Freeze()
		time.AfterFunc(500*time.Millisecond, wire.Thaw)
		if _, err := self.Answer(ctx, "echo", echo); err != nil {
			t.Fatal(err)
		}
		if _, err := ask(t, q, e, "echo", text("x")); err != nil {
			t.Error(err)
		}
	})
}

// Who answers goes on after an outage.
func TestAnswerSurvivesAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		far, wire := wired(t, s)
		e := newEntry()
		ctx, self, _ := handled(t, far, e)
		if _, err := self.Answer(ctx, "echo", echo); err != nil {
			t.Fatal(err)
		}
		wire.Cut()
		synctest.Wait()
		within(t, 3*time.Second, "a name given in an outage", func() {
			if _, err := self.Answer(ctx, "late", echo); err != nil {
				t.Error(err)
			}
		})
		if _, err := ask(t, q, e, "echo", text("x")); !errors.Is(err, ErrNotRunning) {
			t.Errorf("cut off: %v", err)
		}
		wire.Restore()
		time.Sleep(time.Second)
		for _, name := range []string{"echo", "late"} {
			if _, err := ask(t, q, e, name, text("x")); err != nil {
				t.Errorf("%s, after it: %v", name, err)
			}
		}
	})
}

func TestAskUnanswered(t *testing.T) {
	configure, login := withUser("async.media.ctl.ask.>")
	natstest.RunWith(t, func(o *server.Options) { configure(o) }, func(t *testing.T, s *natstest.Server) {
		e := newEntry()
		q := createQueue(t, s.Connect(t, asAdmin), Config{})
		ctx, self, _ := handled(t, q, e)
		silent := ctx.Done() // of the attempt
		if _, err := self.Answer(ctx, "silent", func(ctx context.Context, v job.Value) (job.Value, error) {
			<-silent
			return v, nil
		}); err != nil {
			t.Fatal(err)
		}
		asking, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := q.Ask(asking, e.ID, e.Spec.Nonce, "silent", text("x")); !errors.Is(err, ErrUnanswered) {
			t.Errorf("%v, want ErrUnanswered", err)
		}
		within(t, 31*time.Second, "an answer that does not come", func() {
			if _, err := ask(t, createQueue(t, s.Connect(t, login, quiet), Config{}), e, "silent", text("x")); !errors.Is(err, ErrPermission) {
				t.Errorf("%v, want ErrPermission", err)
			}
		})
	})
}
