package main

import (
	"fmt"
	"os/user"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func TestParseAgent(t *testing.T) {
	for _, row := range []struct {
		text string
		want agents.Agent
		err  string
	}{
		{"name=main", agents.Agent{Name: "main"}, ""},
		{"name=a,size=7,queue=media", agents.Agent{Name: "a", Size: 7, Queue: "media"}, ""},
		{"size=1, name=a", agents.Agent{Name: "a", Size: 1}, ""},
		{"name=a,filter=image.>|mail.send,filter=x.*", agents.Agent{Name: "a", Filter: []string{"image.>", "mail.send", "x.*"}}, ""},
		{"name=a,prefer=x|y.>,prefer=z", agents.Agent{Name: "a", Prefer: []string{"x", "y.>", "z"}}, ""},
		{"name=a,prefer=>.x", agents.Agent{}, "illegal preference"},
		{"", agents.Agent{}, "not key=value"},
		{"main", agents.Agent{}, "not key=value"},
		{"name=", agents.Agent{}, "not key=value"},
		{"size=3", agents.Agent{}, "name is missing"},
		{"name=a,name=b", agents.Agent{}, "name is there twice"},
		{"name=a,size=0", agents.Agent{}, "not a positive number"},
		{"name=a,size=many", agents.Agent{}, "not a positive number"},
		{"name=a,colour=red", agents.Agent{}, "unknown key"},
		{"name=a b", agents.Agent{}, "illegal agent name"},
		{"name=a,filter=>.x", agents.Agent{}, "illegal filter"},
		{"name=a,filter=x||y", agents.Agent{}, "illegal filter"},
		{"name=a,queue=x.y", agents.Agent{}, "illegal queue name"},
	} {
		var got agentFlag
		err := got.UnmarshalText([]byte(row.text))
		if row.err != "" {
			if err == nil || !strings.Contains(err.Error(), row.err) || !strings.Contains(err.Error(), "must be like name=main") {
				t.Errorf("%q: error %v, want %q and the form", row.text, err, row.err)
			}
			continue
		}
		if diff := cmp.Diff(row.want, agents.Agent(got)); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", row.text, err, diff)
		}
	}
}

// Who has no home folder has no contexts, and connects all the same.
func TestHomeless(t *testing.T) {
	known := func() (*user.User, error) { return &user.User{HomeDir: "/home/ada"}, nil }
	unknown := func() (*user.User, error) { return nil, user.UnknownUserIdError(1000) }
	for name, row := range map[string]struct {
		config  string // XDG_CONFIG_HOME
		current func() (*user.User, error)
		want    bool
	}{
		"user with a home":         {"", known, false},
		"user without a name":      {"", unknown, true},
		"with a folder of its own": {"/config", unknown, false},
	} {
		if got := homeless(func(string) string { return row.config }, row.current); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	s := natstest.Start(t, nil)
	c := connection{URL: s.ClientURL()}
	nc, settings, err := withoutContext("", func(o *nats.Options) error { return c.override(o, new([]string)) })
	if err != nil || settings.JSDomain != "" || nc.ConnectedUrl() != s.ClientURL() {
		t.Fatalf("%v, %v", settings, err)
	}
	nc.Close()
	if got := code(fmt.Errorf("wait: %w", nats.ErrConnectionClosed)); got != exitUnreachable {
		t.Errorf("closed for good: exit %d", got)
	}
}

func TestParseResult(t *testing.T) {
	for _, row := range []struct{ printed, want string }{
		{"", ""}, {" \n", ""},
		{"12\n", "12"}, {" {\"a\": 1}\n", `{"a": 1}`}, {"null", "null"},
		{"text\n", `"text"`}, {"two\nlines\n\n", `"two\nlines\n"`}, {"dos\r\n", `"dos"`}, {"1 2", `"1 2"`},
	} {
		got, err := parseResult([]byte(row.printed))
		if err != nil || string(got.Data) != row.want {
			t.Errorf("%q: %s %v, want %s", row.printed, got.Data, err, row.want)
		}
	}
	if _, err := parseResult([]byte{0xff, 0xfe}); err == nil {
		t.Error("binary data is a result")
	}
}

func TestHeadAndTail(t *testing.T) {
	h, end := &head{most: 4}, &tail{most: 4}
	for _, part := range []string{"ab", "cdef", "g"} {
		_, _ = h.Write([]byte(part))
		_, _ = end.Write([]byte(part))
	}
	if string(h.kept) != "abcd" || h.size != 7 {
		t.Errorf("head kept %q of %d", h.kept, h.size)
	}
	if end.appended() != ": …defg" {
		t.Errorf("tail: %q", end.appended())
	}
}

func TestTaken(t *testing.T) {
	if got := taken([]string{"a", "b"}, []string{"c"}); !strings.HasPrefix(got, "nothing") {
		t.Errorf("takes %s", got)
	}
}

func TestKeepFlag(t *testing.T) {
	var keep keepFlag
	if err := keep.UnmarshalText([]byte("30m")); err != nil || job.Keep(keep) != job.KeepFor(30*time.Minute) {
		t.Error(keep, err)
	}
}

func TestText(t *testing.T) {
	for _, row := range []struct{ got, want string }{
		{size(0), "0 B"}, {size(999), "999 B"}, {size(1000), "1.0 kB"}, {size(9_940), "9.9 kB"}, {size(9_960), "10 kB"},
		{size(999_499), "999 kB"}, {size(999_500), "1.0 MB"}, {size(12_345_678), "12 MB"},
		{took(0), "0s"}, {took(1234567), "1.23ms"}, {took(98765 * time.Millisecond), "1m38.8s"}, {took(100 * time.Hour), "100h0m0s"},
		{plural(1, "job"), "1 job"}, {plural(0, "job"), "0 jobs"},
		{short("0f0e-1"), "0f0e"},
		{firstLine("one\ntwo", 9), "one …"}, {firstLine("abcdef", 4), "abc…"}, {firstLine("abcd\n", 4), "abcd"},
		{lastPart("a/b/c", 4), "…b/c"}, {lastPart("a/b", 4), "a/b"},
		{firstLine("\x1b[31mred", 9), "\uFFFD[31mred"},
	} {
		if row.got != row.want {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
}
