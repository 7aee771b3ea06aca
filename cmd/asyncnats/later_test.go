//go:build unix

package main

import (
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("here", 2*60*60)
	now := time.Date(2026, 5, 1, 12, 30, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"2026-05-01T07:00:00Z":         time.Date(2026, 5, 1, 7, 0, 0, 0, time.UTC),
		"2026-05-01T07:00:00.25+02:00": time.Date(2026, 5, 1, 5, 0, 0, 250_000_000, time.UTC),
		"2026-05-03 07:00":             time.Date(2026, 5, 3, 7, 0, 0, 0, zone),
		"2026-05-03 07:00:30":          time.Date(2026, 5, 3, 7, 0, 30, 0, zone),
		"2026-05-03":                   time.Date(2026, 5, 3, 0, 0, 0, 0, zone),
		"12:31":                        time.Date(2026, 5, 1, 12, 31, 0, 0, zone),
		"12:30":                        time.Date(2026, 5, 2, 12, 30, 0, 0, zone),
		"07:00:01":                     time.Date(2026, 5, 2, 7, 0, 1, 0, zone),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "tomorrow", "25:00", "2026-13-01"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// What is put for later can be looked at, cancelled and taken back.
func TestLater(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	x := newTool(t, s.ClientURL())
	x.ok("queue", "add", "default")
	contains(t, x.ok("put", "mail.send", `{"to":"ada"}`, "--in", "1h", "--within", "10m", "--retry", "5", "--retry-min", "2s", "--id", "one"), "one")
	contains(t, x.ok("put", "mail.send", "2", "--at", "2099-01-01T00:00:00Z", "--unique", "ada"), "mail=send/ada")
	contains(t, x.ok("job", "ls"), "due in", "one", "mail=send/ada")
	contains(t, x.ok("job", "show", "one"), "pending", "due", ", in ")
	var shown view
	x.json(&shown, "job", "show", "mail=send/ada")
	if !shown.Due.Equal(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("due %v", shown.Due)
	}
	if r := x.run("", "put", "mail.send", "3", "--unique", "ada"); r.code != exitFailed {
		t.Errorf("a second: %+v", r)
	} else {
		contains(t, r.err, "mail=send/ada", "exists")
	}
	contains(t, x.ok("put", "mail.send", "3", "--unique", "ada", "--replace", "--in", "2h"), "mail=send/ada")
	contains(t, x.ok("job", "pull", "mail=send/ada"), "mail=send/ada taken back: mail.send 3")
	contains(t, x.ok("job", "cancel", "one"), "one cancelled, it was pending")
	contains(t, x.ok("job", "show", "one"), "completed: cancelled", "failure     cancelled: it was pending")
	if r := x.run("", "job", "cancel", "one"); r.code != exitFailed {
		t.Errorf("again: %+v", r)
	}
	x.ok("put", "mail.send", "4", "--id", "next", "--in", "1h")
	if r := x.run("", "job", "cancel", "one", "none", "next"); r.code != exitNotFound {
		t.Errorf("several: %+v", r)
	} else {
		contains(t, r.err, "one in queue default: the job is over", "job none")
		contains(t, r.out, "next cancelled")
	}
	x.ok("put", "mail.send", "4", "--id", "two", "--in", "1h")
	var done []cancelled
	x.json(&done, "job", "cancel", "two")
	if len(done) != 1 || done[0].ID != "two" || done[0].Was != job.Pending {
		t.Errorf("%+v", done)
	}
	x.ok("put", "mail.send", "5", "--id", "three", "--in", "1h")
	var back []pulled
	x.json(&back, "job", "pull", "three")
	if len(back) != 1 || string(back[0].Arg) != "5" || back[0].Begin.IsZero() {
		t.Errorf("%+v", back)
	}
	for _, args := range [][]string{
		{"--in", "1h", "--at", "07:00"}, {"--once", "--retry", "2"}, {"--at", "soon"}, {"--id", "x", "--unique", "y"},
		{"--unique", "x", "--count", "2"}, {"--replace"}, {"--retry-cap", "1s", "--retry-min", "2s"}, {"--within=-1s"},
	} {
		if r := x.run("", append([]string{"put", "mail.send", "1"}, args...)...); r.code == exitOK {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
