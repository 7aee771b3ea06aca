package stories

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

// traced is ctx within a span, with a member of baggage.
func traced(s *story, tenant string) context.Context {
	s.Helper()
	bag, err := baggage.Parse("tenant=" + tenant)
	if err != nil {
		s.Fatal(err)
	}
	id, _ := trace.TraceIDFromHex(traceID)
	span, _ := trace.SpanIDFromHex(spanID)
	ctx := trace.ContextWithSpanContext(s.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled}))
	return baggage.ContextWithBaggage(ctx, bag)
}

// carried says what a context carries: "trace tenant", or "none".
func carried(ctx context.Context) string {
	span, tenant := trace.SpanContextFromContext(ctx), baggage.FromContext(ctx).Member("tenant").Value()
	switch {
	case span.TraceID().String() == traceID && span.SpanID().String() == spanID && span.IsSampled() && span.IsRemote():
		return "trace " + tenant
	case span.IsValid():
		return "another trace " + tenant
	case tenant != "":
		return tenant
	}
	return "none"
}

// The trace and the baggage of a put are those of the handler, at each attempt,
// however the job came to it.
func TestTrace(t *testing.T) {
	tell(t, func(s *story) {
		task := asyncnats.Define[string, string]("story.traced").Retry(job.Retry{Max: 2, Min: time.Second})
		attempts := 0
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{task.Handle(func(ctx context.Context, how string) (string, error) {
			got := carried(ctx)
			switch how {
			case "retried":
				if attempts++; attempts < 3 && got == "trace acme" {
					return "", errors.New("again")
				}
			case "fails":
				return "", job.Permanent(errors.New(got))
			case "nested":
				self, err := asyncnats.Self(ctx)
				if err != nil {
					return "", err
				}
				inner, err := asyncnats.Put(ctx, self.Queue(), task.Call("inner"))
				if err != nil {
					return "", err
				}
				return inner.Wait(ctx)
			}
			return got, nil
		})}})
		ctx := traced(s, "acme")
		puts := func(ctx context.Context, call asyncnats.Call[string]) *asyncnats.Job[string] {
			j, err := asyncnats.Put(ctx, s.queue, call)
			if err != nil {
				s.Fatal(err)
			}
			return j
		}
		want := func(what, want string, j *asyncnats.Job[string]) {
			s.Helper()
			if got := wait(s, j); got != want {
				s.Errorf("%s: the handler has %s, want %s", what, got, want)
			}
		}
		want("put", "trace acme", puts(ctx, task.Call("")))
		want("put under none", "none", puts(s.Context(), task.Call("")))
		want("put with baggage alone", "solo", puts(baggage.ContextWithBaggage(s.Context(), baggage.FromContext(traced(s, "solo"))), task.Call("")))
		want("scheduled", "trace acme", puts(ctx, task.Call("").In(10*time.Second)))
		want("retried", "trace acme", puts(ctx, task.Call("retried")))
		if attempts != 3 {
			s.Errorf("%d attempts", attempts)
		}
		want("put by a handler", "trace acme", puts(ctx, task.Call("nested")))
		many, err := asyncnats.PutMany(ctx, s.queue, task.Call(""), task.Call("").In(10*time.Second))
		if err != nil {
			s.Fatal(err)
		}
		for _, j := range many {
			want("one of many", "trace acme", j)
		}
		puts(ctx, task.Call("").ID("replaced").In(time.Hour))
		want("replaced", "trace other", puts(traced(s, "other"), task.Call("").ID("replaced").Replace()))
		back, err := puts(ctx, task.Call("").In(time.Hour)).Pull(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		again, err := asyncnats.Put(s.Context(), s.queue, back.Call().In(0))
		if err != nil {
			s.Fatal(err)
		}
		if got, err := again.Wait(s.Context()); err != nil || !strings.Contains(string(got.Data), "none") {
			s.Errorf("taken back and put again: %s, %v", got.Data, err)
		}

		// A job that failed is the same when it is retried, whoever does that.
		failed := puts(ctx, task.Call("fails").ID("failed"))
		for range 2 {
			_, err := failed.Wait(s.Context())
			if failure, ok := errors.AsType[*job.Failure](err); !ok || failure.Message != "trace acme" {
				s.Errorf("failed with %v", err)
			}
			var d asyncnats.Dead
			awaitFake(s, func() bool { // it is kept a moment after it has failed
				d, err = s.queue.DeadJob(s.Context(), "failed")
				return err == nil
			})
			if _, err := s.queue.Retry(traced(s, "other"), d); err != nil {
				s.Fatal(err)
			}
			if failed, err = asyncnats.Lookup[string](s.Context(), s.queue, "failed"); err != nil {
				s.Fatal(err)
			}
		}
	})
}

// A tick carries nothing of who asked for it once; one that somebody runs now carries
// what is his.
func TestTraceOfRecurring(t *testing.T) {
	tell(t, func(s *story) {
		task := asyncnats.Define[none, string]("story.tick")
		got := make(chan string, 10)
		worker(s, task, func(ctx context.Context, _ none) (string, error) {
			got <- carried(ctx)
			return "", nil
		})
		if err := asyncnats.Repeat(traced(s, "acme"), s.queue, "often", "@every 20s", task.Call(none{}), asyncnats.RecurringConfig{}); err != nil {
			s.Fatal(err)
		}
		if was := <-got; was != "none" {
			s.Errorf("a tick carries %s", was)
		}
		if _, err := s.queue.RunRecurring(traced(s, "ada"), "often"); err != nil {
			s.Fatal(err)
		}
		if was := <-got; was != "trace ada" { // long before the next tick
			s.Errorf("one that was run carries %s", was)
		}
	})
}

// Baggage that is too large is refused at the put, and one in a body by hand ends as a
// Failure that says why.
func TestTraceTooLarge(t *testing.T) {
	tell(t, func(s *story) {
		ctx := traced(s, strings.Repeat("a", job.MaxTrace-60))
		_, one := asyncnats.Put(ctx, s.queue, shout.Call("x"))
		_, many := asyncnats.PutMany(ctx, s.queue, shout.Call("x"), shout.Call("y"))
		for _, err := range []error{one, many} {
			if err == nil || !strings.Contains(err.Error(), "must have 8192 at most: carry less baggage") {
				s.Errorf("%v", err)
			}
		}
		put(s, shout.Call("the lane is there"))
		s.dispatch(shouters(dispatcher.Config{}))
		for body, want := range map[string]string{
			`{"arg":"x","trace":{"traceparent":"00-` + traceID + `-` + spanID + `-01"}}`:  "",
			`{"arg":"x","trace":{"baggage":"` + strings.Repeat("a", job.MaxTrace) + `"}}`: "carry less baggage",
			`{"arg":"x","trace":{"b3":"1"}}`:                                              `unknown key "b3" in trace`,
		} {
			id := job.NewID().String()
			if _, err := s.server.JetStream(s.T).Publish(s.Context(), "async.default.job.text=shout."+id, []byte(body)); err != nil {
				s.Fatal(err)
			}
			j, err := asyncnats.Lookup[string](s.Context(), s.queue, id)
			if err != nil {
				s.Fatal(err)
			}
			_, err = j.Wait(s.Context())
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				s.Errorf("%.80s: %v, want %q", body, err, want)
			}
		}
	})
}
