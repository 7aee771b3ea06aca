package stream

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/internal/natstest"
)

// What docs/operations.md says that annotations and questions need is enough, beside
// what opening a queue and looking for a job need.
func TestPermissionsOfAnnotations(t *testing.T) {
	open := []string{
		"$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.DIRECT.GET.>",
		"$JS.API.STREAM.MSG.GET.ASYNC_media", "$JS.API.STREAM.MSG.GET.KV_ASYNC_JOBS",
	}
	read := []string{"$JS.API.STREAM.INFO.KV_ASYNC_NOTES", "$JS.API.STREAM.MSG.GET.KV_ASYNC_NOTES"}
	users := map[string]server.Permissions{
		"sets":    {Publish: allow(open, read, []string{"$KV.ASYNC_NOTES.>"}), Subscribe: allow([]string{"_INBOX.>"})},
		"lists":   {Publish: allow(open, read, []string{"$JS.API.CONSUMER.CREATE.KV_ASYNC_NOTES.>", "$JS.API.CONSUMER.DELETE.KV_ASYNC_NOTES.>", "$JS.FC.KV_ASYNC_NOTES.>"}), Subscribe: allow([]string{"_INBOX.>"})},
		"asks":    {Publish: allow(open, []string{"async.*.ctl.ask.>"}), Subscribe: allow([]string{"_INBOX.>"})},
		"answers": {Publish: allow(open, []string{"_INBOX.>"}), Subscribe: allow([]string{"_INBOX.>", "async.*.ctl.ask.>"})},
	}
	natstest.RunWith(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "admin", Password: "p"}}
		for name, permissions := range users {
			o.Users = append(o.Users, &server.User{Username: name, Password: "p", Permissions: &permissions})
		}
	}, func(t *testing.T, s *natstest.Server) {
		admin := createQueue(t, s.Connect(t, asAdmin), Config{})
		e := putNew(t, admin)
		as := func(user string) *Queue {
			refused := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("who %s: %v", user, err) })
			q, err := openNamespace(t, s.Connect(t, nats.UserInfo(user, "p"), refused), "").Queue(t.Context(), "media")
			if err != nil {
				t.Fatalf("who %s: %v", user, err)
			}
			return q
		}
		annotate(t, as("sets"), e, "x", "1")
		if err := as("sets").RemoveNote(t.Context(), e.ID, e.Spec.Nonce, "x"); err != nil {
			t.Error(err)
		}
		annotate(t, admin, e, "x", "2")
		lists := as("lists")
		wantNotes(t, lists, e, "x=2")
		w := watchNotes(t, lists, e, AllNotes)
		w.want(t, time.Second, "x=2")
		answers := as("answers")
		ctx, self, _ := handled(t, answers, e)
		if _, err := self.Answer(ctx, "echo", echo); err != nil {
			t.Error(err)
		}
		if _, err := ask(t, as("asks"), e, "echo", text("x")); err != nil {
			t.Error(err)
		}
	})
}

func allow(subjects ...[]string) *server.SubjectPermission {
	p := &server.SubjectPermission{}
	for _, some := range subjects {
		p.Allow = append(p.Allow, some...)
	}
	return p
}
