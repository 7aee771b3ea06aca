package stories

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/quotas"
)

// The tests of this file say what the footnotes on quotas say in zc.async's
// document "Configuration (without Zope 3)", each under its label. A claim that
// returns None is an idle dispatcher that starts nothing here, and calling a
// job is letting its handler return.

// catalog is the quota of the footnotes; its name may have no space here.
const catalog = "content-catalog"

// multiply is operator.mul: a job of it returns when it is called.
type multiply struct {
	task    asyncnats.Task[[2]int, int]
	started chan job.ID
	calls   chan struct{}
}

// start runs a dispatcher that would start three jobs at once.
func (m *multiply) start(s *story) {
	m.started, m.calls = make(chan job.ID, 10), make(chan struct{})
	s.dispatch(dispatcher.Config{
		Agents: []agents.Agent{{Name: "main", Size: 3}},
		Handlers: []job.Handler{m.task.Handle(func(ctx context.Context, factors [2]int) (int, error) {
			info, _ := job.FromContext(ctx)
			m.started <- info.ID
			select {
			case <-m.calls:
			case <-ctx.Done():
			}
			return factors[0] * factors[1], nil
		})},
	})
	moment()
}

// claim returns the job that was started next, "" for none.
func (m *multiply) claim() job.ID {
	moment()
	select {
	case id := <-m.started:
		return id
	default:
		return ""
	}
}

func (m *multiply) call() asyncnats.Call[int] { return m.task.Call([2]int{5, 2}) }

func newMultiply() *multiply {
	return &multiply{task: asyncnats.Define[[2]int, int]("operator.mul")}
}

// length is len(queue): the jobs that nobody has claimed.
func (s *story) length() uint64 {
	s.Helper()
	info, err := s.queue.Info(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	var pending uint64
	for _, lane := range info.Lanes {
		pending += lane.Pending
	}
	return pending
}

// names is list(queue.quotas).
func (s *story) names() []string {
	s.Helper()
	list, err := s.queue.Quotas(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	names := []string{}
	for _, quota := range list {
		names = append(names, quota.Name)
	}
	return names
}

// [#undefined_quota_name] "You cannot add a job with a quota name that is not
// defined in the queue." FEATURES 31, 40.
func TestSeedUndefinedQuotaName(t *testing.T) {
	tell(t, func(s *story) {
		_, err := asyncnats.Put(s.Context(), s.queue, newMultiply().call().Quota(catalog))
		unknown, is := errors.AsType[*quotas.UnknownError](err)
		if !is || unknown.Name != catalog || !errors.Is(err, asyncnats.ErrUnknownQuota) {
			s.Errorf("got %v, want ErrUnknownQuota with the name", err)
		}
		info, err := s.queue.Info(s.Context())
		if err != nil || info.Messages != 0 || len(info.Lanes) != 0 {
			s.Errorf("the queue is not empty: %+v, %v", info, err)
		}
		// However the names are given, the job has them sorted and each once.
		s.create(catalog, 1)
		s.create("animals", 1)
		j := put(s, newMultiply().call().Quota(catalog, "animals", catalog))
		if status, err := j.Status(s.Context()); err != nil || !slices.Equal(status.Quotas, []string{"animals", catalog}) {
			s.Errorf("quotas %q, %v", status.Quotas, err)
		}
	})
}

// [#no_mutation_to_undefined] "You cannot add a quota name to a job in a queue
// if the quota name is not defined in the queue." FEATURES 32.
func TestSeedNoMutationToUndefined(t *testing.T) {
	tell(t, func(s *story) {
		j := put(s, newMultiply().call())
		if err := j.SetQuotas(s.Context(), catalog); !errors.Is(err, asyncnats.ErrUnknownQuota) {
			s.Errorf("got %v, want ErrUnknownQuota", err)
		}
		if status, err := j.Status(s.Context()); err != nil || len(status.Quotas) > 0 {
			s.Errorf("quotas %q, %v; want none", status.Quotas, err)
		}
	})
}

// [#create_remove_quotas] "You can create and remove quotas on the queue."
// FEATURES 33.
func TestSeedCreateRemoveQuotas(t *testing.T) {
	tell(t, func(s *story) {
		if names := s.names(); len(names) > 0 {
			s.Errorf("a new queue has quotas %q", names)
		}
		s.create("testing", 1)
		if names := s.names(); !slices.Equal(names, []string{"testing"}) {
			s.Errorf("quotas %q, want testing", names)
		}
		if err := s.queue.RemoveQuota(s.Context(), "testing"); err != nil {
			s.Fatal(err)
		}
		if names := s.names(); len(names) > 0 {
			s.Errorf("quotas %q after the removal", names)
		}
	})
}

// [#remove_quotas] "You can remove quotas if pending jobs have their quota
// names—the quota name is then ignored." FEATURES 34.
func TestSeedRemoveQuotas(t *testing.T) {
	tell(t, func(s *story) {
		s.create(catalog, 1)
		m := newMultiply()
		j := put(s, m.call())
		if err := j.SetQuotas(s.Context(), catalog); err != nil {
			s.Fatal(err)
		}
		if err := s.queue.RemoveQuota(s.Context(), catalog); err != nil {
			s.Fatal(err)
		}
		status, err := j.Status(s.Context())
		if err != nil || !slices.Equal(status.Quotas, []string{catalog}) {
			s.Errorf("status %+v, %v: want it to name the quota still", status, err)
		}
		m.start(s)
		if id := m.claim(); id != j.ID() {
			s.Errorf("claimed %q, want %q", id, j.ID())
		}
		if n := s.length(); n != 0 {
			s.Errorf("%d jobs are left in the queue", n)
		}
		close(m.calls)
		if got := wait(s, j); got != 10 {
			s.Errorf("got %d", got)
		}
	})
}

// [#default_size] "Quotas default to a size of 1." FEATURES 35.
func TestSeedDefaultSize(t *testing.T) {
	tell(t, func(s *story) {
		s.create(catalog, quotas.DefaultSize)
		if quota := s.wantQuota(catalog, nil, nil); quota.Size != 1 {
			s.Errorf("size %d", quota.Size)
		}
	})
}

// [#change_size] "This can be changed at creation or later." FEATURES 36.
func TestSeedChangeSize(t *testing.T) {
	tell(t, func(s *story) {
		s.create(catalog, quotas.DefaultSize)
		if err := s.queue.ResizeQuota(s.Context(), catalog, 2); err != nil {
			s.Fatal(err)
		}
		if quota := s.wantQuota(catalog, nil, nil); quota.Size != 2 {
			s.Errorf("size %d, want 2", quota.Size)
		}
		s.create("frobnitz-account", 3)
		if quota := s.wantQuota("frobnitz-account", nil, nil); quota.Size != 3 {
			s.Errorf("size %d, want 3", quota.Size)
		}
	})
}

// [#decreasing_affects_future] "Decreasing the size of a quota while the old
// quota size is filled will not affect the currently running jobs." FEATURES 37,
// 38. A slot is given back as soon as its job ends, also where nobody claims the
// next one, so that cleaning finds nothing (39).
func TestSeedDecreasingAffectsFuture(t *testing.T) {
	tell(t, func(s *story) {
		s.create(catalog, 2)
		m := newMultiply()
		m.start(s)
		var jobs []*asyncnats.Job[int]
		for range 3 {
			jobs = append(jobs, put(s, m.call().Quota(catalog)))
			moment() // of two that come at once either may start first
		}
		job1, job2, job3 := jobs[0].ID(), jobs[1].ID(), jobs[2].ID()
		claims := func(want job.ID) {
			s.Helper()
			if id := m.claim(); id != want {
				s.Fatalf("claimed %q, want %q", id, want)
			}
		}
		holds := func(filled bool, holders ...job.ID) {
			s.Helper()
			quota, err := s.queue.Quota(s.Context(), catalog)
			if err != nil {
				s.Fatal(err)
			}
			var list []job.ID
			for _, c := range quota.Holders {
				list = append(list, c.ID)
			}
			if !slices.Equal(list, holders) || quota.Filled() != filled {
				s.Fatalf("held by %q, filled %v; want %q, %v", list, quota.Filled(), holders, filled)
			}
		}
		returns := func(j *asyncnats.Job[int]) {
			s.Helper()
			m.calls <- struct{}{} // handlers wait in the order in which they began
			if got := wait(s, j); got != 10 {
				s.Fatalf("got %d", got)
			}
		}

		claims(job1)
		claims(job2)
		claims("")
		holds(true, job1, job2)
		if err := s.queue.ResizeQuota(s.Context(), catalog, 1); err != nil {
			s.Fatal(err)
		}
		holds(true, job1, job2)
		claims("")
		returns(jobs[0])
		claims("")
		holds(true, job2)
		returns(jobs[1])
		claims(job3)
		holds(true, job3)
		returns(jobs[2])
		claims("")
		if n := s.length(); n != 0 {
			s.Errorf("%d jobs are left in the queue", n)
		}
		holds(false)
		if dropped, err := s.queue.CleanQuota(s.Context(), catalog); err != nil || dropped != 0 {
			s.Errorf("cleaning dropped %d, %v", dropped, err)
		}
		holds(false)
	})
}
