package stream

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// A wire that is cut at any moment of a put, and comes back, costs time; it neither loses nor doubles the job.
func TestPutOverCutWire(t *testing.T) {
	const rounds = 300
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		random := rand.New(rand.NewPCG(seed, 0))
		faulty, wire := wired(t, s)
		if err := faulty.Register(t.Context(), lane); err != nil {
			t.Fatal(err)
		}
		repeated := 0
		for round := range rounds {
			entries := []Entry{newEntry()}
			switch round % 3 {
			case 1:
				entries[0].Chosen = true
			case 2:
				entries = append(entries, newEntry(), newEntry())
			}
			answer := make(chan error, 1)
			begin := time.Now()
			go func() {
				stored, err := faulty.PutMany(t.Context(), entries)
				if err == nil && stored != len(entries) {
					t.Errorf("%d stored, want %d", stored, len(entries))
				}
				answer <- err
			}()
			for range random.IntN(400) {
				runtime.Gosched() // nothing else lets a put get halfway while time stands still
			}
			wire.Cut()
			outage := []time.Duration{0, 0, time.Millisecond, 5 * time.Second}
			time.Sleep(outage[random.IntN(len(outage))])
			wire.Restore()
			if err := <-answer; err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if time.Since(begin) >= tryPatience {
				repeated++
			}
			for _, e := range entries {
				if found, err := q.Find(t.Context(), e.ID); err != nil || !sameNonce(found, e) {
					t.Fatalf("round %d: job not stored: %v", round, err)
				}
			}
			wantMessages(t, q, len(entries))
			empty(t, q)
			time.Sleep(time.Second) // the wire is whole again
		}
		if repeated == 0 || repeated == rounds {
			t.Errorf("%d of %d puts were repeated: the faults miss", repeated, rounds)
		}
	})
}

// yields is how often others are let run until do has returned.
func yields(do func()) (n int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for {
		select {
		case <-done:
			return n
		default:
			runtime.Gosched()
			n++
		}
	}
}

// So does a job that takes the place of another, in one write or in two, whichever of its
// many requests is lost.
func TestReplaceOverCutWire(t *testing.T) {
	const rounds = 300
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		random := rand.New(rand.NewPCG(seed, 0))
		faulty, wire := wired(t, s)
		put(t, q, chosen("me", task))
		whole := math.MaxInt // of some, since others may run beside one
		for range 5 {
			whole = min(whole, yields(func() {
				if err := faulty.Replace(t.Context(), chosen("me", task)); err != nil {
					t.Error(err)
				}
			}))
		}
		repeated := 0
		for round := range rounds {
			e := chosen("me", task)
			if round%2 == 0 {
				e.Spec.Begin = time.Now().Add(24 * time.Hour)
			}
			answer := make(chan error, 1)
			begin := time.Now()
			go func() { answer <- faulty.Replace(t.Context(), e) }()
			for range random.IntN(2 * whole) {
				runtime.Gosched() // as above
			}
			wire.Cut()
			wire.Restore()
			if err := <-answer; err != nil {
				t.Fatalf("round %d: after %v: %v", round, time.Since(begin), err)
			}
			if time.Since(begin) >= tryPatience {
				repeated++
			}
			if found, err := q.Find(t.Context(), e.ID); err != nil || !sameNonce(found, e) {
				t.Fatalf("round %d: job not stored: %v", round, err)
			}
			wantMessages(t, q, 1)
			time.Sleep(time.Second) // the wire is whole again
		}
		if repeated == 0 || repeated == rounds {
			t.Errorf("%d of %d were repeated: the faults miss", repeated, rounds)
		}
	})
}

// The first try arrives and its answer does not; by the time that the putter can ask, the job is over.
func TestPutLostAndCompletedMeanwhile(t *testing.T) {
	outages := map[string]time.Duration{
		"shorter than a try":      time.Second,
		"as long as several":      10 * time.Second,
		"as long as the patience": putPatience - 2*tryPatience,
	}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
				faulty, wire := wired(t, s)
				if err := faulty.Register(t.Context(), lane); err != nil {
					t.Fatal(err)
				}
				lone, first, second := chosen("mine", task), newEntry(), newEntry()
				wire.Freeze()
				answers := make(chan error, 2)
				go func() { answers <- faulty.Put(t.Context(), lone) }()
				go func() {
					_, err := faulty.PutMany(t.Context(), []Entry{first, second})
					answers <- err
				}()
				time.Sleep(time.Millisecond)
				// What the frozen wire holds is lost when it is cut. This is what the server would have got of it,
				// and what a dispatcher would have made of that.
				for _, e := range []Entry{lone, first, second} {
					put(t, q, e)
					complete(t, q, e, job.Completed)
				}
				empty(t, q)
				wire.Cut()
				wire.Thaw()
				time.Sleep(outage)
				wire.Restore()
				for range 2 {
					if err := <-answers; err != nil {
						t.Error(err)
					}
				}
				wantMessages(t, q, 0)
			})
		})
	}
}

// A repeated put says so, and whoever claims it looks at the record first.
func TestPutAgainIsMarked(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		faulty, wire := wired(t, s)
		if err := faulty.Register(t.Context(), lane); err != nil {
			t.Fatal(err)
		}
		for _, entries := range [][]Entry{{newEntry()}, {newEntry(), newEntry()}} {
			wire.Freeze()
			answer := make(chan error, 1)
			go func() {
				_, err := faulty.PutMany(t.Context(), entries)
				answer <- err
			}()
			time.Sleep(time.Millisecond)
			wire.Cut()
			wire.Thaw()
			wire.Restore()
			if err := <-answer; err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				found, err := q.Find(t.Context(), e.ID)
				if spec, _ := found.Spec(); err != nil || !spec.Again {
					t.Errorf("%+v, %v: want one that is marked", spec, err)
				}
			}
		}
		first, err := q.Find(t.Context(), putNew(t, q).ID)
		if spec, _ := first.Spec(); err != nil || spec.Again {
			t.Errorf("%+v, %v: want one that is not", spec, err)
		}
	})
}

func TestPermissions(t *testing.T) {
	tests := map[string]struct {
		denied string
		call   func(context.Context, *Queue) error
		want   string
	}{
		"put": {"async.media.job.>", func(ctx context.Context, q *Queue) error {
			return q.Put(ctx, chosen("mine", task))
		}, "async.media.job.image=thumb.mine"},
		"put many": {"async.media.job.>", func(ctx context.Context, q *Queue) error {
			_, err := q.PutMany(ctx, []Entry{chosen("mine", task), newEntry()})
			return err
		}, "async.media.job.image=thumb.mine"},
		"register a lane": {"$KV.ASYNC_DISPATCHERS.>", func(ctx context.Context, q *Queue) error {
			return q.Put(ctx, newEntry())
		}, "$KV.ASYNC_DISPATCHERS.lane.media.image=thumb"},
		"create a queue": {"$JS.API.STREAM.CREATE.>", func(ctx context.Context, q *Queue) error {
			_, err := q.ns.CreateQueue(ctx, "other", Config{})
			return err
		}, "$JS.API.STREAM.CREATE.ASYNC_other"},
		"make a consumer": {"$JS.API.CONSUMER.CREATE.>", func(ctx context.Context, q *Queue) error {
			_, err := q.Tap(ctx, lane, NewLink(q.conn(), time.Second), Sink{})
			return err
		}, "$JS.API.CONSUMER.CREATE.ASYNC_media.image=thumb"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			configure, login := withUser(test.denied)
			natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
				createQueue(t, s.Connect(t, asAdmin), Config{})
				q, err := openNamespace(t, s.Connect(t, login, quiet), "").Queue(t.Context(), "media")
				if err != nil {
					t.Fatal(err)
				}
				within(t, 10*time.Second, name, func() { err = test.call(t.Context(), q) })
				if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want ErrPermission for %s", err, test.want)
				}
			})
		})
	}
}

// What the server once refused of something else does not end the patience of a put.
func TestPutAfterOtherViolation(t *testing.T) {
	configure, login := withUser("forbidden")
	natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
		nc, wire := s.ConnectWire(t, login, quiet)
		q := createQueue(t, nc, Config{})
		if err := q.Register(t.Context(), lane); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(nc.Publish("forbidden", nil), nc.Flush()); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(nc.LastError(), nats.ErrPermissionViolation) {
			t.Fatalf("last error %v", nc.LastError())
		}
		wire.Freeze()
		time.AfterFunc(10*time.Second, wire.Thaw)
		for _, entries := range [][]Entry{{newEntry()}, {newEntry(), newEntry()}} {
			if _, err := q.PutMany(t.Context(), entries); err != nil {
				t.Error(err)
			}
			wire.Freeze()
			time.AfterFunc(10*time.Second, wire.Thaw)
		}
		if err := q.Put(t.Context(), chosen("", "another.task")); err != nil {
			t.Error(err)
		}
	})
}

// A queue that was deleted is an error, soon.
func TestPutToDeletedQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		putNew(t, q)
		if err := createQueue(t, s.Connect(t), Config{}).ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Fatal(err)
		}
		puts := map[string]func() error{
			"put":      func() error { return q.Put(t.Context(), newEntry()) },
			"put many": func() error { _, err := q.PutMany(t.Context(), []Entry{newEntry(), newEntry()}); return err },
		}
		for name, put := range puts {
			within(t, 5*time.Second, name, func() {
				if err := put(); !errors.Is(err, ErrNoQueue) || !strings.Contains(err.Error(), "asyncnats queue add media") {
					t.Errorf("%s: %v, want ErrNoQueue with advice", name, err)
				}
			})
		}
	})
}

func sameNonce(found Stored, e Entry) bool {
	spec, err := found.Spec()
	return err == nil && spec.Nonce == e.Spec.Nonce
}

// empty removes all jobs, as acks do.
func empty(t *testing.T, q *Queue) {
	t.Helper()
	s, err := q.ns.js.Stream(t.Context(), q.names.stream())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject(q.names.jobs())); err != nil {
		t.Fatal(err)
	}
}
