package asyncnats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Jobs lists up to limit jobs of the queue in one of the states given, or in
// any where none is: those not completed first, oldest first, then the
// completed ones, newest first. It reads on until it has so many; where few of a
// long queue are in the states it may read all of it, for as long as ctx lets it.
//
// Which jobs are assigned the dispatchers are asked, for a third of a second. It is
// no picture of one moment: a job that moves meanwhile may be missing.
func (q *Queue) Jobs(ctx context.Context, limit int, states ...job.State) ([]Status, error) {
	opened, err := q.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	l := &listing{queue: q, opened: opened, limit: limit, states: states}
	if err := l.waiting(ctx); err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	if err := l.ended(ctx); err != nil {
		return nil, fmt.Errorf("asyncnats: %w", err)
	}
	return l.found, nil
}

// listing collects the jobs of a queue that are in some states.
type listing struct {
	queue  *Queue
	opened *stream.Queue
	limit  int
	states []job.State // empty for any
	who    map[job.ID]performance
	found  []Status
}

func (l *listing) wants(either ...job.State) bool {
	return len(l.states) == 0 || slices.ContainsFunc(either, func(s job.State) bool { return slices.Contains(l.states, s) })
}

func (l *listing) full() bool { return len(l.found) >= l.limit }

// waiting collects jobs that are not completed, from the places where those in the
// wanted states may be.
func (l *listing) waiting(ctx context.Context) error {
	switch {
	case l.wants(job.Pending, job.Active):
		if err := l.walk(ctx, stream.OnHand); err != nil {
			return err
		}
	case l.wants(job.Assigned):
		if err := l.performed(ctx); err != nil {
			return err
		}
	}
	if l.wants(job.Pending, job.Retrying) {
		if err := l.walk(ctx, stream.Scheduled); err != nil {
			return err
		}
	}
	if l.wants(job.Pending, job.Waiting) {
		return l.walk(ctx, stream.Waiting)
	}
	return nil
}

// walk collects from one place.
func (l *listing) walk(ctx context.Context, place stream.Place) error {
	if l.full() {
		return nil
	}
	for page, err := range l.opened.Jobs(ctx, place, l.limit) {
		if err == nil {
			err = l.add(ctx, page)
		}
		if err != nil || l.full() {
			return err
		}
	}
	return nil
}

// performed collects the jobs that dispatchers say they perform: there are few of
// them, however long the queue is.
func (l *listing) performed(ctx context.Context) error {
	if err := l.ask(ctx); err != nil {
		return err
	}
	var page []stream.Stored
	for id := range l.who {
		message, err := l.opened.Find(ctx, id)
		if errors.Is(err, ErrNoJob) {
			continue
		}
		if err != nil {
			return err
		}
		page = append(page, message)
	}
	slices.SortFunc(page, func(a, b stream.Stored) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return l.add(ctx, page)
}

// ask asks the dispatchers what they perform.
func (l *listing) ask(ctx context.Context) error {
	who, err := l.opened.Who(ctx, whoPatience)
	l.who = performances(who)
	return err
}

// add adds the jobs of messages that are in a wanted state.
func (l *listing) add(ctx context.Context, page []stream.Stored) error {
	if len(page) == 0 {
		return nil
	}
	if l.who == nil {
		if err := l.ask(ctx); err != nil {
			return err
		}
	}
	ids := make([]job.ID, len(page))
	for i, message := range page {
		ids[i] = message.ID
	}
	records, err := l.opened.PeekRecords(ctx, ids)
	if err != nil {
		return err
	}
	for _, message := range page {
		record, recorded := records[message.ID]
		status, _ := l.queue.statusOf(message, record, recorded)
		status.performed(l.who)
		// One that has its outcome is among those that ended.
		if !l.full() && !status.State.Ended() && l.wants(status.State) {
			l.found = append(l.found, status)
		}
	}
	return nil
}

// ended collects jobs that have their outcome, as far as outcomes are kept.
func (l *listing) ended(ctx context.Context) error {
	if l.full() || !l.wants(job.Callbacks, job.Completed) {
		return nil
	}
	recent, err := l.opened.Recent(ctx, l.limit-len(l.found), func(r stream.KeptRecord) bool {
		return r.Record.State.Ended() && l.wants(r.Record.State)
	})
	for _, kept := range recent {
		l.found = append(l.found, l.queue.recordStatus(kept.ID, kept.Record))
	}
	return err
}
