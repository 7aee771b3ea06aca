package job_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

func TestFailureIs(t *testing.T) {
	matches := map[job.Kind]error{
		job.KindError: nil, job.KindPanic: nil, "of a later release": nil,
		job.KindTimeout: job.ErrTimeout, job.KindAborted: job.ErrAborted, job.KindInvalid: job.ErrInvalid,
	}
	sentinels := []error{job.ErrTimeout, job.ErrAborted, job.ErrInvalid, job.ErrLeaseLost, job.ErrDraining, io.EOF}
	for kind, match := range matches {
		err := fmt.Errorf("wait: %w", &job.Failure{Kind: kind, Message: "x"})
		for _, sentinel := range sentinels {
			if got, want := errors.Is(err, sentinel), sentinel == match; got != want {
				t.Errorf("a failure of kind %q is %q: %t, want %t", kind, sentinel, got, want)
			}
		}
	}
}

func TestFailureError(t *testing.T) {
	for want, failure := range map[string]*job.Failure{
		"disk full":              {Kind: job.KindError, Message: "disk full"},
		"panic: out of breath":   {Kind: job.KindPanic, Message: "out of breath"},
		"timeout: ran too long":  {Kind: job.KindTimeout, Message: "ran too long"},
		"invalid: 3 is no color": job.Invalidf("%d is no %s", 3, "color"),
	} {
		if got := failure.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
}

// verboseError is an error with a stack, as many packages make them.
type verboseError struct{ text string }

func (e *verboseError) Error() string { return e.text }

func (e *verboseError) Format(f fmt.State, verb rune) {
	io.WriteString(f, e.text)
	if verb == 'v' && f.Flag('+') {
		io.WriteString(f, "\nmain.dig\n\tmain.go:7")
	}
}

func TestFailureOf(t *testing.T) {
	given := &job.Failure{
		Kind: job.KindInvalid, Message: "no cat", Type: "x.Y", Stack: "s",
		Attempt: 3, Dispatcher: "d", Agent: "a", At: time.Unix(1, 0).UTC(),
	}
	rows := map[string]struct {
		err  error
		want job.Failure
	}{
		"plain":   {errors.New("disk full"), job.Failure{Kind: job.KindError, Message: "disk full", Type: "*errors.errorString"}},
		"wrapped": {fmt.Errorf("write: %w", io.ErrShortWrite), job.Failure{Kind: job.KindError, Message: "write: short write", Type: "*fmt.wrapError"}},
		"with a stack": {
			&verboseError{"dig"},
			job.Failure{Kind: job.KindError, Message: "dig", Type: "*job_test.verboseError", Stack: "dig\nmain.dig\n\tmain.go:7"},
		},
		"a failure":             {given, *given},
		"a wrapped failure":     {fmt.Errorf("in the middle: %w", given), *given},
		"a joined failure":      {errors.Join(io.EOF, given), *given},
		"a failure of no kind":  {&job.Failure{Message: "m"}, job.Failure{Kind: job.KindError, Message: "m"}},
		"invalid UTF-8":         {errors.New("a\xffb\xc3"), job.Failure{Kind: job.KindError, Message: "a\uFFFDb\uFFFD", Type: "*errors.errorString"}},
		"invalid UTF-8 in both": {&job.Failure{Kind: job.KindPanic, Message: "\xff", Stack: "\xfe"}, job.Failure{Kind: job.KindPanic, Message: "\uFFFD", Stack: "\uFFFD"}},
	}
	for name, row := range rows {
		got := job.FailureOf(row.err)
		want := row.want
		if name == "invalid UTF-8" {
			want.Stack = got.Stack // %+v of an invalid text may differ; it is checked below
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(got, job.FailureOf(job.Verdict(row.err))); diff != "" {
			t.Errorf("%s: the verdict has another failure (-error +verdict):\n%s", name, diff)
		}
		if got == given {
			t.Errorf("%s: the handler's own Failure is shared, not copied", name)
		}
		if !utf8.ValidString(got.Message) || !utf8.ValidString(got.Stack) {
			t.Errorf("%s: invalid UTF-8", name)
		}
	}
}

// panickyError is an error that cannot be read.
type panickyError struct{}

func (panickyError) Error() string { panic("no words") }

// touchyError is an error that can be read, and not compared.
type touchyError struct{}

func (touchyError) Error() string { return "touchy" }

func (touchyError) Is(error) bool { panic("hands off") }

func TestFailureOfErrorThatPanics(t *testing.T) {
	var path *fs.PathError
	var failure *job.Failure
	for name, err := range map[string]error{"nil *fs.PathError": path, "nil *Failure": failure, "panicking Error": panickyError{}} {
		for what, got := range map[string]*job.Failure{"error": job.FailureOf(err), "verdict": job.FailureOf(job.Verdict(err))} {
			if got.Kind != job.KindPanic || got.Type != fmt.Sprintf("%T", err) || !strings.Contains(got.Message, got.Type) || got.Stack == "" {
				t.Errorf("%s, %s: %#v", name, what, got)
			}
		}
	}
	if got := job.FailureOf(job.Verdict(touchyError{})); got.Kind != job.KindPanic || !strings.Contains(got.Message, "hands off") {
		t.Errorf("an error whose Is panics: %#v", got)
	}
}

func TestFailureIsCut(t *testing.T) {
	const longest, marker = 10_000, "\n[...TRUNCATED...]"
	rows := map[string]struct{ message, want string }{
		"empty":               {"", ""},
		"longest":             {strings.Repeat("x", longest), strings.Repeat("x", longest)},
		"one more":            {strings.Repeat("x", longest+1), strings.Repeat("x", longest) + marker},
		"far more":            {strings.Repeat("x", 1<<20), strings.Repeat("x", longest) + marker},
		"in a character":      {strings.Repeat("x", longest-1) + "éé", strings.Repeat("x", longest-1) + marker},
		"in an emoji":         {strings.Repeat("x", longest-3) + "🙂🙂", strings.Repeat("x", longest-3) + marker},
		"after a character":   {strings.Repeat("x", longest-2) + "éé", strings.Repeat("x", longest-2) + "é" + marker},
		"grown by correction": {strings.Repeat("x\xff", longest/2), strings.Repeat("x\uFFFD", longest/4) + marker},
	}
	for name, row := range rows {
		for where, got := range map[string]string{
			"FailureOf":         job.FailureOf(errors.New(row.message)).Message,
			"own message":       job.FailureOf(&job.Failure{Message: row.message}).Message,
			"own stack":         job.FailureOf(&job.Failure{Stack: row.message}).Stack,
			"FailureOfPanic":    job.FailureOfPanic(row.message).Message,
			"Invalidf":          job.Invalidf("%s", row.message).Message,
			"verbose form":      strings.TrimPrefix(job.FailureOf(&verboselyLongError{row.message}).Stack, "+"),
			"cut a second time": job.FailureOf(job.FailureOf(errors.New(row.message))).Message,
		} {
			want := row.want
			if where == "verbose form" && len(row.message) >= longest {
				continue // its first character moves the cut; its length is checked below
			}
			if got != want {
				t.Errorf("%s, %s: got %d bytes ending in %q, want %d", name, where, len(got), tail(got), len(want))
			}
		}
		if stack := job.FailureOf(&verboselyLongError{row.message}).Stack; len(stack) > longest+len(marker) || !utf8.ValidString(stack) {
			t.Errorf("%s: stack of %d bytes", name, len(stack))
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-30):] }

// verboselyLongError is an error whose verbose form is long.
type verboselyLongError struct{ text string }

func (e *verboselyLongError) Error() string { return "short" }

func (e *verboselyLongError) Format(f fmt.State, verb rune) {
	if f.Flag('+') {
		io.WriteString(f, "+"+e.text)
		return
	}
	io.WriteString(f, "short")
}

func TestFailureOfPanic(t *testing.T) {
	recovered := func(f func()) (failure *job.Failure) {
		defer func() { failure = job.FailureOfPanic(recover()) }()
		f()
		return nil
	}
	var missing map[string]int
	rows := map[string]struct {
		f                      func()
		message, kind, culprit string
	}{
		"string":     {func() { outOfBreath("out of breath") }, "out of breath", "string", "outOfBreath"},
		"error":      {func() { outOfBreath(io.EOF) }, "EOF", "*errors.errorString", "outOfBreath"},
		"number":     {func() { outOfBreath(7) }, "7", "int", "outOfBreath"},
		"nil":        {func() { outOfBreath(nil) }, "panic called with nil argument", "*runtime.PanicNilError", "outOfBreath"},
		"runtime":    {func() { missing["a"] = 1 }, "assignment to entry in nil map", "runtime.plainError", "TestFailureOfPanic"},
		"unreadable": {func() { outOfBreath(panickyError{}) }, "no words", "job_test.panickyError", "outOfBreath"},
	}
	for name, row := range rows {
		got := recovered(row.f)
		if got.Kind != job.KindPanic || !strings.Contains(got.Message, row.message) {
			t.Errorf("%s: %v", name, got)
		}
		if got.Type != row.kind {
			t.Errorf("%s: type %s, want %s", name, got.Type, row.kind)
		}
		if !strings.Contains(got.Stack, row.culprit) {
			t.Errorf("%s: the stack does not show %s:\n%s", name, row.culprit, got.Stack)
		}
	}
}

//go:noinline
func outOfBreath(value any) { panic(value) }
