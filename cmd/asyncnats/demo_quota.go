package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

const (
	// packQuota limits how many files are compressed at once, to fewer than one
	// dispatcher alone has places for.
	packQuota = "pack"
	packSize  = 2
	// packFiles is how many files are compressed, packMost how much of each:
	// enough to see the quota at work.
	packFiles = 20
	packMost  = 256 << 10
)

// pack is the demo's second task: compress a file, at so many at once.
var pack = asyncnats.Define[string, packed]("file.pack").Quota(packQuota)

// packed is the result of compressing a file, or several: sizes in bytes.
type packed struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// pack compresses a file of the demo's folder, and keeps nothing of it.
func (d *demo) pack(ctx context.Context, path string) (packed, error) {
	defer d.packing.enter()()
	file, err := d.root.Open(path)
	if err != nil {
		return packed{}, err
	}
	defer file.Close()
	var to countWriter
	compress, err := gzip.NewWriterLevel(&to, gzip.BestCompression)
	if err != nil {
		return packed{}, err
	}
	from, err := io.Copy(compress, io.LimitReader(&untilDone{ctx, file}, packMost))
	if err == nil {
		err = compress.Close()
	}
	if err != nil {
		return packed{}, err
	}
	return packed{From: from, To: int64(to)}, nil
}

// countWriter counts what is written to it.
type countWriter int64

// Write implements [io.Writer].
func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}

// gauge measures how many of something are under way at once.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

// enter counts one more until leave is called.
func (g *gauge) enter() (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now++
	g.most = max(g.most, g.now)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.now--
	}
}

// peak is the most that were under way at once.
func (g *gauge) peak() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most
}

// packResult is what became of the jobs under the quota.
type packResult struct {
	jobs, failed int
	packed       packed
	atOnce       int           // that ran, at most; measured
	elapsed      time.Duration // from the first put to the last outcome
}

// packLargest puts a job for each of the largest files, which name a quota, and
// waits for them.
func (d *demo) packLargest(ctx context.Context, q *asyncnats.Queue, results []fileResult) (done packResult, err error) {
	if err := q.CreateQuota(ctx, packQuota, packSize); err != nil {
		return done, err
	}
	sorted := slices.Clone(results)
	slices.SortStableFunc(sorted, func(a, b fileResult) int { return cmp.Compare(b.digest.Size, a.digest.Size) })
	var calls []asyncnats.Call[packed]
	for _, r := range sorted[:min(packFiles, len(sorted))] {
		calls = append(calls, pack.Call(r.path))
	}
	began := time.Now()
	jobs, err := asyncnats.PutMany(ctx, q, calls...)
	if err != nil {
		return done, err
	}
	for _, j := range jobs {
		one, err := j.Wait(ctx)
		if _, failed := errors.AsType[*job.Failure](err); failed {
			done.failed++
		} else if err != nil {
			return done, err
		}
		done.packed.From += one.From
		done.packed.To += one.To
	}
	done.jobs, done.atOnce, done.elapsed = len(jobs), d.packing.peak(), time.Since(began)
	return done, nil
}

// printPacked prints what became of the jobs under the quota.
func printPacked(w io.Writer, r packResult) {
	fmt.Fprintf(w, "%s under a quota of %d, on %d places: at most %d at once, %s compressed to %s in %s, %d failed.\n",
		plural(r.jobs, "job"), packSize, places(), r.atOnce, size(r.packed.From), size(r.packed.To), took(r.elapsed), r.failed)
}
