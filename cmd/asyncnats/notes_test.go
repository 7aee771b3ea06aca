//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

// stepsScript is a job's command that calls the program, without being told where the
// server is, and waits to be told to go on.
const stepsScript = `
cat >/dev/null
"$TOOL" job annotate "$ASYNCNATS_JOB" progress '{"done": 1, "total": 4, "text": "one"}' || exit 8
until "$TOOL" job annotations "$ASYNCNATS_JOB" --json | grep -q '"name": "go"'; do sleep 0.05; done
echo '[1, {"a": 2}]' | "$TOOL" job annotate "$ASYNCNATS_JOB" left || exit 9
"$TOOL" job annotate "$ASYNCNATS_JOB" progress '{"done": 4, "total": 4}' || exit 8
echo "$TRACEPARENT $BAGGAGE"
`

// A command annotates the job that it performs, and is annotated from outside; who
// watches the job sees it all.
func TestAnnotations(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.env = append(x.env, "TOOL="+os.Args[0])
	x.write("steps.sh", stepsScript)
	x.ok("queue", "add", "media", "--namespace", "other")
	lost := *x
	lost.env = append([]string{}, x.env...)
	lost.env = append(lost.env, "NATS_URL=nats://127.0.0.1:1")
	d := lost.start("err", "dispatch", "--server", s.ClientURL(), "--namespace", "other", "--handle", "steps=sh steps.sh")
	d.line("agent runs")

	x.env = append(x.env, "ASYNCNATS_NAMESPACE=other", "ASYNCNATS_QUEUE=media")
	traced := *x
	traced.env = append([]string{}, x.env...)
	traced.env = append(traced.env, "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "BAGGAGE=tenant=acme")
	traced.ok("put", "steps", "1", "--id", "one", "--queue", "media")

	w := x.start("out", "job", "watch", "one", "--json")
	var first sight
	progress := w.line(`"annotation":"progress"`)
	if err := json.Unmarshal([]byte(progress), &first); err != nil || string(first.Value) != `{"done":1,"text":"one","total":4}` && string(first.Value) != `{"done":1,"total":4,"text":"one"}` || first.By != "asyncnats CLI job annotate" {
		t.Errorf("%s: %v", progress, err)
	}
	contains(t, x.ok("job", "show", "one", "--queue", "media"), "progress    1 of 4 (25%), one")
	var shown view
	x.json(&shown, "job", "show", "one", "--queue", "media")
	if shown.Progress == nil || *shown.Progress != (asyncnats.Progress{Done: 1, Total: 4, Text: "one"}) {
		t.Errorf("%+v", shown.Progress)
	}
	plain := x.start("out", "job", "watch", "one")
	plain.line("progress 1 of 4 (25%), one")
	for _, p := range []*process{w, plain} {
		if !strings.Contains(strings.Join(p.seen, "\n"), "assigned") {
			p.line("assigned")
		}
	}
	if out := x.ok("job", "annotate", "one", "go", "true"); out != "" {
		t.Errorf("a job's command would print %q as its result", out)
	}
	plain.line("go true")
	plain.line("left [1,{\"a\":2}]")
	plain.line(`completed: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 tenant=acme"`)
	w.line(`"annotation":"left","value":[1,{"a":2}]`)
	w.line(`"state":"completed","result":`)
	for name, p := range map[string]*process{"--json": w, "plain": plain} {
		if code := p.end(); code != exitOK {
			t.Errorf("job watch, %s: exit %d\n%s", name, code, strings.Join(p.seen, "\n"))
		}
	}
	contains(t, x.ok("job", "annotations", "one"), "NAME", "go        true", `left      [1,{"a":2}]`, `progress  {"done":4,"total":4}`, "asyncnats CLI job annotate")
	var list []annotation
	x.json(&list, "job", "annotations", "one")
	if len(list) != 3 || list[0].Name != "go" || string(list[0].Value) != "true" || time.Since(list[0].At) > time.Minute {
		t.Errorf("%+v", list)
	}
	x.ok("job", "annotate", "one", "go", "--remove")
	x.ok("job", "annotate", "one", "go", "--remove")
	if strings.Contains(x.ok("job", "annotations", "one"), "go ") {
		t.Error("it was removed, and is listed")
	}
	x.ok("put", "nobody", "1", "--id", "none", "--queue", "media")
	if out := x.ok("job", "annotations", "none", "--json"); out != "[]\n" {
		t.Errorf("none: %s", out)
	}
	if r := x.run("", "job", "annotations", "none"); r.code != exitOK || r.out != "" || r.err != "job none has no annotations\n" {
		t.Errorf("none: %+v", r)
	}
	if r := x.run("", "job", "watch", "none", "--timeout", "3s"); r.code != exitFailed || !strings.Contains(r.out, "pending") || !strings.Contains(r.err, "job none is not completed yet") {
		t.Errorf("watched for a while: %+v", r)
	}
	for name, row := range map[string]struct {
		args []string
		in   string
		code int
		text string
	}{
		"no JSON":      {[]string{"job", "annotate", "none", "x", "hello"}, "", exitUsage, "value: hello is not JSON"},
		"stdin":        {[]string{"job", "annotate", "none", "x"}, "hello", exitUsage, "stdin: hello is not JSON"},
		"nothing":      {[]string{"job", "annotate", "none", "x"}, " \n", exitUsage, "stdin is empty: give a value in JSON, or --remove"},
		"both":         {[]string{"job", "annotate", "none", "x", "1", "--remove"}, "", exitUsage, "--remove takes no value"},
		"illegal name": {[]string{"job", "annotate", "none", "x.y", "1"}, "", exitUsage, "illegal annotation name"},
		"no job":       {[]string{"job", "annotate", "nobody", "x", "1"}, "", exitNotFound, "no such job"},
		"no job, list": {[]string{"job", "annotations", "nobody"}, "", exitNotFound, "no such job"},
		"no job, seen": {[]string{"job", "watch", "nobody"}, "", exitNotFound, "no such job"},
		"no job, ask":  {[]string{"job", "ask", "nobody", "x"}, "", exitNotFound, "no such job"},
		"no answer":    {[]string{"job", "ask", "none", "x"}, "", exitNotFound, "nobody answers"},
		"no question":  {[]string{"job", "ask", "none", "x", "hello"}, "", exitUsage, "question: hello is not JSON"},
		"illegal ask":  {[]string{"job", "ask", "none", "x y"}, "", exitUsage, "illegal question name"},
		"no queue":     {[]string{"job", "annotations", "none", "--queue", "none"}, "", exitNotFound, "asyncnats queue add none"},
	} {
		r := x.run(row.in, row.args...)
		if r.code != row.code || r.out != "" || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: %+v, want exit %d", name, r, row.code)
		}
		contains(t, r.err, row.text)
	}
	if code := d.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("dispatch: exit %d", code)
	}
}

// staff runs a dispatcher in this process until the test ends.
func staff(t *testing.T, s *natstest.Server, handlers ...job.Handler) {
	t.Helper()
	d, err := dispatcher.New(s.Connect(t), dispatcher.Config{UUID: uuid.New(), Handlers: handlers, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A job written in Go answers what it is asked in JSON.
func TestJobAsk(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	task, ready, held := asyncnats.Define[job.Value, asyncnats.None]("asked"), make(chan struct{}), make(chan struct{})
	givenUp := make(chan struct{}) // closed when who asked what takes too long waits no more
	staff(t, s, task.Handle(func(ctx context.Context, _ job.Value) (asyncnats.None, error) {
		_, err := asyncnats.Answer(ctx, "sum", func(ctx context.Context, numbers []int) (map[string]int, error) {
			sum := 0
			for _, n := range numbers {
				sum += n
			}
			switch sum {
			case 0:
				return nil, errors.New("nothing to add")
			case 13:
				<-ctx.Done()
				<-givenUp
			}
			return map[string]int{"sum": sum}, nil
		})
		close(ready)
		<-held
		return asyncnats.None{}, err
	}))
	t.Cleanup(func() { close(held) }) // before the dispatcher stops, which waits for it
	x.ok("put", "asked", "1", "--id", "one")
	<-ready
	for name, row := range map[string]struct {
		in, out, err string
		args         []string
		code         int
	}{
		"answered":    {"", "{\"sum\":3}\n", "", []string{"[1, 2]"}, exitOK},
		"from stdin":  {"[3, 4]", "{\"sum\":7}\n", "", []string{"-"}, exitOK},
		"no question": {"", "", "asked for sum: nothing to add", nil, exitFailed},
		"misfit":      {"", "", "the question does not fit", []string{`"a"`}, exitFailed},
		"too slow":    {"", "", "wait longer with --timeout", []string{"[13]", "--timeout", "300ms"}, exitUnreachable},
	} {
		r := x.run(row.in, append([]string{"job", "ask", "one", "sum"}, row.args...)...)
		if name == "too slow" {
			close(givenUp)
		}
		if r.code != row.code || r.out != row.out {
			t.Errorf("%s: %+v, want exit %d and %s", name, r, row.code, row.out)
		}
		contains(t, r.err, row.err)
	}
}

// On a pipe nothing is drawn; a line that is drawn is wiped.
func TestProgressLine(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	task := asyncnats.Define[int64, string]("steps")
	staff(t, s, task.Handle(func(ctx context.Context, total int64) (string, error) {
		for done := range total {
			if err := asyncnats.Report(ctx, asyncnats.Progress{Done: done + 1, Total: total}); err != nil {
				return "", err
			}
		}
		return "done", nil
	}))
	if r := x.run("", "put", "steps", "5", "--wait", "--id", "one"); r.code != exitOK || r.out != "\"done\"\n" || r.err != "" {
		t.Errorf("%+v", r)
	}
	if r := x.run("", "job", "wait", "one"); r.code != exitOK || r.err != "" {
		t.Errorf("%+v", r)
	}

	client, err := asyncnats.Connect(t.Context(), s.Connect(t), asyncnats.Config{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := asyncnats.Lookup[job.Value](t.Context(), client.Queue(job.DefaultQueue), "one")
	if err != nil {
		t.Fatal(err)
	}
	drawn := newScreen("5/5")
	stop := follow(t.Context(), j, &progressLine{w: drawn})
	<-drawn.saw
	stop()
	if text := drawn.String(); !strings.HasSuffix(text, wipe) {
		t.Errorf("left on the screen: %q", text)
	}
}

// screen is a terminal of which a text is waited for.
type screen struct {
	wanted string
	saw    chan struct{} // closed when it was drawn

	mu   sync.Mutex
	text bytes.Buffer
	seen bool
}

func newScreen(wanted string) *screen { return &screen{wanted: wanted, saw: make(chan struct{})} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	if !s.seen && strings.Contains(s.text.String(), s.wanted) {
		s.seen = true
		close(s.saw)
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// The line follows whatever is reported: forth, back, another total, none.
func TestDrawProgress(t *testing.T) {
	var drawn bytes.Buffer
	line := &progressLine{w: &drawn}
	line.clear()
	if drawn.Len() > 0 {
		t.Errorf("wiped without need: %q", drawn.String())
	}
	for _, row := range []struct {
		p    asyncnats.Progress
		want string
	}{
		{asyncnats.Progress{Done: 1, Total: 4, Text: "one"}, "(1/4)"},
		{asyncnats.Progress{Done: 2, Total: 4, Text: "two\x1b[31m\nmore"}, "(2/4)"},
		{asyncnats.Progress{Done: 4, Total: 4}, "(4/4)"},
		{asyncnats.Progress{Done: 1, Total: 4, Text: "again"}, "again"},
		{asyncnats.Progress{Done: 9, Total: 4}, "(4/4)"},
		{asyncnats.Progress{Done: 5, Total: 10}, "(5/10)"},
		{asyncnats.Progress{Text: "thinking"}, wipe + "thinking"},
		{asyncnats.Progress{Done: 7, Text: "seven"}, wipe + "7, seven"},
		{asyncnats.Progress{Done: 1, Total: 1}, "(1/1)"},
	} {
		drawn.Reset()
		line.draw(row.p)
		if text := drawn.String(); !strings.Contains(text, row.want) || strings.Contains(text, "\x1b[31m") || strings.Contains(text, "\n") {
			t.Errorf("%+v: %q", row.p, text)
		}
	}
	drawn.Reset()
	line.clear()
	if drawn.String() != wipe {
		t.Errorf("at the end %q", drawn.String())
	}
}
