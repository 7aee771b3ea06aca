package stream

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// tapLane is tap for any lane.
func tapLane(t *testing.T, q *Queue, lane Lane) *tapped {
	t.Helper()
	c := tap(t, q)
	opened, err := q.Tap(t.Context(), lane, c.link, c.collector.sink())
	if err != nil {
		t.Fatal(err)
	}
	c.Tap = opened
	return c
}

func messagesOf(t *testing.T, sub *nats.Subscription) int {
	t.Helper()
	n, _, err := sub.Pending()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Jobs that name quotas have a lane of their own, which is registered with the
// quotas' names.
func TestQuotaLane(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := limited("")
		put(t, q, newEntry(), e)
		lanes, err := q.Lanes(t.Context())
		if err != nil || !slices.Equal(lanes, []Lane{lane, quotaLane}) {
			t.Errorf("lanes %v, %v", lanes, err)
		}
		entry, err := q.lanes.Get(t.Context(), "lane.media.image=thumb==db==gpu")
		if want := (laneEntry{Task: task, Quotas: []string{"db", "gpu"}, Created: time.Now().UTC()}); err != nil || !cmp.Equal(want, entry.Value) {
			t.Errorf("registered as %+v, %v", entry.Value, err)
		}
		found, err := q.Find(t.Context(), e.ID)
		if err != nil || found.Lane != quotaLane {
			t.Errorf("stored on %v, %v", found.Lane, err)
		}
		if l := tapLane(t, q, quotaLane).take(t); l.ID != e.ID || !slices.Equal(l.Lane.Quotas(), []string{"db", "gpu"}) {
			t.Errorf("brought %s of lane %s", l.ID, l.Lane.Token())
		}
		if got := consumerOf(t, q, quotaLane).MaxAckPending; got != 2 {
			t.Errorf("flow %d before anybody set it", got)
		}
		if l := tap(t, q).take(t); l.ID == e.ID {
			t.Error("brought by the lane of jobs without quotas")
		}
		if got := consumerOf(t, q, lane).MaxAckPending; got != -1 {
			t.Errorf("flow %d of a lane without quotas", got)
		}
	})
}

// A put whose quotas make no lane is refused before anything is stored.
func TestPutWithIllegalQuotas(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for _, quotas := range [][]string{{"gpu", "db"}, {"gpu", "gpu"}, {"a.b"}, {""}, {"a=b"}, slices.Repeat([]string{"x"}, 2)} {
			e := newEntry()
			e.Spec.Quotas = quotas
			if err := q.Put(t.Context(), e); err == nil {
				t.Errorf("%q: no error", quotas)
			}
			if _, err := q.PutMany(t.Context(), []Entry{newEntry(), e}); err == nil {
				t.Errorf("%q in a batch: no error", quotas)
			}
		}
		wantMessages(t, q, 0)
	})
}

// A body by hand need not repeat what its lane says, and must not contradict
// it.
func TestBodyByHand(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		for i, row := range []struct {
			lane Lane
			body string
			want string // of the error, empty for none
		}{
			{quotaLane, `{}`, ""},
			{quotaLane, `{"arg":"cat.png"}`, ""},
			{quotaLane, `{"quotas":["db","gpu"]}`, ""},
			{quotaLane, `{"quotas":null}`, ""},
			{lane, `{"arg":1}`, ""},
			{lane, `{"quotas":[]}`, ""},
			{quotaLane, `{"quotas":["gpu"]}`, `body names quotas ["gpu"] and was published on a lane with quotas ["db" "gpu"]`},
			{quotaLane, `{"quotas":[]}`, `body names quotas [] and was published on a lane with quotas ["db" "gpu"]`},
			{quotaLane, `{"quotas":["gpu","db"]}`, "must be sorted"},
			{lane, `{"quotas":["gpu"]}`, `body names quotas ["gpu"] and was published on a lane with quotas []`},
		} {
			id := job.ID(fmt.Sprint("hand-", i))
			if _, err := q.ns.js.Publish(t.Context(), q.names.job(row.lane, id), []byte(row.body)); err != nil {
				t.Fatal(err)
			}
			found, err := q.Find(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			spec, err := found.Spec()
			switch {
			case row.want == "" && (err != nil || !slices.Equal(spec.Quotas, row.lane.Quotas())):
				t.Errorf("%s on %s: quotas %q, %v", row.body, row.lane.Token(), spec.Quotas, err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("%s on %s: %v, want %s", row.body, row.lane.Token(), err, row.want)
			}
		}
		// Nor must a body that a program wrote.
		e := limited("")
		body, err := job.EncodeSpec(e.Spec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (Stored{Lane: lane, Body: body}).Spec(); err == nil || !strings.Contains(err.Error(), "body names quotas") {
			t.Errorf("msgpack on another lane: %v", err)
		}
		if spec, err := (Stored{Lane: quotaLane, Body: body}).Spec(); err != nil || !slices.Equal(spec.Quotas, []string{"db", "gpu"}) {
			t.Errorf("msgpack: %q, %v", spec.Quotas, err)
		}
	})
}

// The bucket of quotas is made with the first queue, for atomic batches, and is
// left as it is by the next.
func TestQuotasBucket(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		found := func() jetstream.StreamConfig {
			s, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_QUOTAS")
			if err != nil {
				t.Fatal(err)
			}
			return s.CachedInfo().Config
		}
		if c := found(); !c.AllowAtomicPublish || !c.AllowMsgTTL || !c.AllowDirect || c.MaxMsgsPerSubject != 1 || c.Storage != jetstream.FileStorage {
			t.Errorf("made with %+v", c)
		}
		config := found()
		config.Description = "mine"
		if _, err := q.ns.js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		if _, err := q.ns.CreateQueue(t.Context(), "other", Config{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(config, found()); diff != "" {
			t.Errorf("altered (-before +after):\n%s", diff)
		}
	})
}

// A queue is deleted with its quotas, and with no other's.
func TestDeleteQueueWithQuotas(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		if _, err := q.ns.CreateQueue(t.Context(), "media2", Config{}); err != nil {
			t.Fatal(err)
		}
		store, err := q.ns.js.KeyValue(t.Context(), "ASYNC_QUOTAS")
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"media.db", "media.gpu", "media2.gpu", "default.media"} {
			if _, err := store.PutString(t.Context(), key, "x"); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Fatal(err)
		}
		keys, err := store.Keys(t.Context())
		slices.Sort(keys)
		if err != nil || !slices.Equal(keys, []string{"default.media", "media2.gpu"}) {
			t.Errorf("left are %q, %v", keys, err)
		}
	})
}

// A job is gone when no message of it is left, in whatever part of the queue,
// and that of a later job with the same ID is not its own.
func TestGone(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		gone := func(what string, id job.ID, nonce job.Nonce, want bool) {
			t.Helper()
			if got, err := q.Gone(t.Context(), id, nonce); got != want || err != nil {
				t.Errorf("%s: %t, %v; want %t", what, got, err, want)
			}
		}
		for _, e := range []Entry{newEntry(), limited("mine")} {
			gone("never put", e.ID, e.Spec.Nonce, true)
			put(t, q, e)
			gone("pending", e.ID, e.Spec.Nonce, false)
			gone("another nonce", e.ID, job.NewNonce(), true)
		}
		// On other subjects of the queue, as a retry or a parent waits.
		for _, subject := range []string{q.names.subject("later", quotaLane.Token(), "late"), q.names.subject("wait", quotaLane.Token(), "parked")} {
			e := limited("x")
			body, err := job.EncodeSpec(e.Spec)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := q.ns.js.Publish(t.Context(), subject, body); err != nil {
				t.Fatal(err)
			}
			id := job.ID(subject[strings.LastIndex(subject, ".")+1:])
			gone(subject, id, e.Spec.Nonce, false)
			gone(subject+", another nonce", id, job.NewNonce(), true)
		}
		// One that is performed is there until it is acked.
		e := limited("performed")
		put(t, q, e)
		c := tapLane(t, q, quotaLane)
		for {
			lease := c.take(t)
			gone("performed", lease.ID, mustSpec(t, lease.Stored).Nonce, false)
			if err := lease.Ack(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			gone("acked", lease.ID, mustSpec(t, lease.Stored).Nonce, true)
			if lease.ID == e.ID {
				break
			}
		}
		// A body by hand has a nonce of its place.
		if _, err := q.ns.js.Publish(t.Context(), q.names.job(quotaLane, "hand"), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		found, err := q.Find(t.Context(), "hand")
		if err != nil {
			t.Fatal(err)
		}
		gone("by hand", "hand", mustSpec(t, found).Nonce, false)
		gone("by hand, another nonce", "hand", job.NewNonce(), true)

		// Where it is not known, nothing is said.
		if _, err := q.ns.js.Publish(t.Context(), "async.media.job.il/legal.odd", nil); err != nil {
			t.Fatal(err)
		}
		if got, err := q.Gone(t.Context(), "odd", job.NewNonce()); got || err == nil {
			t.Errorf("an illegal subject: %t, %v", got, err)
		}
		cut, wire := wired(t, s)
		wire.Freeze()
		if got, err := cut.Gone(t.Context(), "never", job.NewNonce()); got || !errors.Is(err, ErrUnanswered) {
			t.Errorf("no answer: %t, %v", got, err)
		}
		if err := q.ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Fatal(err)
		}
		gone("the queue is deleted", "hand", mustSpec(t, found).Nonce, true)
	})
}

func mustSpec(t *testing.T, s Stored) job.Spec {
	t.Helper()
	spec, err := s.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// A queue that may not be read is not taken for empty.
func TestGoneIsDenied(t *testing.T) {
	configure, login := withUser("$JS.API.STREAM.MSG.GET.>")
	natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
		q := createQueue(t, s.Connect(t, asAdmin), Config{})
		denied, err := openNamespace(t, s.Connect(t, login, quiet), "").Queue(t.Context(), "media")
		if err != nil {
			t.Fatal(err)
		}
		put(t, q, limited("mine"))
		if got, err := denied.Gone(t.Context(), "mine", job.NewNonce()); got || !errors.Is(err, ErrPermission) {
			t.Errorf("%t, %v; want ErrPermission", got, err)
		}
	})
}
