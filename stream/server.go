package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/semver"

	"github.com/asyncnats/asyncnats/kv"
)

// minServer is the first release with message schedules and atomic batches as
// asyncnats uses them.
const minServer = "v2.14.0"

// faulty releases lose messages of replicated WorkQueue streams. They are
// older than minServer; naming them makes the error say why.
var faulty = []string{"v2.12.3", "v2.12.4"}

// checkServer reports a server that cannot hold queues.
func checkServer(ctx context.Context, js jetstream.JetStream) error {
	version := js.Conn().ConnectedServerVersion()
	if err := checkVersion(version); err != nil {
		return err
	}
	err := accountInfo(ctx, js)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: nats-server %s runs without JetStream: start it with -js", ErrServer, version)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: JetStream is not enabled for this account: give it limits in the server's configuration", ErrServer)
	}
	return explain(js.Conn(), "ask for JetStream", err)
}

// accountInfo asks again while there is no answer, or none yet: a cluster that
// elects its leader drops what it is asked, or says so.
func accountInfo(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := withTimeout(ctx, js.Options().DefaultTimeout)
	defer cancel()
	for {
		try, cancel := briefly(ctx)
		_, err := js.AccountInfo(try)
		cancel()
		passing := kv.Unanswered(err) && !errors.Is(err, nats.ErrNoResponders) // which says that there is no JetStream
		if !passing || ctx.Err() != nil || denied(js.Conn()) {
			return err
		}
		if rest(ctx, tryPause) != nil {
			return err
		}
	}
}

// Persist calls ask again and again while the server does not answer, with some seconds
// for each try, until ctx ends or, where ctx has no deadline, for 30 seconds. It returns
// the last try's error: [ErrUnanswered] or [ErrPermission] where there was no answer.
// step says what is asked.
func (ns *Namespace) Persist(ctx context.Context, step string, ask func(context.Context) error) error {
	ctx, cancel := withTimeout(ctx, putPatience)
	defer cancel()
	return persist(ctx, func() error {
		try, cancel := briefly(ctx)
		defer cancel()
		err := ask(try)
		if kv.Unanswered(err) && !errors.Is(err, ErrUnanswered) {
			err = explain(ns.js.Conn(), step, err)
		}
		return err
	})
}

func checkVersion(version string) error {
	v := "v" + version
	for _, bad := range faulty {
		if v == bad {
			return fmt.Errorf("%w: nats-server %s loses messages of replicated WorkQueue streams: upgrade to %s or later", ErrServer, version, minServer)
		}
	}
	if semver.IsValid(v) && semver.Compare(v, minServer) < 0 {
		return fmt.Errorf("%w: nats-server %s is too old: upgrade to %s or later", ErrServer, version, minServer)
	}
	return nil
}

// explain makes an error of a request to the server say what to do: a request
// that is not allowed gets no answer, and the client learns why only beside.
// subjects are how the subjects that were published to end, where the caller
// knows them.
func explain(nc *nats.Conn, step string, err error, subjects ...string) error {
	if !kv.Unanswered(err) {
		return fmt.Errorf("%s: %w", step, err)
	}
	if denied(nc, subjects...) {
		return fmt.Errorf("%s: %w: %w (grant it to this user in the server's configuration)", step, ErrPermission, nc.LastError())
	}
	return fmt.Errorf("%s: %w: %w", step, ErrUnanswered, err)
}

// denied reports whether the server refused, lately, to take what was published
// to one of the subjects, or to any where none are given. The client keeps its
// last error until it reconnects: without subjects, one that has nothing to do
// with the request may be taken for its cause.
func denied(nc *nats.Conn, subjects ...string) bool {
	last := nc.LastError()
	if !errors.Is(last, nats.ErrPermissionViolation) {
		return false
	}
	return len(subjects) == 0 || slices.ContainsFunc(subjects, func(subject string) bool {
		return strings.Contains(last.Error(), subject+`"`)
	})
}

// withTimeout bounds a context that has no deadline.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, bounded := ctx.Deadline(); bounded {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// rest waits for so long. The error is that of ctx, where it ends before.
func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
