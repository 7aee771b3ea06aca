package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// printDemo prints a row for each file, up to rows; failed ones are among them
// first.
func printDemo(w io.Writer, results []fileResult, rows int) {
	shown := slices.Clone(results)
	slices.SortStableFunc(shown, func(a, b fileResult) int {
		return cmp.Compare(rank(a), rank(b))
	})
	shown = shown[:min(rows, len(shown))]
	t := newTable(w, "file", "size", "lines", "sha-256", "dispatcher", "agent", "took")
	alignRight(t, 2, 3, 7)
	for _, r := range shown {
		row := []any{lastPart(r.path, 44), size(r.digest.Size), r.digest.Lines, r.digest.SHA256[:min(12, len(r.digest.SHA256))]}
		if r.failure != nil {
			row = []any{lastPart(r.path, 44), "failed", "", firstLine(r.failure.Error(), 44)}
		}
		t.AppendRow(append(row, short(r.dispatcher), r.agent, took(r.took)))
	}
	t.Render()
	if hidden := len(results) - len(shown); hidden > 0 {
		fmt.Fprintf(w, "… and %d more\n", hidden)
	}
}

func rank(r fileResult) int {
	if r.failure != nil {
		return 0
	}
	return 1
}

// share is what one dispatcher did.
type share struct {
	dispatcher, agent string
	jobs, failed      int
	bytes             int64
	busy              time.Duration
}

// shares sums up the results by dispatcher.
func shares(results []fileResult) []*share {
	var all []*share
	for _, r := range results {
		i := slices.IndexFunc(all, func(s *share) bool { return s.dispatcher == r.dispatcher })
		if i < 0 {
			i = len(all)
			all = append(all, &share{dispatcher: r.dispatcher, agent: r.agent})
		}
		all[i].jobs++
		all[i].bytes += r.digest.Size
		all[i].busy += r.took
		if r.failure != nil {
			all[i].failed++
		}
	}
	slices.SortFunc(all, func(a, b *share) int { return cmp.Compare(a.agent, b.agent) })
	return all
}

// printTotals prints what each dispatcher did, and all together.
func printTotals(w io.Writer, results []fileResult, elapsed time.Duration) {
	fmt.Fprintln(w)
	t := newTable(w, "dispatcher", "agent", "jobs", "failed", "read", "busy")
	alignRight(t, 3, 4, 5, 6)
	var bytes int64
	failed := 0
	for _, s := range shares(results) {
		t.AppendRow([]any{short(s.dispatcher), s.agent, s.jobs, s.failed, size(s.bytes), took(s.busy)})
		bytes += s.bytes
		failed += s.failed
	}
	t.Render()
	fmt.Fprintf(w, "\n%s in %s: %.0f jobs/s, %s read, %d failed.\n",
		plural(len(results), "job"), took(elapsed), float64(len(results))/elapsed.Seconds(), size(bytes), failed)
}
