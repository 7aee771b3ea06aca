package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/schollz/progressbar/v3"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

type demoCmd struct {
	Dir   string `arg:"" optional:"" default:"." help:"Folder whose files to read."`
	Limit int    `default:"5000" help:"The most files to read."`
	Rows  int    `default:"20" help:"The most files to show."`
}

// Help is shown below the usage.
func (*demoCmd) Help() string {
	return `Everything is real and runs in this one process: a NATS server with its data in a temporary folder, a queue, and two dispatchers that share it, each on a connection of its own. Every file is a job: it is read, and its lines are counted and its SHA-256 is computed. Then the largest are compressed by jobs that name a quota of two, so that no more than two of them run at once, whoever has places. Nothing is left behind.`
}

// Run runs the demo.
func (c *demoCmd) Run(ctx context.Context, a *app) error {
	if c.Limit < 1 || c.Rows < 1 {
		return usagef("--limit and --rows must be at least 1")
	}
	files, more, err := listFiles(ctx, c.Dir, c.Limit)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no files in %s: name a folder that has some, like asyncnats demo /usr/share/doc", c.Dir)
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	fmt.Fprintf(a.out, "%s in %s, a job each: nats-server %s and two dispatchers in this process\n\n", plural(len(files), "file"), c.Dir, server.VERSION)
	d := &demo{root: root, token: rand.Text(), log: a.err, progress: newProgress(a.err, len(files))}
	done, err := d.run(ctx, files)
	if d.progress != nil {
		_ = d.progress.Clear() // it is gone already unless the run was cut short
	}
	if err != nil {
		return err
	}
	printDemo(a.out, done.files, c.Rows)
	printTotals(a.out, done.files, done.elapsed)
	printPacked(a.out, done.packed)
	printJoined(a.out, done.joined)
	if more {
		fmt.Fprintf(a.out, "There are more files in %s: --limit %d ended the list.\n", c.Dir, c.Limit)
	}
	fmt.Fprint(a.out, "\nNext: run asyncnats server; it says how to go on.\n")
	return nil
}

// demo is one run of the demo. The server and all connections live in it.
type demo struct {
	root     *os.Root
	token    string // keeps others on this machine out of the server
	log      io.Writer
	progress *progressbar.ProgressBar // nil where nobody looks
	packing  gauge                    // of jobs that compress
}

// demoAgents has the agent of each dispatcher.
var demoAgents = []agents.Agent{
	{Name: "main", Size: agents.DefaultSize},
	{Name: "reader", Size: agents.DefaultSize, Filter: []string{"file.>"}},
}

// places is how many jobs the dispatchers can perform at once.
func places() (n int) {
	for _, agent := range demoAgents {
		n += agent.Size
	}
	return n
}

// demoResult is what became of the demo's jobs.
type demoResult struct {
	files   []fileResult
	elapsed time.Duration // from the first put of a file's job to the last outcome
	packed  packResult
	joined  joinResult
}

// newProgress returns nil where w is not a terminal.
func newProgress(w io.Writer, files int) *progressbar.ProgressBar {
	if !isTerminal(w) {
		return nil
	}
	return progressbar.NewOptions(files, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(),
		progressbar.OptionSetDescription("reading files"), progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionClearOnFinish())
}

// run performs a job for each file and then the jobs under a quota, and
// returns what became of them, in the order of files.
func (d *demo) run(ctx context.Context, files []string) (done demoResult, err error) {
	store, err := os.MkdirTemp("", "asyncnats-demo-")
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, removeStore(store)) }()
	ns, err := startServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, Authorization: d.token, StoreDir: store, ServerName: "asyncnats-demo",
	}, d.log)
	if err != nil {
		return done, err
	}
	defer func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	}()
	nc, err := d.connect(ns, "producer")
	if err != nil {
		return done, err
	}
	defer nc.Close()
	client, err := asyncnats.Connect(ctx, nc, asyncnats.Config{})
	if err != nil {
		return done, err
	}
	q, err := client.CreateQueue(ctx, job.DefaultQueue, asyncnats.QueueConfig{})
	if err != nil {
		return done, err
	}
	stop, err := d.dispatch(ctx, ns)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := awaitAgents(ctx, q, len(demoAgents)); err != nil {
		return done, err
	}

	began := time.Now()
	jobs, err := putFiles(ctx, q, files)
	if err != nil {
		return done, err
	}
	if err := d.await(ctx, jobs); err != nil {
		return done, err
	}
	done.elapsed = time.Since(began)
	if done.files, err = collect(ctx, q, jobs, files); err != nil {
		return done, err
	}
	if done.packed, err = d.packLargest(ctx, q, done.files); err != nil {
		return done, err
	}
	done.joined, err = joinFiles(ctx, q, files[:min(len(files), joinMost)])
	return done, err
}

// awaitAgents waits until so many agents serve a queue, lest the first has done all
// before the last is there.
func awaitAgents(ctx context.Context, q *asyncnats.Queue, count int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		info, err := q.Info(ctx)
		if err != nil {
			return err
		}
		agents := 0
		for _, d := range info.Dispatchers {
			agents += len(d.Agents)
		}
		if agents >= count {
			return nil
		}
	}
}

func (d *demo) connect(ns *server.Server, name string) (*nats.Conn, error) {
	return nats.Connect(ns.ClientURL(), nats.Token(d.token), nats.Name("asyncnats demo "+name))
}

// dispatch runs two dispatchers until stop is called.
func (d *demo) dispatch(ctx context.Context, ns *server.Server) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	var mu sync.Mutex
	var errs []error // guarded by mu
	stop = func() error {
		cancel()
		running.Wait()
		return errors.Join(errs...)
	}
	for _, agent := range demoAgents {
		nc, err := d.connect(ns, "dispatcher with agent "+agent.Name)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		one, err := dispatcher.New(nc, dispatcher.Config{
			UUID: uuid.New(), Handlers: []job.Handler{digest.Handle(d.digest), pack.Handle(d.pack), manifest.Handle(join)}, Agents: []agents.Agent{agent},
			Log: slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelError})),
		})
		if err != nil {
			nc.Close()
			return nil, errors.Join(err, stop())
		}
		running.Go(func() {
			defer nc.Close()
			if err := one.Run(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	return stop, nil
}

// waiters is how many jobs are waited for at the same time.
const waiters = 32

// await waits for all jobs. That one failed is not its business.
func (d *demo) await(ctx context.Context, jobs []*asyncnats.Job[fileDigest]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan *asyncnats.Job[fileDigest])
	var all sync.WaitGroup
	for range waiters {
		all.Go(func() {
			for j := range todo {
				_, err := j.Wait(ctx)
				if _, failed := errors.AsType[*job.Failure](err); err != nil && !failed {
					cancel(err)
				}
				if d.progress != nil {
					_ = d.progress.Add(1) // a terminal that went away is no reason to stop
				}
			}
		})
	}
	for _, j := range jobs {
		todo <- j
	}
	close(todo)
	all.Wait()
	return context.Cause(ctx)
}

// removeStore removes the server's folder. The server writes a little more
// after it is shut down.
func removeStore(dir string) error {
	var err error
	for range 50 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("temporary folder is left: %w", err)
}
