package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	const files = 200
	x := newTool(t, "nats://127.0.0.1:1")
	for i := range files - 1 {
		x.write(fmt.Sprintf("files/%02d/file", i), strings.Repeat("line\n", i))
	}
	const first = "a\nb\nno end"
	x.write("files/00/a", first)
	x.write("files/.git/HEAD", "skipped")
	if err := os.Symlink("a", filepath.Join(x.dir, "files/00/link")); err != nil {
		t.Fatal(err)
	}
	x.env = append(x.env, "TMPDIR="+t.TempDir())
	var out string
	var rows [][]string
	for range 5 { // one of the two dispatchers may have done it all
		out = x.ok("demo", "files", "--rows", "5")
		rows = regexp.MustCompile(`(?m)^[0-9a-f]{8}    (main|reader) +(\d+) `).FindAllStringSubmatch(out, -1)
		if len(rows) == 2 {
			break
		}
	}
	sum := sha256.Sum256([]byte(first))
	contains(t, out,
		"200 files in files", "… and 195 more", "\n200 jobs in ", "0 failed.", "00/a", hex.EncodeToString(sum[:6]), "10 B      3")
	if strings.Contains(out, "HEAD") || strings.Contains(out, "link") {
		t.Errorf("files that are to be skipped:\n%s", out)
	}
	total := 0
	for _, row := range rows {
		jobs, _ := strconv.Atoi(row[2])
		total += jobs
	}
	if len(rows) != 2 || total != files {
		t.Errorf("%d dispatchers did %d jobs, want 2 and %d:\n%s", len(rows), total, files, out)
	}
	left, err := filepath.Glob(filepath.Join(strings.TrimPrefix(x.env[len(x.env)-1], "TMPDIR="), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestDemoQuota: what the demo says of its quota is what its handlers saw.
func TestDemoQuota(t *testing.T) {
	t.Parallel()
	x := newTool(t, "")
	for i := range 12 {
		noise := make([]byte, packMost+1)
		rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
		x.write(fmt.Sprintf("files/%d", i), string(noise))
	}
	out := x.ok("demo", "files")
	if !regexp.MustCompile(`(?m)^12 jobs under a quota of 2, on 6 places: at most [12] at once, 3\.1 MB compressed to .*, 0 failed\.$`).MatchString(out) {
		t.Error(out)
	}
}

func TestGauge(t *testing.T) {
	var g gauge
	first, second := g.enter(), g.enter()
	first()
	third := g.enter()
	second()
	third()
	if g.peak() != 2 || g.now != 0 {
		t.Errorf("%d at once, %d now, want 2 and 0", g.peak(), g.now)
	}
}

func TestDemoLimit(t *testing.T) {
	t.Parallel()
	x := newTool(t, "")
	for _, name := range []string{"a", "b", "c"} {
		x.write("files/"+name, name)
	}
	contains(t, x.ok("demo", "files", "--limit", "2"), "2 files in", "more files in files: --limit 2")
}

// TestDemoFailure: a file that cannot be read is a row among the others.
func TestDemoFailure(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "here"), []byte("text\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	d := &demo{root: root, token: "secret", log: t.Output()}
	done, err := d.run(t.Context(), []string{"here", "gone"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	printDemo(&out, done.files, 20)
	printTotals(&out, done.files, done.elapsed)
	printPacked(&out, done.packed)
	contains(t, out.String(), "here  ", "gone  failed", "no such file", "2 jobs in", "read, 1 failed.",
		"\n2 jobs under a quota of 2", ", 5 B compressed to ", "s, 1 failed.")
}

func TestLineCounter(t *testing.T) {
	for _, row := range []struct {
		text string
		want int
	}{{"", 0}, {"a", 1}, {"a\n", 1}, {"a\nb", 2}, {"\n\n", 2}} {
		var l lineCounter
		for i := range len(row.text) {
			_, _ = l.Write([]byte(row.text[i : i+1]))
		}
		if l.total() != row.want {
			t.Errorf("%q: %d lines, want %d", row.text, l.total(), row.want)
		}
	}
}
