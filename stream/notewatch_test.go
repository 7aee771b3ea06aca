package stream

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// noteLog is what a watch of annotations yields: name=value, "no name", or an error.
type noteLog struct {
	lines chan string
	stop  context.CancelFunc
	ended chan struct{}
}

func watchNotes(t *testing.T, q *Queue, e Entry, name string) *noteLog {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &noteLog{make(chan string, 1000), stop, make(chan struct{})}
	go func() {
		defer close(w.ended)
		for note, err := range q.WatchNotes(ctx, e.ID, e.Spec.Nonce, name) {
			switch {
			case err != nil:
				w.lines <- "error: " + err.Error()
			case note.Removed:
				w.lines <- "no " + note.Name
			default:
				w.lines <- note.Name + "=" + strings.Trim(string(note.Value.Data), `"`)
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-w.ended
	})
	return w
}

// want checks what the watch yields next, within a while.
func (w *noteLog) want(t *testing.T, while time.Duration, want ...string) {
	t.Helper()
	var got []string
	patience := time.After(while)
	for range want {
		select {
		case line := <-w.lines:
			got = append(got, line)
		case <-patience:
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func (w *noteLog) wantNothing(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case line := <-w.lines:
		t.Errorf("yields %s, want nothing", line)
	default:
	}
}

func TestWatchNotes(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e, other := chosen("a", task), chosen("b", task)
		put(t, q, e, other)
		annotate(t, q, e, "one", "1")
		annotate(t, q, e, "gone", "1")
		if err := q.RemoveNote(t.Context(), e.ID, e.Spec.Nonce, "gone"); err != nil {
			t.Fatal(err)
		}
		all, one := watchNotes(t, q, e, AllNotes), watchNotes(t, q, e, "one")
		all.want(t, time.Second, "one=1")
		one.want(t, time.Second, "one=1")
		annotate(t, q, other, "one", "other's")
		annotate(t, q, e, "two", "2")
		annotate(t, q, e, "one", "1b")
		all.want(t, time.Second, "two=2", "one=1b")
		one.want(t, time.Second, "one=1b")
		if err := q.RemoveNote(t.Context(), e.ID, e.Spec.Nonce, "one"); err != nil {
			t.Fatal(err)
		}
		all.want(t, time.Second, "no one")
		one.want(t, time.Second, "no one")
		// Of a later job of the same ID it tells nothing.
		over(t, q, e)
		again := chosen("a", task)
		put(t, q, again)
		annotate(t, q, again, "one", "again")
		all.wantNothing(t)
		one.wantNothing(t)
		// Nor is anything told twice when a watch is made anew.
		time.Sleep(3 * watchRound)
		all.wantNothing(t)
		one.wantNothing(t)
	})
}

// What happens while the connection, or the watch, is lost is told after it: what was
// set, and what was removed, however long ago.
func TestWatchNotesSurvives(t *testing.T) {
	for name, outage := range map[string]func(t *testing.T, s *natstest.Server, w *natstest.Wire, meanwhile func()){
		"a short cut": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire, meanwhile func()) {
			w.Cut()
			meanwhile()
			w.Restore()
		},
		"a cut longer than markers last": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire, meanwhile func()) {
			w.Cut()
			meanwhile()
			time.Sleep(2 * noteMarker)
			w.Restore()
		},
		"a freeze": func(_ *testing.T, _ *natstest.Server, w *natstest.Wire, meanwhile func()) {
			w.Freeze()
			meanwhile()
			time.Sleep(2 * noteMarker)
			w.Thaw()
		},
		"a restart": func(t *testing.T, s *natstest.Server, _ *natstest.Wire, meanwhile func()) {
			s.Restart(t)
			time.Sleep(time.Second)
			meanwhile()
		},
		"a lost consumer": func(t *testing.T, s *natstest.Server, _ *natstest.Wire, meanwhile func()) {
			removeConsumers(t, s.JetStream(t))
			meanwhile()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
				far, wire := wired(t, s)
				e := putNew(t, q)
				annotate(t, q, e, "removed", "1")
				w := watchNotes(t, far, e, AllNotes)
				w.want(t, time.Second, "removed=1")
				outage(t, s, wire, func() {
					annotate(t, q, e, "set", "1")
					if err := q.RemoveNote(t.Context(), e.ID, e.Spec.Nonce, "removed"); err != nil {
						t.Error(err)
					}
				})
				got := map[string]bool{}
				patience := time.After(2 * watchRound)
				for len(got) < 2 {
					select {
					case line := <-w.lines:
						got[line] = true
					case <-patience:
						t.Fatalf("told %v, want what was set and what was removed", got)
					}
				}
				if !got["set=1"] || !got["no removed"] {
					t.Errorf("told %v", got)
				}
				w.wantNothing(t)
			})
		})
	}
}

// removeConsumers removes every consumer of the annotations, as a server does that
// loses those of a client.
func removeConsumers(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	s, err := js.Stream(t.Context(), "KV_ASYNC_NOTES")
	if err != nil {
		t.Fatal(err)
	}
	names, n := s.ConsumerNames(t.Context()), 0
	for name := range names.Name() {
		if err := s.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n == 0 || names.Err() != nil {
		t.Fatalf("%d consumers removed, %v", n, names.Err())
	}
}

func TestWatchNotesEndsWithConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		e := putNew(t, q)
		far, _ := wired(t, s)
		w := watchNotes(t, far, e, AllNotes)
		synctest.Wait()
		far.conn().Close()
		<-w.ended
		if line := <-w.lines; !strings.HasPrefix(line, "error: watch annotations of job") {
			t.Errorf("last word %q", line)
		}
	})
}
