package asyncnats

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// AnswerError says why a job that was asked something gave no answer: the error
// that its handler returned, as text, or a panic.
type AnswerError = stream.AnswerError

// Answer has f answer, in a handler, what its job is asked under a name, until the
// handler returns or stop is called, which may be called twice:
//
//	stop, err := asyncnats.Answer(ctx, "position", func(context.Context, asyncnats.None) (int64, error) {
//		return position.Load(), nil
//	})
//
// Questions of one name are answered one at a time, in the order in which they come,
// beside the handler: what both use needs a lock. f's context ends when the asker
// waits no longer, with the attempt, with the handler, and with stop; f must heed it,
// since it holds up the next question, and since the handler's return waits a fifth of
// a second for an answer under way, and no longer. An error of f is told to the one who
// asked, as is a panic, and does nothing to the job.
//
// Once Answer has returned questions arrive. It returns [ErrNoSelf] outside of a
// handler, a [*job.NameError] for an illegal name (the rule is that of annotations),
// and an error where the attempt answers to that name already.
func Answer[Q, A any](ctx context.Context, name string, f func(ctx context.Context, question Q) (A, error)) (stop func(), err error) {
	self, ok := stream.FromContext(ctx)
	if !ok {
		return nil, fmt.Errorf("asyncnats: answer to %s: %w: call this in a handler, with the context that it was given", name, ErrNoSelf)
	}
	stop, err = self.Answer(ctx, name, func(ctx context.Context, encoded job.Value) (job.Value, error) {
		var question Q
		if err := decodeValue(encoded, &question); err != nil {
			return job.Value{}, fmt.Errorf("the question does not fit: %w", err)
		}
		answer, err := f(ctx, question)
		if err != nil {
			return job.Value{}, err
		}
		return encodeValue(answer, encoded.Encoding)
	})
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return stop, nil
}

// Ask asks a running job something, from any process, and returns what its handler
// answers ([Answer]):
//
//	position, err := asyncnats.Ask[int64](ctx, j, "position", asyncnats.None{})
//
// It waits until ctx ends, 30 seconds where ctx has no deadline. Nothing is stored:
// a job that does not run is not asked later. For that there is [Job.Annotate].
//
// Errors: [ErrNotRunning] where nobody answers, since the job does not run now or its
// handler does not answer to that name; [*AnswerError] where the handler answers with
// an error; a [*job.NameError]; [ErrTooLarge]; [ErrPermission]; [ErrUnanswered], where
// the handler may have been asked or not.
func Ask[A, R any](ctx context.Context, j *Job[R], name string, question any) (answer A, err error) {
	err = j.queue.use(ctx, func(opened *stream.Queue) error {
		asked, err := encodeValue(question, job.MsgPack)
		if err != nil {
			return fmt.Errorf("ask job %s for %s: %w", j.id, name, err)
		}
		encoded, err := opened.Ask(ctx, j.id, j.nonce, name, asked)
		if err != nil {
			return err
		}
		if err := decodeValue(encoded, &answer); err != nil {
			return fmt.Errorf("answer of job %s to %s: %w", j.id, name, err)
		}
		return nil
	})
	return answer, err
}
