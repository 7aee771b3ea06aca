package stories

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// Whoever looks sees how far a job has come; the last that a handler reports is there
// when the outcome is.
func TestProgress(t *testing.T) {
	tell(t, func(s *story) {
		task := asyncnats.Define[int64, none]("story.count")
		worker(s, task, func(ctx context.Context, total int64) (none, error) {
			for done := range total {
				if err := asyncnats.Report(ctx, asyncnats.Progress{Done: done + 1, Total: total, Text: "counting"}); err != nil {
					return none{}, err
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := asyncnats.Report(ctx, asyncnats.Progress{Done: -1}); err == nil {
				return none{}, errors.New("less than nothing is done")
			}
			return none{}, asyncnats.Report(ctx, asyncnats.Progress{Done: total, Total: total, Text: strings.Repeat("ä", 1000)})
		})
		j := put(s, task.Call(1000))
		if p, reported, err := j.Progress(s.Context()); reported || err != nil {
			s.Errorf("at the beginning %v, %v", p, err)
		}
		seen := make(chan asyncnats.Progress, 1000)
		watching, stop := context.WithCancel(s.Context())
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for note, err := range j.WatchAnnotations(watching) {
				var p asyncnats.Progress
				if err == nil {
					err = note.Value.Decode(&p)
				}
				if err != nil || note.Name != asyncnats.ProgressAnnotation {
					s.Errorf("%+v, %v", note, err)
				}
				seen <- p
			}
		}()
		wait(s, j)
		last, reported, err := j.Progress(s.Context())
		if err != nil || !reported || last.Done != 1000 || last.Total != 1000 || len(last.Text) > 1000 || !strings.HasSuffix(last.Text, "ä…") {
			s.Errorf("at the end %v, %v, %v", last, reported, err)
		}
		synctest.Wait()
		stop()
		<-watched
		if n := len(seen); n < 35 || n > 45 {
			s.Errorf("%d steps were seen of ten seconds", n)
		}
		was := int64(0)
		for range len(seen) {
			p := <-seen
			if p.Done < was {
				s.Errorf("%d after %d", p.Done, was)
			}
			was = p.Done
		}
	})
}

// A handler that panics, or fails, leaves its last progress, too; a server that is
// away fails no job.
func TestProgressOfOneThatFails(t *testing.T) {
	tell(t, func(s *story) {
		task := asyncnats.Define[string, none]("story.failing")
		d := worker(s, task, func(ctx context.Context, how string) (none, error) {
			for i := range int64(3) {
				if err := asyncnats.Report(ctx, asyncnats.Progress{Done: i + 1, Text: how}); err != nil {
					return none{}, err
				}
			}
			if how == "panic" {
				panic("out of cheese")
			}
			return none{}, errors.New(how)
		})
		for _, how := range []string{"panic", "error"} {
			j := put(s, task.Call(how))
			if _, err := j.Wait(s.Context()); err == nil {
				s.Error("it did not fail")
			}
			if p, _, err := j.Progress(s.Context()); err != nil || p != (asyncnats.Progress{Done: 3, Text: how}) {
				s.Errorf("%s: %+v, %v", how, p, err)
			}
		}
		if err := s.server.JetStream(s.T).DeleteStream(s.Context(), "KV_ASYNC_NOTES"); err != nil {
			s.Fatal(err)
		}
		_, err := put(s, task.Call("without")).Wait(s.Context())
		if failure, ok := errors.AsType[*job.Failure](err); !ok || failure.Message != "without" {
			s.Errorf("it ended with %v", err)
		}
		if !d.log.Contains("level=WARN", "progress not written", "asyncnats queue add default") {
			s.Error("the log does not say that there is no bucket")
		}
	})
}

// What a running job is asked, from another process, its handler answers, and nothing
// that it does about it does anything to the job.
func TestAsk(t *testing.T) {
	type where struct {
		Unit string `json:"unit"`
	}
	tell(t, func(s *story) {
		task := asyncnats.Define[none, string]("story.asked")
		release := make(chan struct{})
		worker(s, task, func(ctx context.Context, _ none) (string, error) {
			var at atomic.Int64
			if _, err := asyncnats.Answer(ctx, "position", func(ctx context.Context, q where) (map[string]int64, error) {
				if info, ok := job.FromContext(ctx); !ok || info.Attempt != 1 {
					return nil, errors.New("this is no job")
				}
				switch q.Unit {
				case "":
					return nil, errors.New("in which unit?")
				case "panic":
					panic("at sea")
				}
				return map[string]int64{q.Unit: at.Add(1)}, nil
			}); err != nil {
				return "", err
			}
			<-release
			return "done", nil
		})
		j := put(s, task.Call(none{}))
		if _, err := asyncnats.Ask[none](s.Context(), j, "nothing", none{}); !errors.Is(err, asyncnats.ErrNotRunning) {
			s.Errorf("%v, want ErrNotRunning", err)
		}
		awaitFake(s, func() bool {
			status, err := j.Status(s.Context())
			return err == nil && status.State == job.Assigned
		})
		other, err := asyncnats.Connect(s.Context(), s.server.Connect(s.T), asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		there, err := asyncnats.Lookup[string](s.Context(), other.Queue(job.DefaultQueue), j.ID().String())
		if err != nil {
			s.Fatal(err)
		}
		for n := range int64(3) {
			if got, err := asyncnats.Ask[map[string]int64](s.Context(), there, "position", where{"m"}); err != nil || got["m"] != n+1 {
				s.Errorf("answered %v, %v", got, err)
			}
		}
		if got, err := asyncnats.Ask[job.Value](s.Context(), there, "position", job.Value{Encoding: job.JSON, Data: []byte(`{"unit":"km"}`)}); err != nil || string(got.Data) != `{"km":4}` {
			s.Errorf("asked in JSON: %s, %v", got.Data, err)
		}
		for question, want := range map[any]asyncnats.AnswerError{
			where{}: {ID: j.ID(), Name: "position", Message: "in which unit?"}, where{"panic"}: {ID: j.ID(), Name: "position", Message: "at sea", Panic: true},
		} {
			_, err := asyncnats.Ask[none](s.Context(), there, "position", question)
			if got, ok := errors.AsType[*asyncnats.AnswerError](err); !ok || *got != want {
				s.Errorf("%v: %v", question, err)
			}
		}
		if _, err := asyncnats.Ask[none](s.Context(), there, "position", []int{1}); err == nil || !strings.Contains(err.Error(), "the question does not fit") {
			s.Errorf("another type: %v", err)
		}
		if _, err := asyncnats.Ask[[]int](s.Context(), there, "position", where{"m"}); err == nil || !strings.Contains(err.Error(), "answer of job") {
			s.Errorf("an answer of another type: %v", err)
		}
		close(release)
		if got := wait(s, j); got != "done" {
			s.Errorf("got %q", got)
		}
		if _, err := asyncnats.Ask[none](s.Context(), there, "position", where{"m"}); !errors.Is(err, asyncnats.ErrNotRunning) {
			s.Errorf("when it is over: %v", err)
		}
	})
}

// The next attempt answers where the first one had to end, and begins with the progress
// that it left.
func TestNextAttemptAnswers(t *testing.T) {
	tell(t, func(s *story) {
		task := asyncnats.Define[none, none]("story.attempts").Retry(job.Retry{Max: 1, Min: time.Second})
		worker(s, task, func(ctx context.Context, _ none) (none, error) {
			info, _ := job.FromContext(ctx)
			if _, err := asyncnats.Answer(ctx, "attempt", func(context.Context, none) (int, error) { return info.Attempt, nil }); err != nil {
				return none{}, err
			}
			time.Sleep(2 * time.Second)
			if info.Attempt == 1 {
				return none{}, errors.Join(asyncnats.Report(ctx, asyncnats.Progress{Done: 1}), errors.New("once more"))
			}
			self, err := asyncnats.Self(ctx)
			if err != nil {
				return none{}, err
			}
			if p, reported, err := self.Progress(ctx); err != nil || !reported || p.Done != 1 {
				return none{}, fmt.Errorf("left %v, %w", p, err)
			}
			return none{}, nil
		})
		j := put(s, task.Call(none{}))
		for attempt := 1; attempt <= 2; attempt++ {
			awaitFake(s, func() bool {
				got, err := asyncnats.Ask[int](s.Context(), j, "attempt", none{})
				return err == nil && got == attempt
			})
		}
		wait(s, j)
	})
}

// A dispatcher that stops does not wait for those who ask, nor for a server that is
// away, longer than for its handlers.
func TestStopWhileAsked(t *testing.T) {
	tell(t, func(s *story) {
		task := asyncnats.Define[none, none]("story.stopped")
		d := s.dispatch(dispatcher.Config{Grace: time.Second, Agents: []agents.Agent{{Name: "main", Size: 1}}, Handlers: []job.Handler{
			task.Handle(func(ctx context.Context, _ none) (none, error) {
				if _, err := asyncnats.Answer(ctx, "silent", func(ctx context.Context, _ none) (none, error) {
					<-ctx.Done()
					return none{}, ctx.Err()
				}); err != nil {
					return none{}, err
				}
				for ctx.Err() == nil {
					if err := asyncnats.Report(ctx, asyncnats.Progress{Done: 1}); err != nil {
						return none{}, err
					}
					time.Sleep(10 * time.Millisecond)
				}
				return none{}, context.Cause(ctx)
			}),
		}})
		j := put(s, task.Call(none{}))
		asked := make(chan error, 1)
		go func() {
			awaitFake(s, func() bool { return d.log.Contains("agent runs") })
			time.Sleep(time.Second)
			_, err := asyncnats.Ask[none](s.Context(), j, "silent", none{})
			asked <- err
		}()
		time.Sleep(5 * time.Second)
		began := time.Now()
		d.stop()
		if took := time.Since(began); took > 3*time.Second {
			s.Errorf("it took %v to stop", took)
		}
		if err := <-asked; err == nil {
			s.Error("who asked got an answer")
		}
		if d.log.Contains("left behind") {
			s.Error("the handler was left behind")
		}
		if r := record(s, j); r.State != job.Active {
			s.Errorf("record %+v, want that it was begun, and handed back", r)
		}
	})
}
