package dispatcher

import (
	"context"
	"errors"

	"github.com/asyncnats/asyncnats/stream"
)

// attend looks after the queue's timers that have fired until ctx ends. It takes
// no place in any agent.
func (s *station) attend(ctx context.Context) {
	s.queue.Attend(ctx, s.act, func(err error) {
		s.log.Warn("a timer is not looked after, will be tried again", "err", err)
	})
}

// act does what a timer was set for.
func (s *station) act(ctx context.Context, due stream.Due) error {
	switch due.Kind {
	case stream.TimerDeadline:
		return s.queue.Expire(ctx, due)
	case stream.TimerAdvance:
		return s.queue.AdvanceDue(ctx, due, s.link.Clock.Now())
	case stream.TimerPresence:
		return s.lookFor(ctx, due)
	case stream.TimerCron:
		return s.queue.Tick(ctx, due, s.link.Clock.Now())
	}
	return errors.New("of a kind that this release does not know: upgrade this dispatcher")
}

// keepRecurring sees to it that the queue's recurring jobs recur.
func (s *station) keepRecurring(ctx context.Context) {
	s.watch(ctx, "recurring jobs", func() error { return s.queue.KeepRecurring(ctx) })
}
