package stream

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

func TestOpenWithoutJetStream(t *testing.T) {
	login := nats.UserInfo("u", "p")
	tests := map[string]struct {
		configure func(*server.Options)
		want      string
	}{
		"server": {func(o *server.Options) {
			o.JetStream = false
			o.Users = []*server.User{{Username: "u", Password: "p"}}
		}, "start it with -js"},
		"account": {func(o *server.Options) {
			a := server.NewAccount("A")
			o.Accounts = []*server.Account{a}
			o.Users = []*server.User{{Username: "u", Password: "p", Account: a}}
		}, "not enabled for this account"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			natstest.RunWith(t, test.configure, func(t *testing.T, s *natstest.Server) {
				js, err := jetstream.New(s.Connect(t, login))
				if err != nil {
					t.Fatal(err)
				}
				within(t, 10*time.Second, "Open", func() { _, err = Open(t.Context(), js, "") })
				if !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want ErrServer with %q", err, test.want)
				}
			})
		})
	}
}

func TestIllegalNames(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		ns := openNamespace(t, s.Connect(t), "")
		if ns.Name() != DefaultNamespace {
			t.Errorf("default namespace %q", ns.Name())
		}
		for _, name := range []string{"A", "a.b", "a b", strings.Repeat("a", 33)} {
			if _, err := Open(t.Context(), ns.JetStream(), name); !isNameError(err) {
				t.Errorf("namespace %q: %v", name, err)
			}
		}
		for _, name := range []string{"", "a.b", "*", ">", "a b", "ä", strings.Repeat("a", 65)} {
			_, created := ns.CreateQueue(t.Context(), name, Config{})
			_, opened := ns.Queue(t.Context(), name)
			if deleted := ns.DeleteQueue(t.Context(), name); !isNameError(created) || !isNameError(opened) || !isNameError(deleted) {
				t.Errorf("queue %q: %v, %v, %v", name, created, opened, deleted)
			}
		}
		if _, err := ns.CreateQueue(t.Context(), "media", Config{AckWait: time.Second}); err == nil || !strings.Contains(err.Error(), "at least 3s") {
			t.Errorf("ack wait of a second: %v", err)
		}
	})
}

func isNameError(err error) bool {
	_, ok := errors.AsType[*job.NameError](err)
	return ok
}

// Meta is the first message, by which each delivery stays fast, and stays when everything else is gone.
func TestMetaIsTheSentinel(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		created := time.Now().UTC()
		c := tap(t, q)
		for range 3 {
			put(t, q, newEntry())
			if err := c.take(t).Ack(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		s, err := q.ns.js.Stream(t.Context(), "ASYNC_media")
		if err != nil {
			t.Fatal(err)
		}
		if state := s.CachedInfo().State; state.FirstSeq != 1 || state.Msgs != 1 || state.LastSeq != 4 {
			t.Errorf("state %+v", state)
		}
		first, err := s.GetMsg(t.Context(), 1)
		if err != nil || first.Subject != "async.media.meta" {
			t.Fatalf("first message %+v, %v", first, err)
		}
		want := Meta{Version: 1, Kind: "jobs", AckWait: Duration(DefaultAckWait), Created: created}
		var got Meta
		if err := json.Unmarshal(first.Data, &got); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: %v (-want +got):\n%s", first.Data, err, cmp.Diff(want, got))
		}
	})
}

// Who creates a queue that exists gets it as it is.
func TestCreateQueueAgain(t *testing.T) {
	inBubbleWith(t, Config{AckWait: time.Minute}, func(t *testing.T, s *natstest.Server, q *Queue) {
		putNew(t, q)
		edit(t, q, func(c *jetstream.StreamConfig) {
			c.Description, c.Metadata, c.MaxMsgSize = "mine", map[string]string{"team": "x"}, 4000
		})
		before := streamOf(t, q)
		for _, c := range []Config{{}, {AckWait: time.Minute}, {AckWait: 2 * time.Hour}} {
			again := createQueue(t, s.Connect(t), c)
			if got := again.AckWait(); got != time.Minute {
				t.Errorf("created with %v: ack wait %v, want that of the first", c.AckWait, got)
			}
		}
		opened, err := openNamespace(t, s.Connect(t), "").Queue(t.Context(), "media")
		if err != nil || opened.AckWait() != time.Minute || opened.Name() != "media" {
			t.Errorf("opened %+v, %v", opened, err)
		}
		if diff := cmp.Diff(before, streamOf(t, q)); diff != "" {
			t.Errorf("the stream was altered (-before +after):\n%s", diff)
		}
		wantMessages(t, q, 1)
	})
}

func TestCreateQueueAtOnce(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		queues := make([]*Queue, 8)
		var wg sync.WaitGroup
		for i := range queues {
			ns := openNamespace(t, s.Connect(t), "")
			wg.Go(func() {
				var err error
				if queues[i], err = ns.CreateQueue(t.Context(), "media", Config{AckWait: time.Duration(10+i) * time.Second}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i, q := range queues {
			if diff := cmp.Diff(queues[0].meta, q.meta); diff != "" {
				t.Errorf("creators 0 and %d disagree (-0 +%d):\n%s", i, i, diff)
			}
		}
		wantMessages(t, queues[0], 0)
	})
}

func TestForeignStream(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		ns := openNamespace(t, s.Connect(t), "")
		if _, err := ns.js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: "ASYNC_media", Subjects: []string{"photos.>"}, MaxAge: time.Hour,
		}); err != nil {
			t.Fatal(err)
		}
		_, created := ns.CreateQueue(t.Context(), "media", Config{})
		_, opened := ns.Queue(t.Context(), "media")
		for _, err := range []error{created, opened} {
			found, ok := errors.AsType[*ConfigError](err)
			if !ok || found.What != "stream ASYNC_media" || len(found.Problems) != 12 {
				t.Errorf("%v, want a ConfigError with everything that is wrong", err)
			}
		}
		if _, ok := errors.AsType[*ConfigError](ns.DeleteQueue(t.Context(), "media")); !ok {
			t.Error("deleted what is somebody else's")
		}
		if queues, err := ns.Queues(t.Context()); len(queues) > 0 || err != nil {
			t.Errorf("listed as queue: %q, %v", queues, err)
		}
		if info, err := ns.js.Stream(t.Context(), "ASYNC_media"); err != nil || info.CachedInfo().State.Msgs != 0 {
			t.Errorf("written to: %v", err)
		}
	})
}

// A queue that was purged, against all advice, gets its meta message again when it is opened.
func TestPurged(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		handle, err := q.ns.js.Stream(t.Context(), "ASYNC_media")
		if err != nil {
			t.Fatal(err)
		}
		if err := handle.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		opened, err := openNamespace(t, s.Connect(t), "").Queue(t.Context(), "media")
		if err != nil || opened.AckWait() != DefaultAckWait {
			t.Fatalf("%v, %v", opened, err)
		}
		e := putNew(t, opened)
		if l := tap(t, opened).take(t); l.ID != e.ID {
			t.Errorf("brought %s, want %s", l.ID, e.ID)
		}
		wantMessages(t, opened, 1)
	})
}

// Meta messages of releases to come, or written by hand, are not guessed at.
func TestForeignMeta(t *testing.T) {
	tests := map[string]string{
		`{"v":2,"kind":"jobs","ack_wait":"15s"}`:  "upgrade",
		`{"v":1,"kind":"other","ack_wait":"15s"}`: "upgrade",
		`{"v":1,"kind":"jobs","ack_wait":"1s"}`:   "at least 3s",
		`{"v":1,"kind":"jobs","ack_wait":"soon"}`: "cannot be read",
		`hello`: "cannot be read",
	}
	for meta, want := range tests {
		inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
			if _, err := q.ns.js.Publish(t.Context(), q.names.meta(), []byte(meta)); err != nil {
				t.Fatal(err)
			}
			if _, err := q.ns.Queue(t.Context(), "media"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", meta, err, want)
			}
		})
	}
}

func TestNoQueue(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		ns := openNamespace(t, s.Connect(t), "")
		_, err := ns.Queue(t.Context(), "media")
		if !errors.Is(err, ErrNoQueue) || !strings.Contains(err.Error(), "asyncnats queue add media") {
			t.Errorf("%v, want ErrNoQueue with advice", err)
		}
		if err := ns.DeleteQueue(t.Context(), "media"); !errors.Is(err, ErrNoQueue) {
			t.Errorf("delete: %v, want ErrNoQueue", err)
		}
	})
}

// Of a deleted queue nothing is left, and what is beside it stays.
func TestDeleteQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		other, err := q.ns.CreateQueue(t.Context(), "other", Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range []*Queue{q, other} {
			e := chosen("mine", task)
			put(t, q, e)
			complete(t, q, e, job.Completed)
		}
		if err := q.ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Fatal(err)
		}
		if _, err := q.ns.Queue(t.Context(), "media"); !errors.Is(err, ErrNoQueue) {
			t.Errorf("still there: %v", err)
		}
		for q, want := range map[*Queue]int{q: 0, other: 1} {
			lanes, err := q.Lanes(t.Context())
			if len(lanes) != want || err != nil {
				t.Errorf("queue %s has lanes %v, %v", q.Name(), lanes, err)
			}
			if _, _, found, err := q.Record(t.Context(), "mine"); found != (want == 1) || err != nil {
				t.Errorf("queue %s: record found: %v, %v", q.Name(), found, err)
			}
		}
		wantMessages(t, other, 1)
	})
}

func TestNamespacesAreSeparate(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		nc := s.Connect(t)
		want := map[string][]string{"": {"default", "media"}, "a": {"B_c", "media"}, "a_b": {"d"}, "none": nil}
		for _, name := range []string{"", "a", "a_b", "none"} {
			ns := openNamespace(t, nc, name)
			for _, queue := range want[name] {
				q, err := ns.CreateQueue(t.Context(), queue, Config{})
				if err != nil {
					t.Fatal(err)
				}
				e := chosen("mine", task)
				put(t, q, e)
				if _, err := q.Write(t.Context(), e.ID, recordOf(e, job.Active), 0, job.KeepDefault); err != nil {
					t.Errorf("%s, %s: %v", name, queue, err)
				}
				wantMessages(t, q, 1)
			}
		}
		for name, queues := range want {
			if got, err := openNamespace(t, nc, name).Queues(t.Context()); err != nil || !cmp.Equal(got, queues) {
				t.Errorf("namespace %q has %q, %v, want %q", name, got, err, queues)
			}
		}
		// The one pair of names that meets in a stream's name is refused, and not deleted by the wrong hand.
		ns := openNamespace(t, nc, "a_b")
		_, err := ns.CreateQueue(t.Context(), "c", Config{})
		for _, err := range []error{err, ns.DeleteQueue(t.Context(), "c")} {
			if _, ok := errors.AsType[*ConfigError](err); !ok {
				t.Errorf("%v, want a ConfigError", err)
			}
		}
	})
}

// A namespace whose bucket somebody else made in a way that cannot serve is refused.
func TestForeignBucket(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		js := s.JetStream(t)
		if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "ASYNC_JOBS"}); err != nil {
			t.Fatal(err)
		}
		ns, err := Open(t.Context(), js, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ns.CreateQueue(t.Context(), "default", Config{}); err == nil || !strings.Contains(err.Error(), "use another namespace") {
			t.Errorf("%v, want advice", err)
		}
		if _, err := kv.Create(t.Context(), js, kv.Config{Bucket: "ASYNC_OTHER"}, kv.JSON[string]()); err != nil {
			t.Error(err)
		}
	})
}

func streamOf(t *testing.T, q *Queue) jetstream.StreamConfig {
	t.Helper()
	s, err := q.ns.js.Stream(t.Context(), q.names.stream())
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

// Only creating a queue writes: a namespace that is merely looked at, perhaps by a wrong name, leaves nothing behind.
func TestLookingWritesNothing(t *testing.T) {
	natstest.RunWith(t, nil, func(t *testing.T, s *natstest.Server) {
		js := s.JetStream(t)
		ns, err := Open(t.Context(), js, "typo")
		if err != nil {
			t.Fatal(err)
		}
		if queues, err := ns.Queues(t.Context()); err != nil || len(queues) != 0 {
			t.Errorf("queues %v, %v", queues, err)
		}
		if _, err := ns.Queue(t.Context(), "default"); !errors.Is(err, ErrNoQueue) {
			t.Errorf("%v, want ErrNoQueue", err)
		}
		for name := range js.StreamNames(t.Context()).Name() {
			t.Errorf("stream %s was made", name)
		}
	})
}

// A stream that was just made may not answer yet.
func TestMetaIsAwaited(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		late := &Queue{ns: q.ns, names: names{q.names.namespace, "late"}}
		if _, err := late.last(t.Context(), late.names.meta()); !errors.Is(err, nats.ErrNoResponders) {
			t.Fatalf("%v, want that nobody answers", err)
		}
		time.AfterFunc(time.Second, func() {
			if _, err := q.ns.CreateQueue(t.Context(), "late", Config{}); err != nil {
				t.Error(err)
			}
		})
		within(t, time.Second+time.Millisecond*100, "the meta message", func() {
			if meta, err := late.readMeta(t.Context(), Config{}); err != nil || meta.Kind != "jobs" {
				t.Errorf("%+v, %v", meta, err)
			}
		})
		never := &Queue{ns: q.ns, names: names{q.names.namespace, "never"}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		within(t, q.ns.js.Options().DefaultTimeout, "without a stream", func() {
			if _, err := never.readMeta(ctx, Config{}); !errors.Is(err, ErrUnanswered) {
				t.Errorf("%v, want ErrUnanswered", err)
			}
		})
	})
}

// A cluster that elects its leader is asked again; not for ever.
func TestOpenWhileElecting(t *testing.T) {
	const electing = `{"type":"io.nats.jetstream.api.v1.account_info_response","error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`
	for name, row := range map[string]struct {
		refusals int
		within   time.Duration
		answered bool
	}{
		"for a while": {10, time.Second, true},
		"too long":    {1000, 5 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			natstest.Run(t, func(t *testing.T, s *natstest.Server) {
				asked := 0
				if _, err := s.Connect(t).Subscribe("$JS.electing.API.INFO", func(msg *nats.Msg) {
					answer := `{"type":"io.nats.jetstream.api.v1.account_info_response"}`
					if asked++; asked <= row.refusals {
						answer = electing
					}
					_ = msg.Respond([]byte(answer))
				}); err != nil {
					t.Fatal(err)
				}
				js, err := jetstream.NewWithDomain(s.Connect(t), "electing")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				within(t, row.within, name, func() {
					if err := checkServer(t.Context(), js); (err == nil) != row.answered {
						t.Error(err)
					}
				})
			})
		})
	}
}
