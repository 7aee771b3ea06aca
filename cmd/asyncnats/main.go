// Command asyncnats looks after the queues, quotas, jobs and dispatchers of asyncnats: it
// creates queues and quotas, puts jobs and waits for them, shows what is going
// on, performs jobs by running commands, changes and pauses dispatchers while
// they run, and brings a NATS server for where there is none.
//
//	asyncnats demo
//	asyncnats server
//	asyncnats queue add default
//	asyncnats dispatch --handle text.count='wc -w'
//	asyncnats put text.count '"to be or not to be"' --wait
//
// It connects as the nats command does: the selected context, --context,
// --server and the environment variables of the same meaning. asyncnats --help
// says the rest.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker in releases.
var version = ""

type cli struct {
	connection `embed:"" group:"connection"`

	Demo     demoCmd     `cmd:"" help:"Try it: a job for each file in a folder, two dispatchers, nothing installed."`
	Server   serverCmd   `cmd:"" help:"Run a NATS server for a laptop or a small installation."`
	Queue    queueCmd    `cmd:"" help:"Create, list, show and remove queues."`
	Quota    quotaCmd    `cmd:"" help:"Limit how many jobs run at once: create, resize, list, show and remove quotas."`
	Put      putCmd      `cmd:"" help:"Put a job on a queue."`
	Cron     cronCmd     `cmd:"" help:"Put a job again and again, as cron does."`
	Job      jobCmd      `cmd:"" help:"Show, list and wait for jobs."`
	Dead     deadCmd     `cmd:"" help:"List, show, put again and remove jobs that failed."`
	Dispatch dispatchCmd `cmd:"" help:"Perform jobs by running commands."`
	Monitor  monitorCmd  `cmd:"" help:"Ask the dispatchers what they do, and did of late."`

	Dispatcher dispatcherCmd `cmd:"" help:"List, show and remove dispatchers."`
	Agent      agentCmd      `cmd:"" help:"Change how many jobs dispatchers perform at once, and which: list, add, change, remove, pause and resume agents."`

	Version kong.VersionFlag `short:"V" help:"Show the version."`
}

type queueCmd struct {
	Add    queueAddCmd    `cmd:"" help:"Create a queue."`
	Ls     queueLsCmd     `cmd:"" help:"List the queues."`
	Info   queueInfoCmd   `cmd:"" help:"Show what is in a queue and who serves it."`
	Rm     queueRmCmd     `cmd:"" help:"Remove a queue with its jobs and their outcomes."`
	Pause  queuePauseCmd  `cmd:"" help:"Have no more jobs taken from a queue, or of a task."`
	Resume queueResumeCmd `cmd:"" help:"Have jobs taken again."`
}

type quotaCmd struct {
	Create quotaCreateCmd `cmd:"" help:"Create a quota."`
	Set    quotaSetCmd    `cmd:"" help:"Change the size of a quota."`
	Ls     quotaLsCmd     `cmd:"" help:"List the quotas of a queue."`
	Info   quotaInfoCmd   `cmd:"" help:"Show who has the slots of a quota and who waits for one."`
	Rm     quotaRmCmd     `cmd:"" help:"Remove a quota: it limits nothing any more."`
	Clean  quotaCleanCmd  `cmd:"" help:"Drop what jobs that are over still hold of a quota; seldom needed."`
}

// Help is shown below the usage.
func (*quotaCmd) Help() string {
	return `A quota limits how many of the jobs that name it run at once, over all dispatchers of its queue. A job that runs has a slot of it; the others wait, in the order of the queue.

    asyncnats quota create gpu --size 2
    asyncnats put image.render '"cat.png"' --quota gpu`
}

type cronCmd struct {
	Add    cronAddCmd    `cmd:"" help:"Have a job put again and again."`
	Ls     cronLsCmd     `cmd:"" help:"List the recurring jobs of a queue."`
	Pause  cronPauseCmd  `cmd:"" help:"Have a recurring job put no more jobs."`
	Resume cronResumeCmd `cmd:"" help:"Have it put jobs again."`
	Run    cronRunCmd    `cmd:"" help:"Put one of its jobs now."`
	Rm     cronRmCmd     `cmd:"" help:"Remove a recurring job."`
}

// Help is shown below the usage.
func (*cronCmd) Help() string {
	return `A recurring job is stored, and recurs as long as any dispatcher of its queue runs. Each tick is a job of its own.

    asyncnats cron add nightly '30 3 * * *' report.build --tz Europe/Berlin
    asyncnats cron add pulse '@every 90s' health.check`
}

type jobCmd struct {
	Show   jobShowCmd   `cmd:"" help:"Show a job."`
	Wait   jobWaitCmd   `cmd:"" help:"Wait for a job and print its result."`
	Cancel jobCancelCmd `cmd:"" help:"End jobs, pending or running."`
	Pull   jobPullCmd   `cmd:"" help:"Take back jobs that no dispatcher was given."`
	Retry  jobRetryCmd  `cmd:"" help:"Put jobs again that failed."`
	Ls     jobLsCmd     `cmd:"" help:"List the jobs of a queue."`

	Watch       jobWatchCmd       `cmd:"" help:"Follow a job: its state, its progress and its annotations."`
	Tree        jobTreeCmd        `cmd:"" help:"Show a job with its parts and callbacks."`
	Annotate    jobAnnotateCmd    `cmd:"" help:"Set an annotation of a job, or remove it."`
	Annotations jobAnnotationsCmd `cmd:"" help:"List the annotations of a job."`
	Ask         jobAskCmd         `cmd:"" help:"Ask the handler of a running job something."`
}

type deadCmd struct {
	Ls    deadLsCmd    `cmd:"" help:"List jobs that failed."`
	Show  deadShowCmd  `cmd:"" help:"Show a job that failed, with every attempt."`
	Retry deadRetryCmd `cmd:"" help:"Put jobs that failed again."`
	Rm    deadRmCmd    `cmd:"" help:"Remove what is kept of jobs that failed."`
}

// Help is shown below the usage.
func (*deadCmd) Help() string {
	return `A job that failed is kept for 30 days with its argument and its attempts, whatever becomes of its record; one that was cancelled is not.

    asyncnats dead ls --since 1h --task 'image.>'
    asyncnats dead retry --error 'connection refused'`
}

type dispatcherCmd struct {
	Ls   dispatcherLsCmd   `cmd:"" help:"List the dispatchers, those that stopped or died among them."`
	Info dispatcherInfoCmd `cmd:"" help:"Show a dispatcher, its agents, and the jobs that it performs."`
	Rm   dispatcherRmCmd   `cmd:"" help:"Remove a dispatcher that does not run, with its agents."`
}

type agentCmd struct {
	Ls     agentLsCmd     `cmd:"" help:"List agents."`
	Add    agentAddCmd    `cmd:"" help:"Give a dispatcher an agent."`
	Set    agentSetCmd    `cmd:"" help:"Change the size, filter or preference of an agent."`
	Rm     agentRmCmd     `cmd:"" help:"Remove an agent."`
	Pause  agentPauseCmd  `cmd:"" help:"Have an agent take no more jobs."`
	Resume agentResumeCmd `cmd:"" help:"Have it take jobs again."`
}

// Help is shown below the usage.
func (*agentCmd) Help() string {
	return `An agent is one dispatcher's, in one queue. It says how many jobs the dispatcher performs at once, and of which tasks.`
}

// app is what a subcommand works with.
type app struct {
	connection *connection
	in         *os.File
	out, err   io.Writer
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code.
func run(args []string, in *os.File, out, errOut io.Writer) int {
	var c cli
	parser := kong.Must(&c,
		kong.Name("asyncnats"),
		kong.Description("Durable jobs on NATS JetStream: queues, jobs, and dispatchers that perform them."),
		kong.Vars{"version": versionText()},
		kong.Writers(out, errOut),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{{Key: "connection", Title: "Connection, as the nats command:"}}),
		kong.Help(printHelp),
		kong.BindTo(context.Background(), (*context.Context)(nil)),
	)
	parsed, err := parser.Parse(args)
	if err != nil {
		return report(errOut, misread(err))
	}
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	defer stop()
	// The second signal finds the system's own answer to it, unless the
	// subcommand has another.
	context.AfterFunc(ctx, stop)
	parsed.BindTo(ctx, (*context.Context)(nil))
	return report(errOut, parsed.Run(&app{connection: &c.connection, in: in, out: out, err: errOut}))
}

// printHelp prints kong's help and the exit codes. The flags of the connection
// are shown once, where no subcommand is named.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	more := ""
	if selected := ctx.Selected(); selected != nil {
		if selected.Name != "demo" && selected.Name != "server" {
			more = "\nasyncnats --help shows the flags that say which server to connect to.\n"
		}
		for _, flag := range ctx.Model.Flags {
			flag.Hidden = flag.Hidden || flag.Group != nil
		}
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	_, err := fmt.Fprint(ctx.Stdout, more, exitCodes)
	return err
}

// stopSignals are those that end a program in order. One that was started with
// SIGHUP ignored, as by nohup, goes on ignoring it.
func stopSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

func versionText() string {
	if version != "" {
		return "asyncnats " + version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return "asyncnats " + info.Main.Version
	}
	return "asyncnats (unknown version)"
}
