package asyncnats

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Progress is how far a job has come. It is the job's annotation of the name
// ProgressAnnotation, in which other programs may set it too.
type Progress struct {
	// Done of Total units are done; a Total of 0 says that it is not known.
	Done  int64 `json:"done"`
	Total int64 `json:"total,omitempty"`
	// Text says what is done now; it is cut at a thousand bytes.
	Text string `json:"text,omitempty"`
}

// ProgressAnnotation is the name of the annotation that holds a job's Progress.
const ProgressAnnotation = stream.ProgressNote

// maxProgressText is how many bytes of a Progress's text are kept.
const maxProgressText = 1000

// String says it in a few words: "3 of 10 (30%), resizing".
func (p Progress) String() string {
	text := fmt.Sprint(p.Done)
	if p.Total > 0 {
		text = fmt.Sprintf("%d of %d (%d%%)", p.Done, p.Total, p.percent())
	}
	switch {
	case p.Text == "":
		return text
	case p.Done == 0 && p.Total == 0:
		return p.Text
	}
	return text + ", " + p.Text
}

// percent is 100 only where all is done.
func (p Progress) percent() int64 {
	if p.Done >= p.Total {
		return 100
	}
	return min(99, int64(float64(p.Done)/float64(p.Total)*100))
}

// Report says, in a handler, how far its job has come. It is cheap in a loop: it
// does not wait for the server, and of what is reported within a quarter of a
// second the last is written, and written before the outcome is, unless the server
// takes longer than a second for it. That it cannot be written is a warning in the
// dispatcher's log, and fails no job. A later attempt begins with what the one before has
// reported.
//
// The error is [ErrNoSelf] outside of a handler, or that a number is negative.
func Report(ctx context.Context, p Progress) error {
	self, ok := stream.FromContext(ctx)
	if !ok {
		return fmt.Errorf("asyncnats: report progress: %w: call this in a handler, with the context that it was given", ErrNoSelf)
	}
	if p.Done < 0 || p.Total < 0 {
		return fmt.Errorf("asyncnats: report progress: %d of %d: must not be negative; a total of 0 says that it is not known", p.Done, p.Total)
	}
	p.Text = shorten(p.Text)
	value, err := job.Encode(p, job.MsgPack)
	if err != nil {
		return fmt.Errorf("asyncnats: report progress: %w", err)
	}
	self.Report(value)
	return nil
}

// shorten cuts a text at maxProgressText, between two runes.
func shorten(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxProgressText {
		return text
	}
	end := maxProgressText - len("…")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// Progress returns how far the job has come, as its handler has reported last. Of a
// composition, or a job that was handed on, it is how many of its parts are completed,
// where nobody has set the annotation: parts that are compositions count as the parts that
// they have, once they have begun, unless there are more than a hundred beside each other.
// reported is false where nothing is known.
func (j *Job[R]) Progress(ctx context.Context) (p Progress, reported bool, err error) {
	if p, reported, err = Annotation[Progress](ctx, j, ProgressAnnotation); reported || err != nil {
		return p, reported, err
	}
	if p, reported, err = j.wholeProgress(ctx); err != nil {
		return Progress{}, false, fmt.Errorf("asyncnats: progress of job %s: %w", j.id, err)
	}
	return p, reported, nil
}
