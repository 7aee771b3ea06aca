package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/asyncnats/asyncnats"
)

// joinMost is how many files are joined at most: what all return is one message.
const joinMost = 5000

// manifest is the demo's last task: make one digest of those of all files.
var manifest = asyncnats.Define[[]asyncnats.Outcome[fileDigest], joined]("file.manifest")

// joined is the result of joining what was read of several files.
type joined struct {
	Files  int    `json:"files"`
	Failed int    `json:"failed"`
	Size   int64  `json:"size"`
	Lines  int    `json:"lines"`
	SHA256 string `json:"sha256"` // of the digests of those that could be read, in order
}

// join joins what was read of files.
func join(_ context.Context, parts []asyncnats.Outcome[fileDigest]) (joined, error) {
	all := joined{Files: len(parts)}
	hash := sha256.New()
	for _, part := range parts {
		if part.Failure != nil {
			all.Failed++
			continue
		}
		all.Size += part.Result.Size
		all.Lines += part.Result.Lines
		_, _ = io.WriteString(hash, part.Result.SHA256)
	}
	all.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return all, nil
}

// joinResult is what became of the composition.
type joinResult struct {
	joined
	elapsed time.Duration // from its put to its outcome
}

// joinFiles reads files once more, in parallel, and has a job join what the parts
// returned: one composition.
func joinFiles(ctx context.Context, q *asyncnats.Queue, files []string) (done joinResult, err error) {
	parts := make([]asyncnats.Call[fileDigest], len(files))
	for i, path := range files {
		parts[i] = digest.Call(path)
	}
	began := time.Now()
	whole, err := asyncnats.Put(ctx, q, asyncnats.Then(asyncnats.Parallel(parts...), manifest))
	if err != nil {
		return done, err
	}
	if done.joined, err = whole.Wait(ctx); err != nil {
		return done, err
	}
	done.elapsed = time.Since(began)
	return done, nil
}

// printJoined prints what became of the composition.
func printJoined(w io.Writer, r joinResult) {
	fmt.Fprintf(w, "%s in parallel, joined by one more: %s in %s, digest of all %s, in %s, %d failed.\n",
		plural(r.Files, "job"), plural(r.Lines, "line"), size(r.Size), r.SHA256[:12], took(r.elapsed), r.Failed)
}
