package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

type dispatchCmd struct {
	Handle    []handleFlag  `required:"" sep:"none" placeholder:"TASK=COMMAND" help:"Perform this task by this command. May be repeated."`
	Queue     []string      `short:"q" help:"Queue to serve. May be repeated; if not given, all that there are and those that come."`
	Agent     []agentFlag   `sep:"none" placeholder:"name=…,size=…" help:"How many jobs at once, and of which tasks: name=main,size=3,filter=image.>|mail.send,prefer=mail.send; queue=… for one queue only. May be repeated; if not given, one named main takes three jobs of any task at once. What is stored for this dispatcher goes before it (asyncnats agent)."`
	UUID      uuid.UUID     `name:"uuid" placeholder:"UUID" help:"Identity of this dispatcher; if not given that in the file which ASYNCNATS_UUID names, or else in ./uuid.txt."`
	Grace     time.Duration `default:"10s" help:"How long running commands may go on when the dispatcher stops."`
	Ping      time.Duration `name:"ping-interval" default:"5s" help:"How often it shows that it is alive."`
	Death     time.Duration `name:"ping-death-interval" default:"0s" placeholder:"DURATION" help:"After what silence others take it for dead, in whole seconds; three ping intervals if not given."`
	LogLevel  slog.Level    `default:"info" help:"debug, info, warn or error."`
	LogFormat string        `default:"text" enum:"text,json" help:"How the log on stderr is written: text or json."`
}

// Help is shown below the usage.
func (*dispatchCmd) Help() string {
	return `A command is run by the shell (sh -c). It gets the job's argument on stdin, in JSON (nothing where there is none), and prints the result: JSON, or text, which becomes a string. The job is over when the command has ended and its output is closed. An exit status other than 0 is a failure, with the end of stderr as its message.

In the environment: ASYNCNATS_JOB, ASYNCNATS_QUEUE, ASYNCNATS_TASK, ASYNCNATS_ATTEMPT, ASYNCNATS_DISPATCHER, ASYNCNATS_AGENT and, for each quota, ASYNCNATS_FENCE_<quota>, its fencing token (with _ for each - of the quota's name). The server and the namespace are there too, so that a command may call this program, and TRACEPARENT, TRACESTATE and BAGGAGE where the job was put under a trace:

    asyncnats job annotate "$ASYNCNATS_JOB" progress '{"done": 3, "total": 10}'

SIGINT or SIGTERM stops the dispatcher: it takes no more jobs and lets commands go on for --grace. Commands that have to end then, or because of the job's timeout, get SIGTERM and a little later SIGKILL, with all they have started; the jobs of a stopping dispatcher start again elsewhere. A second signal kills them at once. If the dispatcher itself is killed (SIGKILL) its commands go on beside the next attempt.

The file with its UUID is made where it does not exist. Each process needs one of its own: of two with the same UUID only one performs jobs, and the other waits. Agents are stored with the UUID when it is first used, and can be changed while it runs (asyncnats agent set).

    asyncnats dispatch --handle text.count='wc -w' --handle image.thumbnail=./thumbnail.sh
    asyncnats dispatch --handle mail.send=./send --queue mail --agent name=mail,size=20
    ASYNCNATS_UUID=second.uuid asyncnats dispatch --handle text.count='wc -w'`
}

// handleFlag is TASK=COMMAND.
type handleFlag struct {
	task, command string
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *handleFlag) UnmarshalText(text []byte) error {
	task, command, ok := strings.Cut(string(text), "=")
	if !ok || strings.TrimSpace(command) == "" {
		return fmt.Errorf("%q: must be TASK=COMMAND, like image.thumbnail=./thumbnail.sh", text)
	}
	*h = handleFlag{task: task, command: command}
	return job.CheckTask(task)
}

// Run performs jobs until ctx ends.
func (c *dispatchCmd) Run(ctx context.Context, a *app) error {
	log := c.logger(a.err)
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	nc, domain, err := a.connection.dial("dispatch",
		nats.MaxReconnects(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("connection", "err", err) }),
		nats.ClosedHandler(func(nc *nats.Conn) {
			lost(&exitError{exitUnreachable, fmt.Errorf("the server ended the connection for good: %w", nc.LastError())})
		}))
	if err != nil {
		return err
	}
	defer nc.Close()
	running := &commands{limit: int(nc.MaxPayload()), env: a.connection.environment()}
	if c.UUID == uuid.Nil {
		if c.UUID, err = asyncnats.InstanceUUID(); err != nil {
			return err
		}
	}
	d, err := dispatcher.New(nc, c.config(a.connection.Namespace, domain, running, log))
	if err != nil {
		return usage(err)
	}
	defer c.forceful(running, log)()
	err = d.Run(ctx)
	// Commands that outlived their handlers are being killed.
	running.ended.Wait()
	if closed, ok := errors.AsType[*exitError](context.Cause(ctx)); ok {
		return closed
	}
	return err
}

func (c *dispatchCmd) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func (c *dispatchCmd) config(namespace, domain string, running *commands, log *slog.Logger) dispatcher.Config {
	config := dispatcher.Config{
		Namespace: namespace, Domain: domain, UUID: c.UUID, Queues: c.Queue, Grace: c.Grace, Log: log,
		PingInterval: c.Ping, PingDeathInterval: c.Death,
	}
	if c.Grace == 0 {
		config.Grace = -1
	}
	for _, handle := range c.Handle {
		config.Handlers = append(config.Handlers, running.handler(handle.task, handle.command))
	}
	for _, agent := range c.Agent {
		config.Agents = append(config.Agents, agents.Agent(agent))
	}
	return config
}

// forceful ends the program, and all commands, at the second signal, until
// stop is called.
func (c *dispatchCmd) forceful(running *commands, log *slog.Logger) (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, stopSignals()...)
	done := make(chan struct{})
	go func() {
		for range 2 {
			select {
			case <-signals:
			case <-done:
				return
			}
		}
		log.Warn("second signal: commands are killed, their jobs start again after the ack wait")
		running.killAll()
		os.Exit(exitFailed)
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}
