package stories

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// TestBroadcastRepliesOfOneThatNeverBegan has whoever takes the replies to a broadcast
// learn that there will be none: it was cancelled, or had expired, before it began.
func TestBroadcastRepliesOfOneThatNeverBegan(t *testing.T) {
	type broadcast = *asyncnats.Job[map[string]asyncnats.Outcome[string]]
	for what, row := range map[string]struct {
		call asyncnats.Call[map[string]asyncnats.Outcome[string]]
		end  func(*fleet, broadcast)
		want job.Kind
	}{
		"cancelled": {
			call: asyncnats.ToAll(whoami.Call("hi")).In(time.Hour),
			end: func(f *fleet, j broadcast) {
				if _, err := j.Cancel(f.Context()); err != nil {
					f.Fatal(err)
				}
			},
			want: job.KindCancelled,
		},
		"expired": {
			call: asyncnats.ToAll(whoami.Call("hi")).In(time.Minute).Within(time.Second),
			end: func(f *fleet, _ broadcast) {
				for id := range f.crew {
					f.crew[id].wire.Freeze()
				}
				time.Sleep(2 * time.Minute)
				for id := range f.crew {
					f.crew[id].wire.Thaw()
				}
			},
			want: job.KindExpired,
		},
	} {
		t.Run(what, func(t *testing.T) {
			muster(t, func(f *fleet) {
				f.join()
				f.join()
				j, err := asyncnats.Put(f.Context(), f.queue, row.call)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(f.Context(), 10*time.Minute)
				defer cancel()
				told := make(chan error, 1)
				go func() { // who waits already
					_, err := asyncnats.WaitReplies(ctx, j, 1)
					told <- err
				}()
				time.Sleep(time.Second)
				row.end(f, j)
				_, later := asyncnats.WaitReplies(ctx, j, 1)
				if _, err := asyncnats.Expected(ctx, j); !errors.As(err, new(*job.Failure)) {
					t.Errorf("expected: %v, want its failure", err)
				}
				for who, err := range map[string]error{"waited": <-told, "came later": later} {
					if failure, ok := errors.AsType[*job.Failure](err); !ok || failure.Kind != row.want {
						t.Errorf("who %s was told %v, want %s", who, err, row.want)
					}
				}
			})
		})
	}
}

// TestBroadcastRepliesOfOneWithoutCopies has a broadcast end when it has begun and no
// copy of it was put: whoever takes the replies learns that there will be none.
func TestBroadcastRepliesOfOneWithoutCopies(t *testing.T) {
	muster(t, func(f *fleet) {
		var record atomic.Pointer[string] // its subject ends so
		var wire *natstest.Wire
		died := make(chan struct{})
		f.through(func(request *nats.Msg) bool {
			if end := record.Load(); end != nil && strings.HasSuffix(request.Subject, *end) {
				record.Store(nil)
				wire.Cut() // the record arrives yet
				close(died)
			}
			return false
		})
		id := f.joinAs(uuid.New(), func(c *dispatcher.Config) { c.Domain = relayed })
		wire = f.crew[id].wire
		j, err := asyncnats.Put(f.Context(), f.queue, asyncnats.ToAll(whoami.Call("hi")).In(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		end := "$KV.ASYNC_JOBS.fleet." + string(j.ID())
		record.Store(&end)
		<-died
		time.Sleep(time.Second)
		if was, err := j.Cancel(f.Context()); was != job.Waiting || err != nil {
			t.Errorf("it was %s, %v; want waiting", was, err)
		}
		wire.Restore()
		ctx, cancel := context.WithTimeout(f.Context(), 10*time.Minute)
		defer cancel()
		_, err = asyncnats.WaitReplies(ctx, j, 1)
		if failure, ok := errors.AsType[*job.Failure](err); !ok || failure.Kind != job.KindCancelled {
			t.Errorf("told %v, want that it is cancelled", err)
		}
		if to, err := asyncnats.Expected(f.Context(), j); len(to) != 1 || err != nil {
			t.Errorf("expected %v, %v", to, err)
		}
	})
}
