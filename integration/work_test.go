package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// The tasks that worker processes perform.
var (
	noop = asyncnats.Define[asyncnats.None, asyncnats.None]("bench.noop")
	// tick takes a millisecond, and says on standard output when.
	tick = asyncnats.Define[asyncnats.None, asyncnats.None]("bench.tick")
	// nap sleeps for the time it is given.
	nap = asyncnats.Define[time.Duration, asyncnats.None]("story.nap")
	// stubborn sleeps for the time it is given, whatever its context says.
	stubborn = asyncnats.Define[time.Duration, string]("story.stubborn")
	// parked takes until the file that it is given is there, or its context ends.
	parked = asyncnats.Define[string, string]("story.parked")
	// endless takes for ever with the dispatcher that it is given, until its
	// context ends, and no time with any other.
	endless = asyncnats.Define[string, string]("story.endless")
	// limited sleep for the time they are given, for jobs that name quotas.
	limited = [...]asyncnats.Task[time.Duration, asyncnats.None]{
		asyncnats.Define[time.Duration, asyncnats.None]("limited.red"),
		asyncnats.Define[time.Duration, asyncnats.None]("limited.green"),
		asyncnats.Define[time.Duration, asyncnats.None]("limited.blue"),
	}
	// mortal is another of them, and may kill its process when it starts. With a
	// time below zero it sleeps as long and fails.
	mortal = asyncnats.Define[time.Duration, asyncnats.None]("story.mortal")
)

// handlers performs the tasks, and notes starts and ends of all but noop in
// the file named log.
func handlers(log string) []job.Handler {
	var out output
	return []job.Handler{
		noop.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) { return asyncnats.None{}, nil }),
		tick.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
			began := time.Now()
			sleep(time.Millisecond)
			out.println(began.UnixNano(), time.Now().UnixNano())
			return asyncnats.None{}, nil
		}),
		nap.Handle(func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
			defer note(log, ctx)()
			select {
			case <-time.After(d):
				return asyncnats.None{}, nil
			case <-ctx.Done():
				return asyncnats.None{}, context.Cause(ctx)
			}
		}),
		stubborn.Handle(func(ctx context.Context, d time.Duration) (string, error) {
			defer note(log, ctx)()
			time.Sleep(d)
			info, _ := job.FromContext(ctx)
			return info.Dispatcher, nil
		}),
		parked.Handle(func(ctx context.Context, file string) (string, error) {
			defer note(log, ctx)()
			for {
				switch _, err := os.Stat(file); {
				case err == nil:
					info, _ := job.FromContext(ctx)
					return info.Dispatcher, nil
				case !errors.Is(err, fs.ErrNotExist):
					return "", err
				}
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
					return "", context.Cause(ctx)
				}
			}
		}),
		endless.Handle(func(ctx context.Context, with string) (string, error) {
			defer note(log, ctx)()
			info, _ := job.FromContext(ctx)
			if info.Dispatcher == with {
				<-ctx.Done()
				return "", context.Cause(ctx)
			}
			return info.Dispatcher, nil
		}),
		limited[0].Handle(limitedNap(log, nil)),
		limited[1].Handle(limitedNap(log, nil)),
		limited[2].Handle(limitedNap(log, nil)),
	}
}

// sleep takes as long as it is told. time.Sleep may take a millisecond more:
// what waits for the network beside it is woken in whole milliseconds.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(d.Nanoseconds())
	_ = syscall.Nanosleep(&t, nil)
}

// output writes lines to standard output some time later, many at once: a
// measurement is not to measure that.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) println(words ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len() == 0 {
		time.AfterFunc(50*time.Millisecond, o.flush)
	}
	fmt.Fprintln(&o.buf, words...)
}

func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.buf.WriteTo(os.Stdout)
}

// mortalHandler performs mortal, and calls onStart when it has noted its start.
func mortalHandler(log string, onStart func(job.ID)) job.Handler {
	perform := limitedNap(log, onStart)
	return mortal.Handle(func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
		none, err := perform(ctx, d.Abs())
		if err == nil && d < 0 {
			err = errors.New("wrecked")
		}
		return none, err
	})
}

// limitedNap is nap, and notes whether it came to its end.
func limitedNap(log string, onStart func(job.ID)) func(context.Context, time.Duration) (asyncnats.None, error) {
	return func(ctx context.Context, d time.Duration) (asyncnats.None, error) {
		write := writer(log, ctx)
		write("start")
		if info, _ := job.FromContext(ctx); onStart != nil {
			onStart(info.ID)
		}
		select {
		case <-time.After(d):
			write("end")
			return asyncnats.None{}, nil
		case <-ctx.Done():
			write("interrupted")
			return asyncnats.None{}, context.Cause(ctx)
		}
	}
}

// event is one line of the handlers' log.
type event struct {
	Job        job.ID
	Dispatcher string
	Attempt    int
	Event      string // "start", "end"; of limited tasks also "interrupted"
	At         time.Time
	Fences     string `json:",omitempty"` // "gpu=12 net=7"
}

// fence returns the fencing token of the attempt's slot in a quota, 0 for none.
func (e event) fence(quota string) uint64 {
	for pair := range strings.FieldsSeq(e.Fences) {
		if name, fence, _ := strings.Cut(pair, "="); name == quota {
			n, _ := strconv.ParseUint(fence, 10, 64)
			return n
		}
	}
	return 0
}

// note appends the start of the job under ctx to the log, and its end when the
// returned function is called.
func note(log string, ctx context.Context) (end func()) {
	write := writer(log, ctx)
	write("start")
	return func() { write("end") }
}

// writer returns a function that appends what happens to the job under ctx to
// the log.
func writer(log string, ctx context.Context) (write func(what string)) {
	info, _ := job.FromContext(ctx)
	var fences []string
	for quota, fence := range info.Fences {
		fences = append(fences, fmt.Sprintf("%s=%d", quota, fence))
	}
	slices.Sort(fences)
	return func(what string) {
		appendEvent(log, event{info.ID, info.Dispatcher, info.Attempt, what, time.Now(), strings.Join(fences, " ")})
	}
}

// appendEvent writes a line of the log.
func appendEvent(log string, e event) { appendLine(log, e) }

// appendLine writes a line of a file. Lines are appended whole, by any process.
func appendLine(log string, e any) {
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// events reads the handlers' log.
func events(tb testing.TB, log string) []event {
	tb.Helper()
	read, err := readEvents(log)
	if err != nil {
		tb.Fatal(err)
	}
	return read
}

// eventsSoFar reads a log that may not be there yet.
func eventsSoFar(log string) []event {
	read, _ := readEvents(log)
	return read
}

func readEvents(log string) ([]event, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	var read []event
	for line := range strings.Lines(string(text)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return read, fmt.Errorf("line %q: %w", line, err)
		}
		read = append(read, e)
	}
	return read, nil
}

// starts counts how often each job was started.
func starts(log []event) map[job.ID]int {
	count := make(map[job.ID]int)
	for _, e := range log {
		if e.Event == "start" {
			count[e.Job]++
		}
	}
	return count
}
