package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// watchAgain is how long a watch that failed is left alone.
const watchAgain = time.Second

// Dispatcher performs jobs. Make it with [New] and use it with
// [Dispatcher.Run].
type Dispatcher struct {
	nc       *nats.Conn
	config   Config
	handlers map[string]job.Handler
	log      *slog.Logger
}

// New returns a dispatcher, or everything that is wrong with its config. It
// starts nothing and asks the server nothing.
func New(nc *nats.Conn, c Config) (*Dispatcher, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("dispatcher: %w", err)
	}
	handlers := make(map[string]job.Handler, len(c.Handlers))
	for _, handler := range c.Handlers {
		handlers[handler.Task] = handler
	}
	return &Dispatcher{
		nc: nc, config: c, handlers: handlers,
		log: c.Log.With("dispatcher", c.UUID.String()),
	}, nil
}

// UUID returns what identifies the dispatcher.
func (d *Dispatcher) UUID() string { return d.config.UUID.String() }

// Run performs jobs until ctx ends. Then it claims no more, lets running jobs
// go on for the config's Grace, ends the contexts of those left with
// job.ErrDraining, hands their jobs back and returns nil. It returns an error
// where it could not begin: no such queue, a server that cannot be used.
//
// It goes on through lost connections for as long as the connection itself
// tries to reconnect; let it try for ever (nats.MaxReconnects(-1)). Where the
// connection is closed for good Run ends with nats.ErrConnectionClosed, and its
// jobs go on elsewhere.
func (d *Dispatcher) Run(ctx context.Context) error {
	queues, link, err := d.open(ctx)
	if ctx.Err() != nil {
		return nil // asked to stop before it had begun
	}
	if err != nil {
		return fmt.Errorf("dispatcher %s: %w", d.UUID(), err)
	}
	// Two contexts: intake ends first, work when grace is over.
	intake, stopIntake := context.WithCancel(context.WithoutCancel(ctx))
	defer stopIntake()
	work, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)

	gates := make(map[*stream.Queue]*gate, len(queues))
	runners := make(map[*stream.Queue][]*agents.Runner, len(queues))
	for _, queue := range queues {
		if gates[queue], err = d.gate(ctx, queue); err != nil {
			return fmt.Errorf("dispatcher %s: %w", d.UUID(), err)
		}
		ours := d.runners(queue, link, gates[queue].Gate)
		runners[queue] = ours
		stop, err := queue.Answer(func() stream.Presence { return d.presence(queue.Name(), ours) })
		if err != nil {
			return fmt.Errorf("dispatcher %s: %w", d.UUID(), err)
		}
		defer stop()
	}
	// The gates outlast the runners, who leave by them.
	open, closeGates := context.WithCancel(context.WithoutCancel(ctx))
	defer closeGates()
	var loops, runs sync.WaitGroup
	loops.Go(func() { link.Run(work) })
	for queue, ours := range runners {
		gate := gates[queue]
		loops.Go(func() {
			if err := gate.Run(open); err != nil {
				d.log.Error("jobs that name quotas are not performed", "err", err)
			}
		})
		loops.Go(func() { gate.flow.run(open) })
		loops.Go(func() { d.watchLanes(intake, queue, gate.flow, ours) })
		for _, runner := range ours {
			runs.Go(func() { runner.Run(intake, work) })
		}
	}
	closed := make(chan struct{})
	loops.Go(func() {
		if d.watchConnection(work, runners, gates) {
			close(closed)
		}
	})
	d.log.Info("dispatcher runs", "queues", d.config.Queues, "tasks", d.tasks())

	select {
	case <-ctx.Done():
		d.log.Info("dispatcher stops", "grace", d.config.Grace)
		grace := time.AfterFunc(d.config.Grace, func() { stopWork(job.ErrDraining) })
		defer grace.Stop()
	case <-closed:
		err = fmt.Errorf("dispatcher %s: %w", d.UUID(), nats.ErrConnectionClosed)
		stopWork(job.ErrLeaseLost)
	}
	stopIntake()
	runs.Wait()
	stopWork(nil)
	closeGates()
	loops.Wait()
	d.log.Info("dispatcher stopped")
	return err
}

// open opens the queues, and the link for the shortest of their leases.
func (d *Dispatcher) open(ctx context.Context) ([]*stream.Queue, *stream.Link, error) {
	js, err := jetStream(d.nc, d.config.Domain)
	if err != nil {
		return nil, nil, err
	}
	namespace, err := stream.Open(ctx, js, d.config.Namespace)
	if err != nil {
		return nil, nil, err
	}
	shortest := time.Duration(1<<63 - 1)
	queues := make([]*stream.Queue, 0, len(d.config.Queues))
	for _, name := range d.config.Queues {
		queue, err := namespace.Queue(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		queues = append(queues, queue)
		shortest = min(shortest, queue.AckWait())
	}
	return queues, stream.NewLink(d.nc, shortest/15), nil
}

func jetStream(nc *nats.Conn, domain string) (jetstream.JetStream, error) {
	if domain != "" {
		return jetstream.NewWithDomain(nc, domain)
	}
	return jetstream.New(nc)
}

// gate is the way into a queue's quotas, with what follows their sizes.
type gate struct {
	*quotas.Gate
	flow *flow
}

func (d *Dispatcher) gate(ctx context.Context, queue *stream.Queue) (*gate, error) {
	bucket, subject := queue.Quotas()
	set, err := quotas.Open(ctx, queue.Namespace().JetStream(), bucket, queue.Name(), subject)
	if err != nil {
		return nil, err
	}
	flow := newFlow(queue, d.log)
	return &gate{flow: flow, Gate: quotas.NewGate(set, quotas.GateConfig{
		Dispatcher: d.UUID(), AckWait: queue.AckWait(), Gone: queue.Gone, Resized: flow.resized, Log: d.log,
	})}, nil
}

// runners makes the runners of the agents that serve a queue.
func (d *Dispatcher) runners(queue *stream.Queue, link *stream.Link, gate *quotas.Gate) []*agents.Runner {
	var runners []*agents.Runner
	for _, agent := range d.config.Agents {
		if agent.Serves(queue.Name()) {
			runners = append(runners, agents.NewRunner(agents.Config{
				Agent: agent, Queue: queue, Link: link, Gate: gate, Handlers: d.handlers,
				Dispatcher: d.UUID(), Log: d.log,
			}))
		}
	}
	return runners
}

// watchLanes gives the queue's lanes to its runners, those that exist and
// those that come.
func (d *Dispatcher) watchLanes(ctx context.Context, queue *stream.Queue, flow *flow, runners []*agents.Runner) {
	for ctx.Err() == nil {
		for lane, err := range queue.WatchLanes(ctx) {
			if err != nil {
				d.log.Error("lanes cannot be watched", "queue", queue.Name(), "err", err)
				continue
			}
			for _, runner := range runners {
				if runner.Wants(lane) {
					flow.add(lane)
				}
				runner.AddLane(lane)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// watchConnection has all pulls made again after a reconnect, for the server
// has forgotten those that waited. It returns when ctx ends, or when the
// connection is closed for good.
func (d *Dispatcher) watchConnection(ctx context.Context, runners map[*stream.Queue][]*agents.Runner, gates map[*stream.Queue]*gate) (closed bool) {
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
				for queue, ours := range runners {
					gates[queue].Reset()
					for _, runner := range ours {
						runner.Reset()
					}
				}
			default:
				d.log.Warn("connection lost")
			}
		}
	}
}

// presence describes the dispatcher as one queue sees it.
func (d *Dispatcher) presence(queue string, runners []*agents.Runner) stream.Presence {
	host, _ := os.Hostname()
	presence := stream.Presence{
		Dispatcher: d.UUID(), Host: host, PID: os.Getpid(),
		Tasks: []string{}, Agents: []stream.AgentPresence{}, Jobs: []stream.Running{}, // not null in JSON
	}
	for _, task := range d.tasks() {
		taken := slices.ContainsFunc(d.config.Agents, func(a agents.Agent) bool { return a.Serves(queue) && a.Takes(task) })
		if taken {
			presence.Tasks = append(presence.Tasks, task)
		}
	}
	for _, runner := range runners {
		agent, jobs := runner.Presence()
		presence.Agents = append(presence.Agents, agent)
		presence.Jobs = append(presence.Jobs, jobs...)
	}
	return presence
}

func (d *Dispatcher) tasks() []string {
	return slices.Sorted(maps.Keys(d.handlers))
}
