package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/semver"
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
	_, err := js.AccountInfo(ctx)
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
func explain(nc *nats.Conn, step string, err error) error {
	if !unanswered(err) {
		return fmt.Errorf("%s: %w", step, err)
	}
	if last := nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) {
		return fmt.Errorf("%s: %w: %w (grant it to this user in the server's configuration)", step, ErrPermission, last)
	}
	return fmt.Errorf("%s: %w: %w", step, ErrUnanswered, err)
}

// unanswered reports whether a request ended without the server's answer, so
// that what it asked for may have happened.
func unanswered(err error) bool {
	for _, silence := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
	} {
		if errors.Is(err, silence) {
			return true
		}
	}
	return false
}

// withTimeout bounds a context that has no deadline.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, bounded := ctx.Deadline(); bounded {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
