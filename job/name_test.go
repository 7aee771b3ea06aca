package job_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats/job"
)

func TestNames(t *testing.T) {
	parseID := func(s string) error { _, err := job.ParseID(s); return err }
	kinds := []struct {
		what    string
		check   func(string) error
		longest int
		rule    string
		extra   []string // names that this kind allows and not every other
		refused []string // names that another kind allows and this one does not
	}{
		{
			"namespace", job.CheckNamespace, 32, "1 to 32 lower-case letters, digits, '-' or '_'",
			[]string{"async", "a_b-c"},
			[]string{"Async", "a.b", "a/b", "a=b"},
		},
		{
			"queue", job.CheckQueue, 64, "1 to 64 letters, digits, '-' or '_'",
			[]string{"default", "Media", "a_b-C"},
			[]string{"a.b", "a/b", "a=b"},
		},
		{
			"agent", job.CheckAgent, 64, "1 to 64 letters, digits, '-' or '_'",
			[]string{"main", "Main", "a_b-C"},
			[]string{"a.b", "a/b", "a=b"},
		},
		{
			"annotation", job.CheckAnnotation, 64, "1 to 64 letters, digits, '-' or '_'",
			[]string{"main", "Main", "a_b-C"},
			[]string{"a.b", "a/b", "a=b"},
		},
		{
			"question", job.CheckQuestion, 64, "1 to 64 letters, digits, '-' or '_'",
			[]string{"main", "Main", "a_b-C"},
			[]string{"a.b", "a/b", "a=b"},
		},
		{
			"quota", job.CheckQuota, 64, "1 to 64 letters, digits, '-' or '_'",
			[]string{"gpu", "GPU", "a_b-C"},
			[]string{"a.b", "a/b", "a=b"},
		},
		{
			"task", job.CheckTask, 128, "1 to 128 letters, digits, '-' or '_', in parts joined by single dots, like image.thumbnail",
			[]string{"image.thumbnail", "A.b-c.d_e", "a.b.c.d"},
			[]string{".", ".a", "a.", "a..b", "a/b", "a=b"},
		},
		{
			"job ID", parseID, 128, "1 to 128 letters, digits, '-', '_', '/' or '='",
			[]string{"my-1", "tenant/42", "a=b", "/", "="},
			[]string{"a.b", ".", "a+b"},
		},
	}
	legal := map[string]string{"one letter": "a", "one digit": "7", "dash": "-", "underscore": "_", "all sorts": "abc-xyz_09"}
	illegal := map[string]string{
		"empty": "", "space": "a b", "leading space": " a", "trailing space": "a ", "only space": " ",
		"tab": "a\tb", "line feed": "a\nb", "trailing line feed": "a\n", "carriage return": "a\rb",
		"star": "*", "star inside": "a*b", "greater": ">", "greater inside": "a>", "dollar": "$KV",
		"umlaut": "größe", "greek": "λ", "emoji": "a🙂", "combining": "e\u0301", "full width": "ａ",
		"invalid UTF-8": "a\xff", "NUL": "a\x00b", "DEL": "a\x7f", "backslash": `a\b`, "quote": `a"b`, "percent": "a%b", "colon": "a:b",
		"comma": "a,b", "plus": "a+b", "bang": "a!b", "at": "a@b", "brace": "{a}",
	}
	for _, kind := range kinds {
		t.Run(kind.what, func(t *testing.T) {
			good := map[string]string{"longest": strings.Repeat("a", kind.longest)}
			bad := map[string]string{"too long": strings.Repeat("a", kind.longest+1), "far too long": strings.Repeat("a", 1<<20)}
			for row, name := range legal {
				good[row] = name
			}
			for row, name := range illegal {
				bad[row] = name
			}
			for _, name := range kind.extra {
				good[name] = name
			}
			for _, name := range kind.refused {
				bad[name] = name
			}
			for row, name := range good {
				if err := kind.check(name); err != nil {
					t.Errorf("%s: %v", row, err)
				}
			}
			for row, name := range bad {
				err := kind.check(name)
				refused, ok := errors.AsType[*job.NameError](err)
				if !ok {
					t.Errorf("%s: %q: got %v, want a NameError", row, name, err)
					continue
				}
				if refused.What != kind.what || refused.Name != name || refused.Rule != kind.rule {
					t.Errorf("%s: got %#v", row, refused)
				}
				if text := err.Error(); !strings.Contains(text, "must be "+kind.rule) || !strings.Contains(text, kind.what) {
					t.Errorf("%s: %q does not state the rule", row, text)
				}
			}
		})
	}
}

// TestNamesByByte tries every single byte as a name.
func TestNamesByByte(t *testing.T) {
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for kind, row := range map[string]struct {
		check func(string) error
		legal string
	}{
		"namespace": {job.CheckNamespace, digits + lower + "-_"},
		"queue":     {job.CheckQueue, digits + lower + upper + "-_"},
		"agent":     {job.CheckAgent, digits + lower + upper + "-_"},
		"quota":     {job.CheckQuota, digits + lower + upper + "-_"},
		"task":      {job.CheckTask, digits + lower + upper + "-_"},
		"ID":        {func(s string) error { _, err := job.ParseID(s); return err }, digits + lower + upper + "-_/="},
	} {
		for b := range 256 {
			name := string([]byte{byte(b)})
			if got, want := row.check(name) == nil, strings.Contains(row.legal, name); got != want {
				t.Errorf("%s %q: legal is %t, want %t", kind, name, got, want)
			}
		}
	}
}

func TestNewID(t *testing.T) {
	var last job.ID
	for range 1000 {
		id := job.NewID()
		if parsed, err := job.ParseID(id.String()); err != nil || parsed != id {
			t.Fatalf("ParseID(%q) = %q, %v", id, parsed, err)
		}
		if id <= last {
			t.Fatalf("%q does not sort after %q", id, last)
		}
		last = id
	}
}
