package agents

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// bury keeps a job whose record says that it failed, other than by being
// cancelled: for people to look at, and to put it again. It tries again and again
// while the lease is held, and reports whether the job's message may go. It may
// not where that was not long enough; then whoever is given it next does it.
//
// What the server refuses is said in the log, and holds up nothing: the record
// has the failure.
func (a *attempt) bury(record job.Record) (done bool) {
	if record.Outcome == nil || record.Outcome.Succeeded() || record.EndedAs(job.KindCancelled) || record.EndedAs(job.KindAbsent) {
		return true
	}
	dead := job.Dead{Version: job.DeadVersion, Body: a.lease.Body, Record: record}
	var refused error
	err := a.exchange(func(ctx context.Context) error {
		err := a.runner.config.Queue.Bury(ctx, a.lease.ID, dead)
		if err != nil && !errors.Is(err, stream.ErrUnanswered) && !errors.Is(err, nats.ErrConnectionClosed) {
			refused, err = err, nil
		}
		return err
	})
	switch {
	case err != nil:
		a.log("failed job not kept yet, will be when its message comes back", err)
		return false
	case refused != nil:
		a.log("failed job not kept: it is not listed and cannot be put again", refused)
	}
	return true
}
