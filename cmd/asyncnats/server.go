package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

type serverCmd struct {
	Listen string   `default:"127.0.0.1:4222" help:"Address to listen on, port 0 for a free one."`
	Store  string   `default:"asyncnats-data" help:"Folder for the data."`
	Sync   syncFlag `default:"2m" help:"When stored data is forced to disk: always (after each write), or every so often. What was stored since the last time is lost when the machine loses power, not when the server stops or is killed."`
}

// Help is shown below the usage.
func (*serverCmd) Help() string {
	return `It has no users, no TLS and no cluster: whoever reaches it may do everything. For more, run nats-server -js with a configuration of its own; queues are the same there.`
}

// syncFlag is when the server forces data to disk.
type syncFlag struct {
	always bool
	every  time.Duration
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *syncFlag) UnmarshalText(text []byte) error {
	if string(text) == "always" {
		s.always = true
		return nil
	}
	every, err := time.ParseDuration(string(text))
	if err != nil || every <= 0 {
		return fmt.Errorf("%q: must be always, or a positive duration like 2m", text)
	}
	s.every = every
	return nil
}

// Run runs the server until ctx ends.
func (c *serverCmd) Run(ctx context.Context, a *app) error {
	options, err := c.options()
	if err != nil {
		return err
	}
	release, err := lockFolder(c.Store)
	if err != nil {
		return fmt.Errorf("store %s: %w", c.Store, err)
	}
	defer func() { _ = release() }() // the lock ends with the process at the latest
	ns, err := startServer(options, a.err)
	if err != nil {
		return err
	}
	c.greet(a, options.Host, ns)
	<-ctx.Done()
	ns.Shutdown()
	ns.WaitForShutdown()
	fmt.Fprintln(a.out, "stopped")
	return nil
}

// greet says where the server is and what to do with it.
func (c *serverCmd) greet(a *app, host string, ns *server.Server) {
	url := ns.ClientURL()
	fmt.Fprintf(a.out, "nats-server %s listens on %s, data in %s\n", server.VERSION, url, c.Store)
	if !isLoopback(host) {
		fmt.Fprintf(a.err, "asyncnats: warning: %s is open to the network, and this server knows no users\n", cmp.Or(host, "every address of this machine"))
	}
	command := "asyncnats"
	if url != nats.DefaultURL {
		command += " --server " + url
	}
	fmt.Fprintf(a.out, `
In other terminals:
  %[1]s queue add default
  %[1]s dispatch --handle shout='tr a-z A-Z'
  %[1]s put shout '"hello"' --wait

Ctrl-C stops the server; the jobs stay in %[2]s
`, command, c.Store)
}

func (c *serverCmd) options() (*server.Options, error) {
	host, portText, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, usagef("--listen %s: must be HOST:PORT, like 127.0.0.1:4222", c.Listen)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, usagef("--listen %s: %q is not a port", c.Listen, portText)
	}
	options := &server.Options{
		Host: host, Port: int(port), StoreDir: c.Store,
		SyncAlways: c.Sync.always, SyncInterval: c.Sync.every,
	}
	if port == 0 {
		options.Port = server.RANDOM_PORT
		return options, nil
	}
	// The server itself would try again for a while.
	probe, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w: is a server running there already? --listen takes another address", c.Listen, errors.Unwrap(err))
	}
	return options, probe.Close()
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readyAfter is how long a server may take to be ready: it reads what it has
// stored first.
const readyAfter = time.Minute

// startServer runs a NATS server with JetStream in this process. Its warnings
// and errors go to log.
func startServer(options *server.Options, log io.Writer) (*server.Server, error) {
	options.JetStream = true
	options.NoSigs = true
	ns, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	logger := &serverLog{w: log, fatal: make(chan string, 1)}
	ns.SetLogger(logger, false, false)
	ns.Start()
	ready := make(chan bool, 1)
	go func() { ready <- ns.ReadyForConnections(readyAfter) }()
	select {
	case ok := <-ready:
		if ok {
			return ns, nil
		}
		err = fmt.Errorf("nats-server is not ready after %v", readyAfter)
	case text := <-logger.fatal:
		err = fmt.Errorf("nats-server: %s", text)
	}
	ns.Shutdown()
	return nil, err
}

// serverLog shows what the server warns of. It implements server.Logger.
type serverLog struct {
	w     io.Writer
	fatal chan string // why the server cannot start
}

// Fatalf passes on the first reason.
func (l *serverLog) Fatalf(format string, args ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, args...):
	default:
	}
}

// Errorf shows an error.
func (l *serverLog) Errorf(format string, args ...any) { l.show("error", format, args) }

// Warnf shows a warning.
func (l *serverLog) Warnf(format string, args ...any) { l.show("warning", format, args) }

func (l *serverLog) show(level, format string, args []any) {
	fmt.Fprintf(l.w, "nats-server: %s: %s\n", level, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Noticef is not shown.
func (l *serverLog) Noticef(string, ...any) {}

// Debugf is not shown.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef is not shown.
func (l *serverLog) Tracef(string, ...any) {}
