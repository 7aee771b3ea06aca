package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/instance"
	"github.com/asyncnats/asyncnats/job"
)

const (
	// watchAgain is how long a watch that failed is left alone.
	watchAgain = time.Second
	// exchange is how long one exchange with the server may take.
	exchange = 3 * time.Second
)

// Dispatcher performs jobs. Make it with [New] and use it with
// [Dispatcher.Run].
type Dispatcher struct {
	nc       *nats.Conn
	config   Config
	handlers map[string]job.Handler
	history  *history
	log      *slog.Logger // what happens
	trace    *slog.Logger // each job and poll
}

// New returns a dispatcher, or everything that is wrong with its config. It
// starts nothing and asks the server nothing. Where the config has no UUID it reads
// the instance's file, or makes it.
func New(nc *nats.Conn, c Config) (*Dispatcher, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("dispatcher: %w", err)
	}
	if c.UUID == uuid.Nil {
		var err error
		if c.UUID, err = instance.UUID(); err != nil {
			return nil, fmt.Errorf("dispatcher: %w", err)
		}
	}
	handlers := make(map[string]job.Handler, len(c.Handlers))
	for _, handler := range c.Handlers {
		handlers[handler.Task] = handler
	}
	return &Dispatcher{
		nc: nc, config: c, handlers: handlers, history: newHistory(),
		log: c.Log.With("dispatcher", c.UUID.String()), trace: c.Trace.With("dispatcher", c.UUID.String()),
	}, nil
}

// UUID returns what identifies the dispatcher.
func (d *Dispatcher) UUID() string { return d.config.UUID.String() }

// Run performs jobs until ctx ends. Then it claims no more, lets running jobs
// go on for the config's Grace, ends the contexts of those left with
// job.ErrDraining, hands their jobs back and returns nil. It returns an error
// where it could not begin: a named queue that cannot be served, or no queue that
// can, a server that cannot be used.
//
// While another process with the same UUID is alive Run says so in the log and
// waits. While it runs the closed and error handlers of the connection are wrapped by
// its NATS micro service, so set them before. It goes on through lost connections for as long as the connection itself
// tries to reconnect; let it try for ever (nats.MaxReconnects(-1)). Where the
// connection is closed for good Run ends with nats.ErrConnectionClosed, and its
// jobs go on elsewhere.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.remember()()
	err := d.run(ctx)
	if err != nil && ctx.Err() == nil || errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("dispatcher %s: %w", d.UUID(), err)
	}
	return nil // also where it was asked to stop before it had begun
}

func (d *Dispatcher) run(ctx context.Context) error {
	site, err := d.open(ctx)
	if err != nil {
		return err
	}
	// Two contexts: intake ends first, work when grace is over. The gates outlast
	// the runners, who leave by them.
	intake, stopIntake := context.WithCancel(context.WithoutCancel(ctx))
	defer stopIntake()
	work, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)

	closed := make(chan struct{})
	var loops sync.WaitGroup
	loops.Go(func() {
		if d.watchConnection(work, site) {
			close(closed)
		}
	})
	defer loops.Wait()
	defer stopWork(nil)
	if err := site.activate(ctx, closed); err != nil {
		return err
	}
	var stations sync.WaitGroup
	pings, stopPings := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPings()
	loops.Go(func() { site.member.Run(pings) })
	loops.Go(func() { site.monitor(pings) })
	stations.Go(func() { site.watchQueues(intake, work, &stations) })
	d.log.Info("dispatcher runs", "queues", site.names(), "tasks", d.tasks())

	select {
	case <-ctx.Done():
		d.log.Info("dispatcher stops", "grace", d.config.Grace)
		grace := time.AfterFunc(d.config.Grace, func() { stopWork(job.ErrDraining) })
		defer grace.Stop()
	case <-closed:
		err = nats.ErrConnectionClosed
		stopWork(job.ErrLeaseLost)
	}
	stopIntake()
	stations.Wait()
	stopPings()
	if left := site.member.Leave(context.WithoutCancel(ctx)); left != nil && err == nil {
		d.log.Warn("siblings take this dispatcher for dead", "err", left)
	}
	d.log.Info("dispatcher stopped")
	return err
}

func jetStream(nc *nats.Conn, domain string) (jetstream.JetStream, error) {
	if domain != "" {
		return jetstream.NewWithDomain(nc, domain)
	}
	return jetstream.New(nc)
}

// watchConnection has everything asked for again after a reconnect, for the
// server has forgotten the pulls that waited. It returns when ctx ends, or when
// the connection is closed for good.
func (d *Dispatcher) watchConnection(ctx context.Context, site *site) (closed bool) {
	status := d.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer d.nc.RemoveStatusListener(status)
	for {
		select {
		case <-ctx.Done():
			return false
		case now, open := <-status:
			switch {
			case !open, now == nats.CLOSED:
				return true
			case now == nats.CONNECTED:
				d.log.Info("connected again", "server", d.nc.ConnectedUrlRedacted())
				site.reset()
			default:
				d.log.Warn("connection lost")
			}
		}
	}
}

func (d *Dispatcher) tasks() []string {
	return slices.Sorted(maps.Keys(d.handlers))
}
