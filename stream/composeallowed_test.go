package stream

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// What docs/operations.md says that compositions and callbacks need is enough, beside
// what opening a queue and looking for a job need.
func TestPermissionsOfCompositions(t *testing.T) {
	open := []string{"$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.DIRECT.GET.>", "$JS.API.STREAM.MSG.GET.*"}
	records, lanes := []string{"$KV.ASYNC_JOBS.>"}, []string{"$KV.ASYNC_DISPATCHERS.lane.>"}
	jobs, chunks, timers := []string{"async.*.job.>"}, []string{"async.*.parts.>"}, []string{"async.*.timer.>"}
	due, done := []string{"async.*.due.advance.>"}, []string{"async.*.done.*"}
	removes := []string{"$JS.API.STREAM.MSG.DELETE.ASYNC_media", "$JS.API.STREAM.PURGE.ASYNC_media"}
	users := map[string]*server.SubjectPermission{
		"puts":     allow(open, []string{"async.*.wait.>"}, chunks, due, timers),
		"performs": allow(open, records, lanes, jobs, []string{"async.*.later.>", "async.*.wait.>"}, chunks, due, timers, done, removes),
		"calls":    allow(open, records),
		"grows":    allow(open, records, lanes, jobs, chunks, timers),
		"cancels":  allow(open, records, due, timers),
	}
	natstest.RunWith(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "admin", Password: "p"}}
		for name, publish := range users {
			o.Users = append(o.Users, &server.User{Username: name, Password: "p", Permissions: &server.Permissions{Publish: publish, Subscribe: allow([]string{"_INBOX.>"})}})
		}
	}, func(t *testing.T, s *natstest.Server) {
		createQueue(t, s.Connect(t, asAdmin), Config{})
		as := func(user string) *Queue {
			refused := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("who %s: %v", user, err) })
			q, err := openNamespace(t, s.Connect(t, nats.UserInfo(user, "p"), refused), "").Queue(t.Context(), "media")
			if err != nil {
				t.Fatalf("who %s: %v", user, err)
			}
			return q
		}
		call := job.Call{Task: task, Arg: text(strings.Repeat("x", inlineParts))}
		compose := func() Entry {
			e := newEntry()
			e.Spec.Task, e.Spec.Parts = "parallel", &job.Parts{Form: job.FormParallel, Count: 2, Calls: []job.Call{call, call}}
			put(t, as("puts"), e)
			return e
		}
		performs := as("performs")
		must := func(step string, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s: %v", step, err)
			}
		}

		whole := compose()
		must("call back", as("calls").AddCallback(t.Context(), whole.ID, whole.Spec.Nonce, job.Callback{On: job.OnAny, Call: job.Call{Task: task, Delay: time.Hour}}))
		must("begin", performs.Advance(t.Context(), whole.ID, whole.Spec.Nonce, time.Now()))
		must("add a part", as("grows").AddParts(t.Context(), whole.ID, whole.Spec.Nonce, "more", []job.Call{call}))
		for i := range 3 {
			parts := job.Parts{Base: whole.Spec.Nonce}
			part := job.Parent{Queue: "media", ID: whole.ID, Nonce: whole.Spec.Nonce, Number: i}
			_, err := performs.Write(t.Context(), parts.PartID(i), job.Record{
				Version: 1, Nonce: parts.PartNonce(i), Task: task, State: job.Completed, Parent: &part, Outcome: &job.Outcome{},
			}, 0, job.KeepDefault)
			must("record a part", err)
			must("pay", performs.ns.Pay(t.Context(), part))
		}
		record, _, _, err := performs.Record(t.Context(), whole.ID)
		if err != nil || record.State != job.Completed || len(record.Called) != 1 {
			t.Errorf("record %+v, %v, want completed", record, err)
		}

		stopped := compose()
		must("begin", performs.Advance(t.Context(), stopped.ID, stopped.Spec.Nonce, time.Now()))
		_, err = as("cancels").Cancel(t.Context(), stopped.ID, stopped.Spec.Nonce)
		must("cancel", err)
	})
}
