package stories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// wantServed checks which queues a dispatcher says that it serves.
func (s *story) wantServed(d *staff, queues ...string) {
	s.Helper()
	entry, err := s.client.Dispatcher(s.Context(), d.UUID())
	if err != nil || !slices.Equal(entry.Queues, queues) {
		s.Errorf("it serves %q, %v; want %q", entry.Queues, err, queues)
	}
}

// add creates a queue with a quota and a stint that has its name.
func (s *story) add(name string) {
	s.Helper()
	q, err := s.client.CreateQueue(s.Context(), name, asyncnats.QueueConfig{})
	if err != nil {
		s.Fatal(err)
	}
	if err := q.CreateQuota(s.Context(), "gpu", 1); err != nil {
		s.Fatal(err)
	}
	if _, err := asyncnats.Put(s.Context(), q, paint.Call(stint{Name: name}).Quota("gpu")); err != nil {
		s.Fatal(err)
	}
	moment()
}

// A dispatcher of all queues has nothing more to do with those that are deleted. One
// that is made anew is as any other.
func TestQueuesComeAndGo(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		d := s.dispatch(w.staff(1))
		moment()
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprintf("tenant-%02d", i))
			s.add(names[i])
		}
		w.wantBegun(s, names...)
		s.wantServed(d, append([]string{"default"}, names...)...)
		for _, name := range names {
			if err := s.client.DeleteQueue(s.Context(), name); err != nil {
				s.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		s.wantServed(d, "default")
		before := len(d.log.String())
		time.Sleep(time.Minute)
		if lines := d.log.String()[before:]; strings.Contains(lines, "tenant") {
			s.Errorf("it goes on about queues that are gone:\n%.2000s", lines)
		}
		s.add("tenant-03")
		s.wantServed(d, "default", "tenant-03")
		time.Sleep(time.Minute) // the slot of the job that went with the old one is given back
		w.wantBegun(s, append(names, "tenant-03")...)
	})
}

// A queue that is made anew is served when what was begun in the old one is over.
func TestQueueIsMadeAnew(t *testing.T) {
	tell(t, func(s *story) {
		w := s.site()
		d := s.dispatch(w.staff(1))
		moment()
		s.add("tenant")
		if err := s.client.DeleteQueue(s.Context(), "tenant"); err != nil {
			s.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if !d.log.Contains("queue is gone") {
			s.Error("it does not say so in its log")
		}
		s.add("tenant") // while the job of the old one runs
		time.Sleep(time.Minute)
		s.wantServed(d, "default", "tenant")
		w.wantBegun(s, "tenant", "tenant")
		if turn := w.seen()[0]; !errors.Is(turn.cause, job.ErrLeaseLost) {
			s.Errorf("the job of a queue that was deleted ended with %v", turn.cause)
		}
	})
}

// A queue that cannot be used keeps a dispatcher of all queues from no other, and is
// served when it can.
func TestUnusableQueue(t *testing.T) {
	for name, early := range map[string]bool{"it is there first": true, "it comes": false} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				js := s.server.JetStream(s.T)
				describe := func(meta string) {
					if _, err := js.Publish(s.Context(), "async.alpha.meta", []byte(meta)); err != nil {
						s.Fatal(err)
					}
				}
				w := s.site()
				var d *staff
				run := func() { d = s.dispatch(w.staff(5)); moment() }
				if !early {
					run()
				}
				found, err := js.Stream(s.Context(), "ASYNC_default")
				if err != nil {
					s.Fatal(err)
				}
				config := found.CachedInfo().Config
				config.Name = "ASYNC_alpha"
				for i, subject := range config.Subjects {
					config.Subjects[i] = strings.Replace(subject, ".default.", ".alpha.", 1)
				}
				if _, err := js.CreateStream(s.Context(), config); err != nil {
					s.Fatal(err)
				}
				describe(`{"v":2,"kind":"jobs","ack_wait":"15s"}`)
				if early {
					run()
				}
				s.add("beta")
				time.Sleep(time.Minute)
				s.wantServed(d, "beta", "default")
				w.wantBegun(s, "beta")
				if n := strings.Count(d.log.String(), "level=ERROR"); n != 1 || !d.log.Contains("level=ERROR", "queue=alpha") {
					s.Errorf("%d errors, want one, which names the queue", n)
				}
				c := w.staff(1)
				c.UUID, c.Queues = uuid.New(), []string{"alpha", "beta"}
				named, err := dispatcher.New(s.server.Connect(s.T), c)
				if err != nil {
					s.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
				defer cancel()
				if err := named.Run(ctx); err == nil {
					s.Error("a dispatcher that names the queue does without it")
				}
				describe(`{"v":1,"kind":"jobs","ack_wait":"15s"}`)
				time.Sleep(10 * time.Second)
				s.wantServed(d, "alpha", "beta", "default")
			})
		})
	}
}
