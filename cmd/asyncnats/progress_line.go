package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// showProgress shows what a job reports, where somebody looks: on a terminal, and not
// beside JSON. stop ends it, and leaves nothing on the screen.
func (a *app) showProgress(ctx context.Context, j *asyncnats.Job[job.Value], asJSON bool) (stop func()) {
	if asJSON || !isTerminal(a.err) {
		return func() {}
	}
	return follow(ctx, j, &progressLine{w: a.err})
}

// follow draws a job's progress until stop is called. One that cannot be watched is
// not drawn.
func follow(ctx context.Context, j *asyncnats.Job[job.Value], line *progressLine) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan asyncnats.Progress)
	var following sync.WaitGroup
	following.Go(func() {
		for note, err := range j.WatchAnnotations(ctx) {
			var p asyncnats.Progress
			if err != nil || note.Name != asyncnats.ProgressAnnotation || note.Removed || note.Value.Decode(&p) != nil {
				continue
			}
			select {
			case seen <- p:
			case <-ctx.Done():
			}
		}
	})
	following.Go(func() {
		defer line.clear()
		drawProgress(ctx, j, seen, line)
	})
	return func() {
		cancel()
		following.Wait()
	}
}

// partsEvery is how often it is looked how many parts of a job are completed.
const partsEvery = 500 * time.Millisecond

// drawProgress draws what is seen of a job and, where it has parts, how many of them
// are completed, until ctx ends.
func drawProgress(ctx context.Context, j *asyncnats.Job[job.Value], seen <-chan asyncnats.Progress, line *progressLine) {
	look := time.NewTicker(partsEvery)
	defer look.Stop()
	for {
		select {
		case p := <-seen:
			line.draw(p)
		case <-look.C:
			if p, reported, err := j.Progress(ctx); err == nil && reported && p != line.last {
				line.draw(p)
			}
		case <-ctx.Done():
			return
		}
	}
}

// progressLine is the last line of a terminal, with a bar where the total is known.
type progressLine struct {
	w     io.Writer
	last  asyncnats.Progress
	bar   *progressbar.ProgressBar // nil where there is none
	drawn bool
}

// draw shows a progress in the place of the one before.
func (l *progressLine) draw(p asyncnats.Progress) {
	p.Text = firstLine(p.Text, 40)
	// The bar only grows, and ends when it is full.
	if l.bar == nil || p.Total != l.last.Total || p.Done < l.last.Done || l.bar.IsFinished() {
		l.clear()
		if p.Total > 0 {
			l.bar = progressbar.NewOptions64(p.Total, progressbar.OptionSetWriter(l.w), progressbar.OptionShowCount(),
				progressbar.OptionSetWidth(30), progressbar.OptionSetDescription(p.Text))
		}
	}
	l.last, l.drawn = p, true
	if l.bar == nil {
		fmt.Fprintf(l.w, "%s%s", wipe, p)
		return
	}
	if p.Text != "" {
		l.bar.Describe(p.Text)
	}
	_ = l.bar.Set64(min(p.Done, p.Total)) // the terminal is gone, or nothing is wrong
}

// wipe empties the line that the cursor is on.
const wipe = "\r\x1b[K"

// clear leaves nothing of what was drawn.
func (l *progressLine) clear() {
	if l.drawn {
		fmt.Fprint(l.w, wipe)
	}
	l.bar, l.drawn = nil, false
}
