package quotas

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// DefaultSize is the size of a quota where it is not said (FEATURES 35).
const DefaultSize = 1

// knownFor is how long [Set.Known] relies on having seen a quota.
const knownFor = time.Second

var (
	// ErrUnknown: there is no quota of that name. The error is an
	// [*UnknownError].
	ErrUnknown = errors.New("unknown quota")
	// ErrExists: a quota of that name exists.
	ErrExists = errors.New("quota exists")
)

// UnknownError names a quota that does not exist.
type UnknownError struct {
	Queue string
	Name  string
}

// Error implements error.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("%v %q in queue %s: create it first (asyncnats quota create %s --queue %s)", ErrUnknown, e.Name, e.Queue, e.Name, e.Queue)
}

// Unwrap returns [ErrUnknown].
func (e *UnknownError) Unwrap() error { return ErrUnknown }

// Set is the quotas of one queue. It is safe for concurrent use.
type Set struct {
	bucket  *kv.Bucket[Slots]
	queue   string
	conn    *nats.Conn
	subject string // of news for all gates

	mu   sync.Mutex
	seen map[string]time.Time // quotas that existed, and when
}

// Open opens the quotas of a queue. Their bucket is made with the queue; gates
// talk to each other on subjects that begin with subject.
func Open(ctx context.Context, js jetstream.JetStream, bucket, queue, subject string) (*Set, error) {
	opened, err := kv.Open(ctx, js, bucket, codec)
	if errors.Is(err, kv.ErrNoBucket) {
		err = fmt.Errorf("%w: create the queue again, which makes it anew (asyncnats queue add %s)", err, queue)
	}
	if err != nil {
		return nil, fmt.Errorf("quotas of queue %s: %w", queue, err)
	}
	return &Set{bucket: opened, queue: queue, conn: js.Conn(), subject: subject, seen: make(map[string]time.Time)}, nil
}

// subjectOf is where the gate of one dispatcher is told and asked.
func (s *Set) subjectOf(dispatcher string) string { return s.subject + "." + dispatcher }

func (s *Set) key(name string) string { return s.queue + "." + name }

// Create creates a quota. Jobs that run and name it already count as its
// holders, so that none starts before there are fewer than size. It returns
// [ErrExists] where there is one of that name.
func (s *Set) Create(ctx context.Context, name string, size int) error {
	return s.create(ctx, name, size, 0)
}

// CreateRate creates a rate limit: in each window of a period, over all
// dispatchers, at most size of the jobs that name it are granted a start. Where a
// rate limit of that name was removed less than a period ago, what started since
// counts. It returns [ErrExists] where there is a quota of that name.
func (s *Set) CreateRate(ctx context.Context, name string, size int, period time.Duration) error {
	if err := checkPeriod(period); err != nil {
		return fmt.Errorf("create quota %s: %w", name, err)
	}
	return s.create(ctx, name, size, period)
}

func (s *Set) create(ctx context.Context, name string, size int, period time.Duration) error {
	return s.change(ctx, "create", name, func(now *Slots) error {
		if !now.Removed {
			return fmt.Errorf("%w: its size is %d (asyncnats quota set changes it)", ErrExists, now.Size)
		}
		now.become(size, period)
		return checkSize(size)
	})
}

// Resize changes a quota's size; 0 starts nothing more. What runs goes on:
// where there are more holders than size, nothing starts until there are fewer.
// Where there are less, waiters get their slot in the same write. The same goes
// for a rate limit and its grants. It returns [ErrUnknown] where there is no such
// quota.
func (s *Set) Resize(ctx context.Context, name string, size int) error {
	return s.resize(ctx, name, size, func(now *Slots) time.Duration { return time.Duration(now.Period) })
}

// Change changes a quota's size and period; with a period of 0 it limits how many
// jobs run at once, those that run counted. Starts that were granted less than the
// old period ago count by the new one; from slots to a rate nothing counts that
// started before. It returns [ErrUnknown] where there is no such quota.
func (s *Set) Change(ctx context.Context, name string, size int, period time.Duration) error {
	if period != 0 {
		if err := checkPeriod(period); err != nil {
			return fmt.Errorf("resize quota %s: %w", name, err)
		}
	}
	return s.resize(ctx, name, size, func(*Slots) time.Duration { return period })
}

func (s *Set) resize(ctx context.Context, name string, size int, period func(*Slots) time.Duration) error {
	return s.change(ctx, "resize", name, func(now *Slots) error {
		if now.Removed {
			return &UnknownError{Queue: s.queue, Name: name}
		}
		now.become(size, period(now))
		return checkSize(size)
	})
}

// Limit creates a quota of that size, or changes the one there is to that.
func (s *Set) Limit(ctx context.Context, name string, size int) error {
	return s.limit(ctx, name, size, 0)
}

// LimitRate creates a rate limit, or changes the quota there is to that, as
// [Set.Change] does.
func (s *Set) LimitRate(ctx context.Context, name string, size int, period time.Duration) error {
	if err := checkPeriod(period); err != nil {
		return fmt.Errorf("limit quota %s: %w", name, err)
	}
	return s.limit(ctx, name, size, period)
}

func (s *Set) limit(ctx context.Context, name string, size int, period time.Duration) error {
	return s.change(ctx, "limit", name, func(now *Slots) error {
		now.become(size, period)
		return checkSize(size)
	})
}

// Remove removes a quota. Jobs that wait for it start, and those that name it
// are performed as if they did not. New ones are refused. Who runs and, of a rate
// limit, who starts is noted all the same, for the quota may be created again. It
// returns [ErrUnknown] where there is no such quota.
func (s *Set) Remove(ctx context.Context, name string) error {
	defer s.forget(name)
	return s.change(ctx, "remove", name, func(now *Slots) error {
		if now.Removed {
			return &UnknownError{Queue: s.queue, Name: name}
		}
		now.Removed, now.Size = true, 0
		return nil
	})
}

func checkSize(size int) error {
	if size < 0 {
		return fmt.Errorf("size %d is negative: must be at least 0, which starts nothing", size)
	}
	return nil
}

// PeriodLeast is the shortest period of a rate limit.
const PeriodLeast = time.Millisecond

func checkPeriod(period time.Duration) error {
	if period < PeriodLeast {
		return fmt.Errorf("period %v is too short: must be at least %v", period, PeriodLeast)
	}
	return nil
}

// read reads a quota from the leader, and dates it by when it was stored;
// revision is 0 where it has no value.
func (s *Set) read(ctx context.Context, name string) (now Slots, revision uint64, stored time.Time, err error) {
	entry, err := s.bucket.Latest(ctx, s.key(name))
	if errors.Is(err, kv.ErrNotFound) {
		return Slots{Removed: true}, 0, time.Time{}, nil
	}
	entry.Value.date(entry.Written)
	return entry.Value, entry.Revision, entry.Written, err
}

func (s *Set) write(ctx context.Context, name string, next Slots, revision uint64) (uint64, error) {
	if revision == 0 {
		return s.bucket.Create(ctx, s.key(name), next, kv.Forever)
	}
	return s.bucket.Update(ctx, s.key(name), next, revision, kv.Forever)
}

// Quota returns a quota as it is now. It returns [ErrUnknown] where there is
// none of that name.
func (s *Set) Quota(ctx context.Context, name string) (Quota, error) {
	if err := job.CheckQuota(name); err != nil {
		return Quota{}, err
	}
	now, revision, _, err := s.read(ctx, name)
	if err != nil {
		return Quota{}, fmt.Errorf("look at quota %s of queue %s: %w", name, s.queue, err)
	}
	if now.Removed {
		return Quota{}, &UnknownError{Queue: s.queue, Name: name}
	}
	quota := Quota{Name: name, Slots: now, Revision: revision}
	if now.limitsRate() {
		passed, err := s.bucket.Now(ctx)
		if err != nil {
			return Quota{}, fmt.Errorf("look at quota %s of queue %s: %w", name, s.queue, err)
		}
		quota.rate(passed)
	}
	return quota, nil
}

// List returns the quotas of the queue, sorted by name.
func (s *Set) List(ctx context.Context) ([]Quota, error) {
	entries, err := s.bucket.List(ctx, s.key("*"))
	if err != nil {
		return nil, fmt.Errorf("list quotas of queue %s: %w", s.queue, err)
	}
	list := make([]Quota, 0, len(entries))
	var now time.Time
	for _, entry := range entries {
		if entry.Value.Removed {
			continue
		}
		quota := Quota{Name: s.nameOf(entry.Key), Slots: entry.Value, Revision: entry.Revision}
		if quota.limitsRate() {
			if now.IsZero() {
				if now, err = s.bucket.Now(ctx); err != nil {
					return nil, fmt.Errorf("list quotas of queue %s: %w", s.queue, err)
				}
			}
			quota.date(entry.Written)
			quota.rate(now)
		}
		list = append(list, quota)
	}
	slices.SortFunc(list, func(a, b Quota) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (s *Set) nameOf(key string) string { return strings.TrimPrefix(key, s.queue+".") }

// Known returns an [*UnknownError] for the first of the names that no quota
// has (FEATURES 31). It relies for a second on what it has seen.
func (s *Set) Known(ctx context.Context, names []string) error {
	for _, name := range names {
		s.mu.Lock()
		fresh := time.Since(s.seen[name]) < knownFor
		s.mu.Unlock()
		if fresh {
			continue
		}
		if _, err := s.Quota(ctx, name); err != nil {
			return err
		}
		s.mu.Lock()
		s.seen[name] = time.Now()
		s.mu.Unlock()
	}
	return nil
}

func (s *Set) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, name)
}

// Clean drops the claims of jobs that are over, and returns how many they were
// (FEATURES 39). It is seldom needed: a slot is given back when its job ends, and
// dispatchers sweep for what an administrator deleted. over returns those claims
// whose jobs are surely over.
func (s *Set) Clean(ctx context.Context, name string, over func(context.Context, []Claim) ([]Claim, error)) (dropped int, err error) {
	quota, err := s.Quota(ctx, name)
	if err != nil {
		return 0, err
	}
	claims, err := over(ctx, slices.Concat(quota.Holders, quota.Waiters))
	if err != nil || len(claims) == 0 {
		return 0, err
	}
	err = s.change(ctx, "clean", name, func(now *Slots) error {
		dropped = 0
		for _, claim := range claims {
			if now.leave(claim.Nonce, claim.Token) {
				dropped++
			}
		}
		return nil
	})
	return dropped, err
}
