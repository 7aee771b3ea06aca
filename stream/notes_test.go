package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func text(s string) job.Value { return job.Value{Encoding: job.JSON, Data: []byte(`"` + s + `"`)} }

func annotate(t *testing.T, q *Queue, e Entry, name, value string) {
	t.Helper()
	if err := q.Annotate(t.Context(), e.ID, e.Spec.Nonce, name, text(value), "ada"); err != nil {
		t.Fatal(err)
	}
}

// wantNotes compares a job's annotations, as name=value.
func wantNotes(t *testing.T, q *Queue, e Entry, want ...string) {
	t.Helper()
	notes, err := q.Notes(t.Context(), e.ID, e.Spec.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range notes {
		got = append(got, n.Name+"="+strings.Trim(string(n.Value.Data), `"`))
		one, found, err := q.Note(t.Context(), e.ID, e.Spec.Nonce, n.Name)
		if diff := cmp.Diff(n, one); err != nil || !found || diff != "" {
			t.Errorf("%s, read by itself: %v, %v\n%s", n.Name, found, err, diff)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

// inHandler is the context of the handler of a job.
func inHandler(t *testing.T, q *Queue, e Entry) (ctx context.Context, end func()) {
	t.Helper()
	return NewContext(t.Context(), q, job.Info{ID: e.ID, Nonce: e.Spec.Nonce, Queue: q.Name(), Dispatcher: "dispatcher"}, func(what string, err error) {
		t.Errorf("%s: %v", what, err)
	})
}

// notesStored counts the messages in the bucket, markers included.
func notesStored(t *testing.T, q *Queue) int {
	t.Helper()
	s, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_NOTES")
	if err != nil {
		t.Fatal(err)
	}
	return int(s.CachedInfo().State.Msgs)
}

// over ends a job: its outcome is written and its message removed.
func over(t *testing.T, q *Queue, e Entry) {
	t.Helper()
	complete(t, q, e, job.Completed)
	if err := q.removeAll(t.Context(), e.ID, e.Spec.Nonce); err != nil {
		t.Fatal(err)
	}
}

func TestAnnotate(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e, other := putNew(t, q), putNew(t, q)
		wantNotes(t, q, e)
		annotate(t, q, e, "one", "1")
		annotate(t, q, e, "a_Note-2", "x")
		annotate(t, q, other, "one", "other's")
		time.Sleep(time.Second)
		annotate(t, q, e, "one", "1b")
		wantNotes(t, q, e, "a_Note-2=x", "one=1b")
		note, _, err := q.Note(t.Context(), e.ID, e.Spec.Nonce, "one")
		if err != nil || note.By != "ada" || note.Nonce != e.Spec.Nonce || !note.At.Equal(time.Now()) {
			t.Errorf("%+v, %v", note, err)
		}
		for range 2 { // of the second there is nothing to remove
			if err := q.RemoveNote(t.Context(), e.ID, e.Spec.Nonce, "one"); err != nil {
				t.Error(err)
			}
		}
		wantNotes(t, q, e, "a_Note-2=x")
		wantNotes(t, q, other, "one=other's")
		annotate(t, q, e, "one", "again")
		wantNotes(t, q, e, "a_Note-2=x", "one=again")
		// The handle of whichever job has the ID.
		if err := q.Annotate(t.Context(), e.ID, job.Nonce{}, "one", text("zero"), ""); err != nil {
			t.Error(err)
		}
		wantNotes(t, q, e, "a_Note-2=x", "one=zero")
	})
}

// Whatever a job does it can be annotated, unless it is unknown, or another has its
// ID.
func TestWhoCanBeAnnotated(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		later := newEntry()
		later.Spec.Begin = time.Now().Add(time.Hour)
		done, gone, first, second := chosen("over", task), chosen("gone", task), chosen("twice", task), chosen("twice", task)
		put(t, q, later, done, gone, first)
		annotate(t, q, first, "mine", "first's")
		over(t, q, done)
		over(t, q, first)
		if err := q.removeAll(t.Context(), gone.ID, gone.Spec.Nonce); err != nil { // as one that keeps no outcome
			t.Fatal(err)
		}
		wantNotes(t, q, first, "mine=first's")
		put(t, q, second)
		wantNotes(t, q, second)
		if note, found, err := q.Note(t.Context(), second.ID, second.Spec.Nonce, "mine"); found || err != nil {
			t.Errorf("a later job of the ID reads %+v, %v", note, err)
		}
		for name, row := range map[string]struct {
			e    Entry
			want error
		}{
			"scheduled": {later, nil}, "over": {done, nil}, "gone": {gone, ErrNoJob}, "never put": {newEntry(), ErrNoJob},
			"of an ID that another has now": {first, ErrNoJob},
		} {
			if err := q.Annotate(t.Context(), row.e.ID, row.e.Spec.Nonce, "x", text("1"), ""); !errors.Is(err, row.want) {
				t.Errorf("%s: %v, want %v", name, err, row.want)
			}
			if err := q.RemoveNote(t.Context(), row.e.ID, row.e.Spec.Nonce, "x"); !errors.Is(err, row.want) {
				t.Errorf("%s, removed: %v, want %v", name, err, row.want)
			}
		}
		// In its handler nobody asks whether there is such a job, even where it left
		// nothing; but it does not write over the next one's.
		ctx, end := inHandler(t, q, gone)
		defer end()
		if err := q.Annotate(ctx, gone.ID, gone.Spec.Nonce, "x", text("1"), ""); err != nil {
			t.Error(err)
		}
		annotate(t, q, second, "mine", "second's")
		ctx, late := inHandler(t, q, first)
		defer late()
		if err := q.Annotate(ctx, first.ID, first.Spec.Nonce, "mine", text("late"), ""); !errors.Is(err, ErrNoJob) {
			t.Errorf("a late handler writes over the next job's annotation: %v", err)
		}
		wantNotes(t, q, second, "mine=second's")
		wantNotes(t, q, first)
	})
}

// An annotation is kept for a week after it was set last, as the server is told (that
// it keeps to it is a test of package kv); what was removed leaves nothing for long.
func TestAnnotationsAge(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		annotate(t, q, e, "removed", "x")
		for range 2 { // created, and set again
			annotate(t, q, e, "set", "x")
			s, err := q.ns.js.Stream(t.Context(), "KV_ASYNC_NOTES")
			if err != nil {
				t.Fatal(err)
			}
			msg, err := s.GetLastMsgForSubject(t.Context(), "$KV.ASYNC_NOTES."+q.names.note(e.ID, "set"))
			if err != nil || msg.Header.Get(jetstream.MsgTTLHeader) != "604800s" {
				t.Errorf("time to live %v, %v", msg, err)
			}
		}
		if err := q.RemoveNote(t.Context(), e.ID, e.Spec.Nonce, "removed"); err != nil {
			t.Fatal(err)
		}
		if n := notesStored(t, q); n != 2 {
			t.Errorf("%d messages, want one that is set and a marker", n)
		}
		time.Sleep(noteMarker + 2*time.Second)
		if n := notesStored(t, q); n != 1 {
			t.Errorf("%d messages, want the one that is set", n)
		}
	})
}

func TestAnnotationsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := putNew(t, q)
		for _, name := range []string{"", "a.b", "*", ">", "a b", "a/b", "ä", strings.Repeat("a", 65)} {
			err := q.Annotate(t.Context(), e.ID, e.Spec.Nonce, name, text("x"), "")
			_, _, read := q.Note(t.Context(), e.ID, e.Spec.Nonce, name)
			if removed := q.RemoveNote(t.Context(), e.ID, e.Spec.Nonce, name); !isNameError(err) || !isNameError(read) || !isNameError(removed) {
				t.Errorf("%q: %v, %v, %v", name, err, read, removed)
			}
			if name == AllNotes {
				continue
			}
			var watched error
			for _, watched = range q.WatchNotes(t.Context(), e.ID, e.Spec.Nonce, name) {
			}
			if !isNameError(watched) {
				t.Errorf("%q: watched: %v", name, watched)
			}
		}
		var tooLarge *TooLargeError
		err := q.Annotate(t.Context(), e.ID, e.Spec.Nonce, "x", text(strings.Repeat("x", 1<<20)), "")
		if !errors.As(err, &tooLarge) || tooLarge.What != "annotation" || tooLarge.Size != 1<<20+2 || tooLarge.Max != 1<<20 || !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
		wantNotes(t, q, e)
	})
}

// A namespace of an earlier release gets its bucket when a queue is created, or the
// one that exists is; before that it says so.
func TestNamespaceWithoutNotes(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, _ *Queue) {
		js := s.JetStream(t)
		if err := js.DeleteStream(t.Context(), "KV_ASYNC_NOTES"); err != nil {
			t.Fatal(err)
		}
		q, err := openNamespace(t, s.Connect(t), "").Queue(t.Context(), "media")
		if err != nil {
			t.Fatal(err)
		}
		e := putNew(t, q)
		refused := func(when string) {
			t.Helper()
			within(t, time.Second, when, func() {
				err := q.Annotate(t.Context(), e.ID, e.Spec.Nonce, "x", text("1"), "")
				if err == nil || !strings.Contains(err.Error(), "bucket does not exist: ASYNC_NOTES") || !strings.Contains(err.Error(), "asyncnats queue add media") {
					t.Errorf("%s: %v", when, err)
				}
				var watched error
				for _, watched = range q.WatchNotes(t.Context(), e.ID, e.Spec.Nonce, AllNotes) {
				}
				if watched == nil {
					t.Errorf("%s: a watch of nothing", when)
				}
			})
			wantNotes(t, q, e)
		}
		refused("before")
		if _, err := q.ns.CreateQueue(t.Context(), "media", Config{}); err != nil {
			t.Fatal(err)
		}
		annotate(t, q, e, "x", "1")
		wantNotes(t, q, e, "x=1")
		// Somebody removes it while it is used.
		if err := js.DeleteStream(t.Context(), "KV_ASYNC_NOTES"); err != nil {
			t.Fatal(err)
		}
		err = q.Annotate(t.Context(), e.ID, e.Spec.Nonce, "x", text("1"), "")
		if err == nil || !strings.Contains(err.Error(), "asyncnats queue add media") {
			t.Errorf("removed: %v", err)
		}
	})
}

func TestDeleteQueueRemovesAnnotations(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		other, err := q.ns.CreateQueue(t.Context(), "other", Config{})
		if err != nil {
			t.Fatal(err)
		}
		one, two := putNew(t, q), putNew(t, other)
		annotate(t, q, one, "x", "1")
		annotate(t, other, two, "x", "1")
		if err := q.ns.DeleteQueue(t.Context(), "media"); err != nil {
			t.Fatal(err)
		}
		wantNotes(t, other, two, "x=1")
		if n := notesStored(t, q); n != 1 {
			t.Errorf("%d annotations are left, want the other queue's", n)
		}
	})
}

// An annotation is set once there is a server, and said to be unanswered where
// there is none for too long.
func TestAnnotateInAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, _ *Queue) {
		q, wire := wired(t, s)
		e := putNew(t, q)
		for name, outage := range map[string]struct{ begin, end func() }{
			"cut": {wire.Cut, wire.Restore}, "frozen": {wire.Freeze, wire.Thaw},
		} {
			outage.begin()
			time.AfterFunc(10*time.Second, outage.end)
			within(t, 20*time.Second, name, func() { annotate(t, q, e, "x", name) })
			wantNotes(t, q, e, "x="+name)
		}
		wire.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := q.Annotate(ctx, e.ID, e.Spec.Nonce, "x", text("lost"), ""); !errors.Is(err, ErrUnanswered) {
			t.Errorf("%v, want ErrUnanswered", err)
		}
	})
}

func TestAnnotateWithoutPermission(t *testing.T) {
	configure, login := withUser("$KV.ASYNC_NOTES.>")
	natstest.RunWith(t, configure, func(t *testing.T, s *natstest.Server) {
		createQueue(t, s.Connect(t, asAdmin), Config{})
		q := createQueue(t, s.Connect(t, login, quiet), Config{})
		e := putNew(t, q)
		within(t, 10*time.Second, "refusal", func() {
			if err := q.Annotate(t.Context(), e.ID, e.Spec.Nonce, "x", text("1"), ""); !errors.Is(err, ErrPermission) {
				t.Errorf("%v, want ErrPermission", err)
			}
		})
	})
}

// Of many who set one annotation at once none fails, and the last is there.
func TestAnnotateAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		e := putNew(t, q)
		var all sync.WaitGroup
		for i := range 8 {
			mine, _ := wired(t, s)
			all.Go(func() {
				for n := range 10 {
					if err := mine.Annotate(t.Context(), e.ID, e.Spec.Nonce, "x", text(fmt.Sprint(i, " ", n)), ""); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		note, found, err := q.Note(t.Context(), e.ID, e.Spec.Nonce, "x")
		if err != nil || !found || !strings.HasSuffix(string(note.Value.Data), ` 9"`) {
			t.Errorf("the last is %s, %v", note.Value.Data, err)
		}
	})
}
