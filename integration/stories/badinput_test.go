package stories

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// A message that somebody published by hand on a lane ends in a Failure that
// says what is wrong with it, however wrong it is, and not in a loop; or is
// performed, if nothing is.
func TestBodiesPublishedByHand(t *testing.T) {
	for name, row := range map[string]struct {
		id, body string
		record   string // the ID of the record, where it is not id
		result   string
		failure  string
	}{
		"JSON":                {id: "a", body: `{"arg":"hello"}`, result: "HELLO"},
		"JSON with options":   {id: "a", body: `{"arg":"hello","keep":"1h","timeout":"5s","by":"curl"}`, result: "HELLO"},
		"garbage":             {id: "a", body: "\xde\xad\xbe\xef", failure: "body cannot be read"},
		"empty":               {id: "a", body: "", failure: "body cannot be read"},
		"unknown key":         {id: "a", body: `{"arg":"hello","timout":"5s"}`, failure: `unknown key "timout"`},
		"argument of another": {id: "a", body: `{"arg":[1,2]}`, failure: "argument does not fit task text.shout"},
		"task of another":     {id: "a", body: `{"task":"text.whisper","arg":"hello"}`, failure: `"text.whisper"`},
		"newer version":       {id: "a", body: `{"v":2,"arg":"hello"}`, failure: "version 2"},
		"begin never":         {id: "a", body: `{"arg":"hello","begin":"9999-12-31T00:00:00Z"}`, failure: "must lie between the years"},
		"begin as if later":   {id: "a", body: `{"arg":"hello","begin":"2620-01-01T00:00:00Z"}`, failure: "must lie between the years"},
		"deadline never":      {id: "a", body: `{"arg":"hello","deadline":"9999-12-31T00:00:00Z"}`, failure: "must lie between the years"},
		"illegal ID":          {id: "a@b", body: `{"arg":"hello"}`, record: "illegal-3", failure: `"a@b"`},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				d := s.dispatch(shouters(dispatcher.Config{}))
				wait(s, put(s, shout.Call("first").ID("registers-the-lane")))
				time.Sleep(time.Second)
				nc := s.server.Connect(s.T)
				reply, err := nc.Request("async.default.job.text=shout."+row.id, []byte(row.body), time.Second)
				if err != nil || strings.Contains(string(reply.Data), "error") {
					s.Fatalf("publish: %v %s", err, reply.Data)
				}
				id := row.id
				if row.record != "" {
					time.Sleep(time.Second)
					id = row.record
				}
				j, err := asyncnats.Lookup[string](s.Context(), s.queue, id)
				if err != nil {
					s.Fatal(err)
				}
				result, err := j.Wait(s.Context())
				if result != row.result {
					s.Errorf("result %q, %v: want %q", result, err, row.result)
				}
				if row.failure != "" && (!errors.Is(err, job.ErrInvalid) || !strings.Contains(err.Error(), row.failure)) {
					s.Errorf("got %v, want an invalid Failure with %s", err, row.failure)
				}
				time.Sleep(time.Minute)
				if n := strings.Count(d.log.String(), "job failed"); row.failure != "" && n != 1 {
					s.Errorf("it failed %d times", n)
				}
				if info, err := s.queue.Info(s.Context()); err != nil || info.Messages != 0 {
					s.Errorf("the message is still there: %+v, %v", info, err)
				}
			})
		})
	}
}

func TestIllegalNames(t *testing.T) {
	tell(t, func(s *story) {
		_, err := asyncnats.Connect(s.Context(), s.server.Connect(s.T), asyncnats.Config{Namespace: "Big Name"})
		expectName(s, "namespace", err)
		_, err = s.client.CreateQueue(s.Context(), "a.b", asyncnats.QueueConfig{})
		expectName(s, "queue", err)
		_, err = asyncnats.Put(s.Context(), s.client.Queue(""), shout.Call("x"))
		expectName(s, "queue", err)
		_, err = asyncnats.Put(s.Context(), s.queue, call("no spaces"))
		expectName(s, "task", err)
		_, err = asyncnats.Put(s.Context(), s.queue, shout.Call("x").ID("a.b"))
		expectName(s, "job ID", err)
		_, err = asyncnats.PutMany(s.Context(), s.queue, shout.Call("x"), shout.Call("x").ID("*"))
		expectName(s, "job ID", err)
		_, err = asyncnats.Lookup[string](s.Context(), s.queue, ">")
		expectName(s, "job ID", err)
		if info, err := s.queue.Info(s.Context()); err != nil || info.Messages != 0 {
			s.Errorf("something was stored: %+v, %v", info, err)
		}
	})
}

func expectName(s *story, what string, err error) {
	s.Helper()
	refused, ok := errors.AsType[*job.NameError](err)
	if !ok || refused.What != what || !strings.Contains(err.Error(), "must be") {
		s.Errorf("got %v, want a NameError about a %s that says the rule", err, what)
	}
}

func TestMissingQueue(t *testing.T) {
	tell(t, func(s *story) {
		_, err := asyncnats.Put(s.Context(), s.client.Queue("nowhere"), shout.Call("x"))
		if !errors.Is(err, asyncnats.ErrNoQueue) || !strings.Contains(err.Error(), "asyncnats queue add nowhere") {
			s.Errorf("put: %v", err)
		}
		d, err := dispatcher.New(s.server.Connect(s.T), shouters(dispatcher.Config{UUID: uuid.New(), Queues: []string{"nowhere"}}))
		if err != nil {
			s.Fatal(err)
		}
		if err := d.Run(s.Context()); !errors.Is(err, asyncnats.ErrNoQueue) {
			s.Errorf("run: %v", err)
		}
	})
}
