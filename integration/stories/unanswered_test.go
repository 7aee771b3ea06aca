package stories

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// unanswered is how the JetStream API does without an answer.
var unanswered = map[string]func(request *nats.Msg) (taken bool){
	"an answer is lost": func(request *nats.Msg) bool {
		request.Reply = "nobody"
		return false
	},
	"nobody is there": func(request *nats.Msg) bool {
		return request.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"503"}}}) == nil
	},
	"a leader is elected": func(request *nats.Msg) bool {
		return request.Respond([]byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`)) == nil
	},
}

// What a client does first opens queue, quotas and who hears of broadcasts. It is repeated
// as any put is while the server does not answer, with a deadline and without; not for ever.
func TestFirstPutIsRepeated(t *testing.T) {
	uses := map[string]struct {
		asks string // what is asked has this in its subject
		put  func(context.Context, *asyncnats.Client) error
	}{
		"a queue": {".STREAM.INFO.ASYNC_default", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := asyncnats.Put(ctx, c.Queue(job.DefaultQueue), shout.Call("x"))
			return err
		}},
		"a new queue": {".STREAM.CREATE.ASYNC_more", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := c.CreateQueue(ctx, "more", asyncnats.QueueConfig{})
			return err
		}},
		"buckets of a new queue": {".STREAM.INFO.KV_ASYNC_NOTES", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := c.CreateQueue(ctx, "more", asyncnats.QueueConfig{})
			return err
		}},
		"a queue that was made": {".STREAM.INFO.ASYNC_more", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := c.CreateQueue(ctx, "more", asyncnats.QueueConfig{})
			return err
		}},
		"a bucket": {".STREAM.INFO.KV_ASYNC_JOBS", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := asyncnats.PutMany(ctx, c.Queue(job.DefaultQueue), shout.Call("x"), shout.Call("y"))
			return err
		}},
		"the quotas": {".STREAM.INFO.KV_ASYNC_QUOTAS", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := asyncnats.Put(ctx, c.Queue(job.DefaultQueue), shout.Call("x").Quota("gpu"))
			return err
		}},
		"a quota": {".STREAM.MSG.GET.KV_ASYNC_QUOTAS", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := asyncnats.Put(ctx, c.Queue(job.DefaultQueue), shout.Call("x").Quota("gpu"))
			return err
		}},
		"dispatchers": {".CONSUMER.CREATE.KV_ASYNC_DISPATCHERS", func(ctx context.Context, c *asyncnats.Client) error {
			_, err := asyncnats.Put(ctx, c.Queue("fleet"), asyncnats.ToAll(shout.Call("x")))
			return err
		}},
	}
	for name, fault := range unanswered {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				if _, err := s.client.CreateQueue(s.Context(), "fleet", asyncnats.QueueConfig{Broadcast: true}); err != nil {
					s.Fatal(err)
				}
				s.create("gpu", 1)
				type outage struct {
					of    string
					until time.Time
				}
				var now atomic.Pointer[outage]
				now.Store(&outage{})
				s.through(func(request *nats.Msg) bool {
					now := now.Load()
					return strings.Contains(request.Subject, now.of) && time.Now().Before(now.until) && fault(request)
				})
				for what, use := range uses {
					for _, row := range []struct {
						outage, patience time.Duration // 0 for a context without a deadline
						end              error
						within           time.Duration
					}{
						{20 * time.Second, 0, nil, 24 * time.Second},
						{20 * time.Second, time.Hour, nil, 24 * time.Second},
						{time.Minute, time.Hour, nil, 64 * time.Second},
						{time.Minute, 0, asyncnats.ErrUnanswered, 30 * time.Second},
						{time.Minute, 10 * time.Second, asyncnats.ErrUnanswered, 10 * time.Second},
					} {
						client, err := asyncnats.Connect(s.Context(), s.server.Connect(s.T), asyncnats.Config{Domain: relayed})
						if err != nil {
							s.Fatal(err)
						}
						ctx, cancel := context.WithCancel(s.Context())
						if row.patience > 0 {
							ctx, cancel = context.WithTimeout(s.Context(), row.patience)
						}
						began := time.Now()
						now.Store(&outage{use.asks, began.Add(row.outage)})
						err = use.put(ctx, client)
						cancel()
						if took := time.Since(began); !errors.Is(err, row.end) || took > row.within+100*time.Millisecond {
							s.Errorf("%s: away for %v, waited for up to %v: %v after %v", what, row.outage, row.patience, err, took)
						}
						time.Sleep(time.Minute)
					}
				}
			})
		})
	}
}

// Whoever waits for a job of which nothing is left is told so when the leader answers.
func TestWaitWhileTheLeaderIsAway(t *testing.T) {
	for name, fault := range unanswered {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				back := time.Now().Add(20 * time.Second)
				queue := s.through(func(request *nats.Msg) bool {
					return strings.Contains(request.Subject, ".STREAM.MSG.GET.") && time.Now().Before(back) && fault(request)
				})
				j, err := asyncnats.Put(s.Context(), queue, shout.Call("x").Keep(job.KeepNone))
				if err != nil {
					s.Fatal(err)
				}
				s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(toUpper)}})
				time.Sleep(time.Second)
				ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
				defer cancel()
				if _, err := j.Wait(ctx); !errors.Is(err, asyncnats.ErrOutcomeNotKept) || time.Now().Before(back) {
					s.Errorf("%v, %v before the leader was back", err, time.Until(back))
				}
			})
		})
	}
}

// A handler that returns a call for another queue has done its work: it is looked whether
// that queue is there when the server answers again.
func TestReturnedCallIsLookedAtAgain(t *testing.T) {
	for name, fault := range unanswered {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				if _, err := s.client.CreateQueue(s.Context(), "other", asyncnats.QueueConfig{}); err != nil {
					s.Fatal(err)
				}
				away, runs := time.Time{}, 0
				s.through(func(request *nats.Msg) bool {
					return strings.Contains(request.Subject, ".STREAM.INFO.ASYNC_other") && time.Now().Before(away) && fault(request)
				})
				outer := asyncnats.Define[string, string]("story.outer")
				s.dispatch(dispatcher.Config{Domain: relayed, Handlers: []job.Handler{
					shout.Handle(toUpper),
					outer.HandleCall(func(context.Context, string) (asyncnats.Call[string], error) {
						runs++
						away = time.Now().Add(40 * time.Second)
						return shout.Call("x").Queue("other"), nil
					}),
				}})
				if got := wait(s, put(s, outer.Call("x"))); got != "X" || runs != 1 {
					s.Errorf("%q after %d runs", got, runs)
				}
			})
		})
	}
}
