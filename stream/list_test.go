package stream

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func TestJobs(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		list := func(first int) []job.ID {
			t.Helper()
			var jobs []Stored
			for page, err := range q.Jobs(t.Context(), OnHand, first) {
				if err != nil {
					t.Fatal(err)
				}
				jobs = append(jobs, page...)
			}
			return idsOf(jobs, func(s Stored) job.ID { return s.ID })
		}
		if got := list(10); len(got) > 0 {
			t.Errorf("of an empty queue: %v", got)
		}
		const n = pageSize + 500
		var want []job.ID
		entries := entriesOf(n)
		for i, e := range entries {
			if i%2 == 0 {
				entries[i].Spec.Task = "another.task"
			}
			want = append(want, e.ID)
		}
		if _, err := q.PutMany(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
		c := tap(t, q)
		c.take(t) // what is performed now is not completed
		for _, first := range []int{0, 1, 10, pageSize, pageSize + 1, n, n + 1} {
			if diff := cmp.Diff(want, list(first)); diff != "" {
				t.Errorf("in pages, of which the first has %d jobs (-want +got):\n%s", first, diff)
			}
		}
		pages := 0
		for page, err := range q.Jobs(t.Context(), OnHand, 5) {
			if pages++; err != nil || len(page) != []int{5, 20}[pages-1] {
				t.Errorf("page %d has %d jobs, %v", pages, len(page), err)
			}
			if pages == 2 {
				break
			}
		}
		if got := list(n); len(got) != n {
			t.Errorf("%d after a list that was left early, want %d", len(got), n)
		}
		if _, err := q.ns.js.Publish(t.Context(), "async.media.job.il/legal.x", nil); err != nil {
			t.Fatal(err)
		}
		if got := list(n + 1); len(got) != n {
			t.Errorf("%d with a stray, want %d", len(got), n)
		}
	})
}

// A server that falls silent is an error, not an empty list.
func TestListUnanswered(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		faulty, wire := wired(t, s)
		wire.Freeze()
		lists := map[string]func() error{
			"jobs":    func() error { return firstErr(faulty.Jobs(t.Context(), OnHand, 10)) },
			"records": func() error { _, err := faulty.PeekRecords(t.Context(), []job.ID{"a"}); return err },
			"recent":  func() error { _, err := faulty.Recent(t.Context(), 10, everything); return err },
			"between": func() error {
				_, _, err := faulty.between(t.Context(), "KV_ASYNC_JOBS", "$KV.ASYNC_JOBS.>", 1, 10)
				return err
			},
			"dead":   func() error { return firstErr(faulty.Dead(t.Context(), "")) },
			"oldest": func() error { return firstErr(faulty.OldestDead(t.Context(), task)) },
			"failed": func() error { _, err := faulty.DeadJob(t.Context(), "a"); return err },
			"info":   func() error { _, err := faulty.Info(t.Context(), time.Second); return err },
		}
		for name, list := range lists {
			within(t, 10*time.Second, name, func() {
				if err := list(); err == nil {
					t.Errorf("%s: no error", name)
				}
			})
		}
	})
}

func TestRecent(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		other, err := q.ns.CreateQueue(t.Context(), "other", Config{})
		if err != nil {
			t.Fatal(err)
		}
		list := func(limit int, keep func(KeptRecord) bool) []job.ID {
			t.Helper()
			records, err := q.Recent(t.Context(), limit, keep)
			if err != nil {
				t.Fatal(err)
			}
			return idsOf(records, func(r KeptRecord) job.ID { return r.ID })
		}
		if got := list(10, everything); len(got) > 0 {
			t.Errorf("of none: %v", got)
		}
		var want []job.ID // newest first
		write := func(q *Queue, id job.ID, state job.State) {
			t.Helper()
			complete(t, q, chosen(id, task), state)
			if q != other {
				want = slices.Insert(slices.DeleteFunc(want, func(old job.ID) bool { return old == id }), 0, id)
			}
		}
		for i := range 3 {
			write(q, job.ID(fmt.Sprintf("old-%d", i)), job.Active)
		}
		for i := range 2500 {
			write(other, job.ID(fmt.Sprintf("other-%d", i)), job.Completed)
		}
		for i := range 20 {
			write(q, job.ID(fmt.Sprintf("new-%d", i)), job.Completed)
		}
		write(q, "old-1", job.Completed) // the order is that of the last writes
		for _, limit := range []int{0, 1, 2, 20, 21, 22, 23, 1000} {
			if diff := cmp.Diff(want[:min(limit, len(want))], list(limit, everything), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("limit %d (-want +got):\n%s", limit, diff)
			}
		}
		active := func(r KeptRecord) bool { return r.Record.State == job.Active }
		if diff := cmp.Diff([]job.ID{"old-2"}, list(1, active)); diff != "" {
			t.Errorf("one that is active (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]job.ID{"old-2", "old-0"}, list(10, active)); diff != "" {
			t.Errorf("all that are active (-want +got):\n%s", diff)
		}
		// What cannot be read is left out.
		if _, err := q.ns.js.Publish(t.Context(), "$KV.ASYNC_JOBS.media.new-3", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got := list(1000, everything); len(got) != len(want)-1 || slices.Contains(got, "new-3") {
			t.Errorf("%d records, want %d", len(got), len(want)-1)
		}
	})
}

// The newest are found behind many of another queue, without reading all that lie
// before them.
func TestRecentBehindOthers(t *testing.T) {
	const older, newer, limit = 45_000, 14_000, 10
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		body, err := job.EncodeRecord(recordOf(chosen("me", task), job.Completed))
		if err != nil {
			t.Fatal(err)
		}
		for i := range older + newer {
			queue := "media"
			if i >= older {
				queue = "other"
			}
			subject := fmt.Sprintf("$KV.ASYNC_JOBS.%s.r-%d", queue, i)
			if i%1000 == 999 {
				_, err = q.ns.js.Publish(t.Context(), subject, body) // so that the server follows
			} else {
				err = q.conn().Publish(subject, body)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		before := q.conn().Stats().InMsgs
		records, err := q.Recent(t.Context(), limit, everything)
		if err != nil || len(records) != limit || records[0].ID != job.ID(fmt.Sprintf("r-%d", older-1)) {
			t.Errorf("%d records, %v", len(records), err)
		}
		if read := q.conn().Stats().InMsgs - before; read > 5*windowPages*pageSize {
			t.Errorf("%d messages were read", read)
		}
	})
}

// Records so large that the server ends a page early are all listed, some at a time.
func TestRecentLarge(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		const n = 30 * windowPages
		for i := range n {
			e := chosen(job.ID(fmt.Sprintf("r-%d", i)), task)
			record := recordOf(e, job.Completed)
			record.Outcome.Result = job.Value{Data: make([]byte, pageBytes/20)}
			if _, err := q.Write(t.Context(), e.ID, record, 0, job.KeepDefault); err != nil {
				t.Fatal(err)
			}
		}
		records, err := q.Recent(t.Context(), n, everything)
		if err != nil || len(records) != n {
			t.Errorf("%d records, %v, want %d", len(records), err, n)
		}
		found, err := q.read(t.Context(), "KV_ASYNC_JOBS", "$KV.ASYNC_JOBS.media.*", 1, n)
		if err != nil || len(found) != n {
			t.Errorf("read %d messages, %v, want %d", len(found), err, n)
		}
		most := windowPages * pageBytes
		found, bytes, err := q.between(t.Context(), "KV_ASYNC_JOBS", "$KV.ASYNC_JOBS.media.*", 1, 1_000_000)
		if err != nil || bytes <= most || bytes > most+pageBytes {
			t.Errorf("read %d messages of %d bytes, %v; want little more than %d", len(found), bytes, err, most)
		}
	})
}

func TestInfo(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		created := time.Now().UTC()
		for range 5 {
			putNew(t, q)
		}
		for range 2 {
			put(t, q, chosen("", "un.served"))
		}
		if err := q.Register(t.Context(), Lane{Task: "empty"}); err != nil {
			t.Fatal(err)
		}
		for _, stray := range []string{"job.not=registered.a", "job.not=registered.b", "later.image=thumb.c"} {
			if _, err := q.ns.js.Publish(t.Context(), "async.media."+stray, nil); err != nil {
				t.Fatal(err)
			}
		}
		c := tap(t, q)
		back := c.take(t)
		c.take(t)
		if err := back.HandBack(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		served := serve(t, s, 2)

		got, err := q.Info(t.Context(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got.Dispatchers, func(a, b Presence) int { return a.PID - b.PID })
		want := Info{
			Name: "media", AckWait: Duration(DefaultAckWait), Created: created, Messages: 10, Scheduled: 1, Replicas: 1,
			Lanes: []LaneInfo{
				{Task: "empty"},
				{Task: task, Pending: 3, Assigned: 2, Served: 2}, // the one handed back counts as assigned
				{Task: "un.served", Pending: 2},
			},
			Strays: 2, Dispatchers: served,
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Info{}, "Bytes")); diff != "" || got.Bytes == 0 {
			t.Errorf("%d bytes (-want +got):\n%s", got.Bytes, diff)
		}
		for l, want := range map[Lane]bool{lane: true, {Task: "un.served"}: false, {Task: "empty"}: false} {
			if got, err := q.Assigned(t.Context(), l); got != want || err != nil {
				t.Errorf("lane %s assigned: %v, %v", l.Task, got, err)
			}
		}
		for subject, want := range map[string]uint64{q.names.jobs(): 9, q.names.lane(lane): 5, q.names.lane(Lane{Task: "empty"}): 0} {
			if got, err := q.count(t.Context(), subject); got != want || err != nil {
				t.Errorf("count of %s: %d, %v, want %d", subject, got, err, want)
			}
		}
		deleteStream(t, q)
		if _, err := q.Info(t.Context(), time.Second); err == nil {
			t.Error("info of a deleted queue")
		}
	})
}

// Everything works in a JetStream domain, too.
func TestDomain(t *testing.T) {
	inDomain := func(o *server.Options) { o.JetStreamDomain = "hub" }
	natstest.RunWith(t, inDomain, func(t *testing.T, s *natstest.Server) {
		js, err := jetstream.NewWithDomain(s.Connect(t), "hub")
		if err != nil {
			t.Fatal(err)
		}
		ns, err := Open(t.Context(), js, "")
		if err != nil {
			t.Fatal(err)
		}
		q, err := ns.CreateQueue(t.Context(), "media", Config{})
		if err != nil {
			t.Fatal(err)
		}
		e := chosen("mine", task)
		put(t, q, e)
		if _, err := q.PutMany(t.Context(), entriesOf(3)); err != nil {
			t.Error(err)
		}
		if err := q.Put(t.Context(), chosen("mine", task)); !errors.Is(err, ErrExists) {
			t.Errorf("%v, want ErrExists", err)
		}
		for jobs, err := range q.Jobs(t.Context(), OnHand, 10) {
			if len(jobs) != 4 || err != nil {
				t.Errorf("%d jobs wait, %v", len(jobs), err)
			}
		}
		l := tap(t, q).take(t)
		if err := l.Extend(t.Context()); err != nil || l.ID != "mine" {
			t.Errorf("brought %s; extend: %v", l.ID, err)
		}
		complete(t, q, e, job.Completed)
		if err := l.Ack(); err != nil {
			t.Error(err)
		}
		if records, err := q.Recent(t.Context(), 10, everything); len(records) != 1 || err != nil {
			t.Errorf("%d records, %v", len(records), err)
		}
		time.Sleep(time.Millisecond) // the ack is not answered
		if info, err := q.Info(t.Context(), time.Second); info.Messages != 3 || info.Strays != 0 || err != nil {
			t.Errorf("%+v, %v", info, err)
		}
		if err := ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Error(err)
		}
	})
}

func everything(KeptRecord) bool { return true }

func idsOf[T any](list []T, id func(T) job.ID) []job.ID {
	ids := make([]job.ID, len(list))
	for i, v := range list {
		ids[i] = id(v)
	}
	return ids
}
