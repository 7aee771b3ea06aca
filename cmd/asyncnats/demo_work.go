package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// digest is the demo's task: read a file.
var digest = asyncnats.Define[string, fileDigest]("file.digest")

// fileDigest is the result of reading a file.
type fileDigest struct {
	Size   int64  `json:"size"`
	Lines  int    `json:"lines"`
	SHA256 string `json:"sha256"`
}

// digest reads a file of the demo's folder, and no other.
func (d *demo) digest(ctx context.Context, path string) (fileDigest, error) {
	file, err := d.root.Open(path)
	if err != nil {
		return fileDigest{}, err
	}
	defer file.Close()
	hash, lines := sha256.New(), &lineCounter{}
	size, err := io.Copy(io.MultiWriter(hash, lines), &untilDone{ctx, file})
	if err != nil {
		return fileDigest{}, err
	}
	return fileDigest{Size: size, Lines: lines.total(), SHA256: hex.EncodeToString(hash.Sum(nil))}, nil
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

// Read implements [io.Reader].
func (u *untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}

// lineCounter counts lines; the last need not end.
type lineCounter struct {
	ended int
	open  bool
}

// Write implements [io.Writer].
func (l *lineCounter) Write(p []byte) (int, error) {
	l.ended += bytes.Count(p, []byte("\n"))
	if len(p) > 0 {
		l.open = p[len(p)-1] != '\n'
	}
	return len(p), nil
}

func (l *lineCounter) total() int {
	if l.open {
		return l.ended + 1
	}
	return l.ended
}

// errEnough ends a walk.
var errEnough = errors.New("enough files")

// listFiles lists up to limit regular files below dir, as paths within it.
// more says that there are others. What is below a folder that cannot be read
// is left out, and .git always.
func listFiles(ctx context.Context, dir string, limit int) (files []string, more bool, err error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, usagef("no folder %s: name one that exists", dir)
	case err != nil:
		return nil, false, err
	case !info.IsDir():
		return nil, false, usagef("%s is not a folder: name the one that it is in", dir)
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && path == dir:
			return err
		case err != nil:
			return nil //nolint:nilerr // a folder that cannot be read is passed over, as find does
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		case len(files) == limit:
			return errEnough
		}
		within, err := filepath.Rel(dir, path)
		files = append(files, within)
		return err
	})
	if errors.Is(err, errEnough) {
		return files, true, nil
	}
	return files, false, err
}

func putFiles(ctx context.Context, q *asyncnats.Queue, files []string) ([]*asyncnats.Job[fileDigest], error) {
	calls := make([]asyncnats.Call[fileDigest], len(files))
	for i, path := range files {
		calls[i] = digest.Call(path)
	}
	return asyncnats.PutMany(ctx, q, calls...)
}

// fileResult is what became of a file's job, by its record.
type fileResult struct {
	path       string
	digest     fileDigest
	failure    *job.Failure
	dispatcher string
	agent      string
	took       time.Duration
}

// collect reads the jobs' records, in the order of files.
func collect(ctx context.Context, q *asyncnats.Queue, jobs []*asyncnats.Job[fileDigest], files []string) ([]fileResult, error) {
	completed, err := q.Jobs(ctx, len(jobs), job.Completed)
	if err != nil {
		return nil, err
	}
	records := make(map[job.ID]*job.Record, len(completed))
	for _, status := range completed {
		records[status.ID] = status.Record
	}
	results := make([]fileResult, len(files))
	for i, j := range jobs {
		record := records[j.ID()]
		if record == nil {
			return nil, fmt.Errorf("job %s for %s has no record", j.ID(), files[i])
		}
		results[i] = fileResult{
			path: files[i], failure: record.Outcome.Failure,
			dispatcher: record.Attempt.Dispatcher, agent: record.Attempt.Agent,
			took: record.Ended.Sub(record.Started),
		}
		if err := record.Outcome.Result.Decode(&results[i].digest); err != nil {
			return nil, fmt.Errorf("result for %s: %w", files[i], err)
		}
	}
	return results, nil
}
