package job_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

func TestAfterInterrupt(t *testing.T) {
	const always = 1 << 40
	rows := map[string]struct {
		retry job.Retry
		times int // how often the job is started again
	}{
		"default":           {job.Retry{}, job.DefaultInterrupts},
		"once":              {job.Retry{Interrupts: 1}, 1},
		"thrice":            {job.Retry{Interrupts: 3}, 3},
		"as the default":    {job.Retry{Interrupts: 9}, 9},
		"more than default": {job.Retry{Interrupts: 100}, 100},
		"forever":           {job.Retry{Interrupts: job.Forever}, always},
		"never":             {job.Retry{Never: true}, 0},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			if err := row.retry.Check(); err != nil {
				t.Fatal(err)
			}
			for n := 1; n <= 200; n++ {
				if got, want := row.retry.AfterInterrupt(n), n <= row.times; got != want {
					t.Errorf("interrupted %d times: started again is %t, want %t", n, got, want)
				}
			}
			if row.times == always && !row.retry.AfterInterrupt(1<<40) {
				t.Error("forever ends")
			}
		})
	}
	if job.DefaultInterrupts != 9 {
		t.Errorf("the default is %d, and 9 is written down in docs/protocol.md", job.DefaultInterrupts)
	}
}

func TestRetryCheck(t *testing.T) {
	rows := map[string]struct {
		retry job.Retry
		want  string // part of the error; "" for none
	}{
		"default":            {job.Retry{}, ""},
		"never":              {job.Retry{Never: true}, ""},
		"forever":            {job.Retry{Interrupts: job.Forever}, ""},
		"below forever":      {job.Retry{Interrupts: -2}, "must be 0"},
		"never and some":     {job.Retry{Never: true, Interrupts: 1}, "exclude each other"},
		"never and for ever": {job.Retry{Never: true, Interrupts: job.Forever}, "exclude each other"},
		"max for ever":       {job.Retry{Max: job.Forever, Min: time.Hour, Jitter: -1}, ""},
		"max below for ever": {job.Retry{Max: -2}, "must be 0 (none)"},
		"never and max":      {job.Retry{Never: true, Max: 1}, "exclude each other"},
		"negative min":       {job.Retry{Min: -1}, "must not be negative"},
		"negative cap":       {job.Retry{Cap: -1}, "must not be negative"},
		"cap below min":      {job.Retry{Min: 2, Cap: 1}, "shorter than min"},
		"jitter of 1":        {job.Retry{Jitter: 1}, ""},
		"jitter above 1":     {job.Retry{Jitter: 1.1}, "at most 1"},
		"jitter no number":   {job.Retry{Jitter: math.NaN()}, "at most 1"},
	}
	for name, row := range rows {
		checkError(t, name, row.retry.Check(), row.want)
	}
}

func TestKeep(t *testing.T) {
	rows := map[string]struct {
		keep job.Keep
		text string
	}{
		"default":     {job.KeepDefault, "default"},
		"none":        {job.KeepNone, "none"},
		"second":      {job.KeepFor(time.Second), "1s"},
		"half hour":   {job.KeepFor(30 * time.Minute), "30m0s"},
		"week":        {job.KeepFor(7 * 24 * time.Hour), "168h0m0s"},
		"shortest":    {job.KeepFor(1), "1ns"},
		"longest":     {job.KeepFor(1<<63 - 1), "2562047h47m16.854775807s"},
		"with a part": {job.KeepFor(1500 * time.Millisecond), "1.5s"},
	}
	for name, row := range rows {
		if got := row.keep.String(); got != row.text {
			t.Errorf("%s: String() = %q, want %q", name, got, row.text)
		}
		if got, err := job.ParseKeep(row.text); got != row.keep || err != nil {
			t.Errorf("%s: ParseKeep(%q) = %d, %v; want %d", name, row.text, got, err, row.keep)
		}
		checkError(t, name, row.keep.Check(), "")
	}
	if got, err := job.ParseKeep(""); got != job.KeepDefault || err != nil {
		t.Errorf("ParseKeep of nothing = %d, %v", got, err)
	}
	for _, text := range []string{"0", "0s", "-1s", "-1ns", "forever", "None", " none", "1", "1d", "9999999h"} {
		_, err := job.ParseKeep(text)
		checkError(t, text, err, "must be none, default or a positive duration like 30m")
	}
	checkError(t, "negative", job.Keep(-2).Check(), "use KeepNone")
}

// checkError reports an error that does not have want in its text, or, where
// want is empty, any error.
func checkError(t *testing.T, row string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", row, err)
	case want != "" && err == nil:
		t.Errorf("%s: no error, want one that says %q", row, want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%s: error %q does not say %q", row, err, want)
	}
}

func TestDelay(t *testing.T) {
	const none = -1
	for name, row := range map[string]struct {
		retry job.Retry
		want  []time.Duration // of the first errors
		last  time.Duration   // of the thousandth
	}{
		"default":       {job.Retry{Jitter: none}, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}, 10 * time.Minute},
		"min":           {job.Retry{Min: time.Minute, Jitter: none}, []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute}, 10 * time.Minute},
		"long min":      {job.Retry{Min: time.Hour, Jitter: none}, []time.Duration{time.Hour, time.Hour}, time.Hour},
		"cap":           {job.Retry{Cap: 3 * time.Second, Jitter: none}, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, 3 * time.Second},
		"short cap":     {job.Retry{Cap: time.Millisecond, Jitter: none}, []time.Duration{time.Millisecond}, time.Millisecond},
		"both, same":    {job.Retry{Min: time.Minute, Cap: time.Minute, Jitter: none}, []time.Duration{time.Minute, time.Minute}, time.Minute},
		"for centuries": {job.Retry{Cap: math.MaxInt64, Jitter: none}, nil, job.MaxDelay},
		"at random":     {job.Retry{Min: math.MaxInt64, Cap: math.MaxInt64, Jitter: 1}, nil, job.MaxDelay},
	} {
		t.Run(name, func(t *testing.T) {
			if err := row.retry.Check(); err != nil {
				t.Fatal(err)
			}
			for i, want := range row.want {
				if got := row.retry.Delay(i + 1); got != want {
					t.Errorf("after error %d: %v, want %v", i+1, got, want)
				}
			}
			if got := row.retry.Delay(1000); got != row.last {
				t.Errorf("after error 1000: %v, want %v", got, row.last)
			}
		})
	}
}

// A delay is made longer, by no more than the policy says, and not always by the same.
func TestJitter(t *testing.T) {
	for _, retry := range []job.Retry{{}, {Jitter: 1}, {Jitter: 0.01}} {
		most := time.Duration(cmp.Or(retry.Jitter, job.DefaultJitter) * float64(time.Second))
		shortest, longest := time.Hour, time.Duration(0)
		for range 1000 {
			d := retry.Delay(1) - time.Second
			shortest, longest = min(shortest, d), max(longest, d)
		}
		if shortest < 0 || longest > most || longest < most*9/10 || shortest > most/10 {
			t.Errorf("jitter %v: added %v to %v, want nothing to %v", retry.Jitter, shortest, longest, most)
		}
	}
}

func TestAgain(t *testing.T) {
	broken := errors.New("broken")
	four := job.Retry{Max: 4, Jitter: -1}
	for name, row := range map[string]struct {
		retry  job.Retry
		before job.Tally
		err    error
		again  bool
		delay  time.Duration
		now    job.Tally
	}{
		"no policy":                {err: broken, now: job.Tally{Errors: 1}},
		"first":                    {retry: four, err: broken, again: true, delay: time.Second, now: job.Tally{Errors: 1}},
		"fourth":                   {retry: four, before: job.Tally{Errors: 3, Interrupts: 9, Snoozes: 9}, err: broken, again: true, delay: 8 * time.Second, now: job.Tally{Errors: 4, Interrupts: 9, Snoozes: 9}},
		"fifth":                    {retry: four, before: job.Tally{Errors: 4}, err: broken, now: job.Tally{Errors: 5}},
		"panic":                    {retry: four, err: job.FailureOfPanic("boo"), again: true, delay: time.Second, now: job.Tally{Errors: 1}},
		"for ever":                 {retry: job.Retry{Max: job.Forever, Cap: time.Second, Jitter: -1}, before: job.Tally{Errors: 999}, err: broken, again: true, delay: time.Second, now: job.Tally{Errors: 1000}},
		"never":                    {retry: job.Retry{Never: true}, err: job.RetryAfter(1, broken), now: job.Tally{Errors: 1}},
		"permanent":                {retry: four, err: fmt.Errorf("deep down: %w", job.Permanent(broken)), now: job.Tally{Errors: 1}},
		"invalid":                  {retry: four, err: job.Invalidf("argument"), now: job.Tally{Errors: 1}},
		"retry after":              {err: fmt.Errorf("deep down: %w", job.RetryAfter(time.Minute, broken)), again: true, delay: time.Minute, now: job.Tally{Errors: 1}},
		"retry after, exhausted":   {retry: four, before: job.Tally{Errors: 4}, err: job.RetryAfter(time.Minute, broken), now: job.Tally{Errors: 5}},
		"retry now":                {err: job.RetryAfter(-time.Minute, broken), again: true, now: job.Tally{Errors: 1}},
		"snooze":                   {err: fmt.Errorf("deep down: %w", job.Snooze(time.Hour)), again: true, delay: time.Hour, now: job.Tally{Snoozes: 1}},
		"snooze for ever":          {err: job.Snooze(math.MaxInt64), again: true, delay: job.MaxDelay, now: job.Tally{Snoozes: 1}},
		"retry after ages":         {err: job.RetryAfter(math.MaxInt64, broken), again: true, delay: job.MaxDelay, now: job.Tally{Errors: 1}},
		"snooze, errors exhausted": {retry: four, before: job.Tally{Errors: 4, Snoozes: 100}, err: job.Snooze(0), again: true, now: job.Tally{Errors: 4, Snoozes: 101}},
		"snooze, at most once":     {retry: job.Retry{Never: true}, err: job.Snooze(1), again: true, delay: 1, now: job.Tally{Snoozes: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for what, err := range map[string]error{"error": row.err, "verdict": job.Verdict(row.err)} {
				again, delay, now := row.retry.Again(row.before, err)
				if again != row.again || again && delay != row.delay || now != row.now {
					t.Errorf("%s: again %t in %v with %+v, want %t in %v with %+v", what, again, delay, now, row.again, row.delay, row.now)
				}
			}
		})
	}
}

// What marks an error is no part of it: it reads as before, and is recorded so.
func TestMarkedErrors(t *testing.T) {
	for _, marked := range []error{job.Permanent(io.EOF), job.RetryAfter(time.Second, io.EOF)} {
		if f := job.FailureOf(marked); marked.Error() != "EOF" || !errors.Is(marked, io.EOF) || f.Message != "EOF" || f.Type != "*errors.errorString" || f.Stack != "" {
			t.Errorf("%v is recorded as %+v", marked, f)
		}
	}
	if got := job.Snooze(time.Minute).Error(); got != "snoozed for 1m0s" {
		t.Error(got)
	}
}

func TestPast(t *testing.T) {
	var r job.Record
	for i := range 2 * job.MaxPast {
		r.Failed(job.Failure{Attempt: i + 1, Stack: "long"})
	}
	for i, f := range r.Past {
		if f.Attempt != job.MaxPast+i+1 || f.Stack != "" {
			t.Errorf("%d: %+v", i, f)
		}
	}
	if len(r.Past) != job.MaxPast {
		t.Errorf("%d are kept", len(r.Past))
	}
}
