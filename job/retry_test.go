package job_test

import (
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
