package stories

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// A task names the quotas of its jobs, a call of it others instead. Names are
// sorted, each once, and shown wherever the job is: while it is pending, while
// it waits, while it runs and when it is over (FEATURES 40).
func TestQuotasOfACall(t *testing.T) {
	tell(t, func(s *story) {
		for _, name := range []string{"cpu", "db", "gpu"} {
			s.create(name, 1)
		}
		limited := paint.Quota("gpu", "db", "gpu")
		for id, row := range map[string]struct {
			call asyncnats.Call[string]
			want []string
		}{
			"task":     {limited.Call(stint{}), []string{"db", "gpu"}},
			"call":     {limited.Call(stint{}).Quota("cpu"), []string{"cpu"}},
			"none":     {limited.Call(stint{}).Quota(), nil},
			"untasked": {paint.Call(stint{}).Quota("gpu", "cpu", "gpu"), []string{"cpu", "gpu"}},
			"plain":    {paint.Call(stint{}), nil},
		} {
			status, err := put(s, row.call.ID(id)).Status(s.Context())
			if err != nil || !slices.Equal(status.Quotas, row.want) || status.State != job.Pending {
				s.Errorf("%s: %+v, %v; want quotas %q", id, status, err, row.want)
			}
		}
	})
}

func TestStatusShowsQuotas(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		w := s.site()
		jobs := stints(s, paint, gpu, "runs", "waits", "is-pending")
		d := s.dispatch(w.staff(5))
		moment()
		check := func(states ...job.State) {
			s.Helper()
			listed, err := s.queue.Jobs(s.Context(), 10)
			if err != nil || len(listed) != len(jobs) {
				s.Fatalf("%d jobs, %v", len(listed), err)
			}
			for i, j := range jobs {
				status, err := j.Status(s.Context())
				if err != nil {
					s.Fatal(err)
				}
				at := slices.IndexFunc(listed, func(other asyncnats.Status) bool { return other.ID == j.ID() })
				for _, status := range []asyncnats.Status{status, listed[at]} {
					if status.State != states[i] || !slices.Equal(status.Quotas, gpu) {
						s.Errorf("%s: %+v; want %s and its quota", j.ID(), status, states[i])
					}
				}
			}
		}
		// Who waits for a slot is not performed yet.
		check(job.Assigned, job.Pending, job.Pending)
		quota := s.wantQuota("gpu", ids("runs"), ids("waits"))
		if holder := quota.Holders[0]; holder.Dispatcher != d.UUID() || holder.Fence == 0 || quota.Name != "gpu" || quota.Size != 1 {
			s.Errorf("quota %+v", quota)
		}
		w.finish("runs")
		check(job.Completed, job.Assigned, job.Pending)
		if r := record(s, jobs[0]); !slices.Equal(r.Quotas, gpu) {
			s.Errorf("record %+v", r)
		}
		w.finish("waits", "is-pending")
		check(job.Completed, job.Completed, job.Completed)
	})
}

// What is wrong with the name of a quota is said with the rule, and nothing is
// stored.
func TestIllegalQuotaNames(t *testing.T) {
	tell(t, func(s *story) {
		ctx := s.Context()
		for _, name := range []string{"", "content catalog", "a.b", "a=b", "*", strings.Repeat("a", 65)} {
			for verb, do := range map[string]func() error{
				"create": func() error { return s.queue.CreateQuota(ctx, name, 1) },
				"limit":  func() error { return s.queue.Limit(ctx, name, 1) },
				"resize": func() error { return s.queue.ResizeQuota(ctx, name, 1) },
				"remove": func() error { return s.queue.RemoveQuota(ctx, name) },
				"look":   func() error { _, err := s.queue.Quota(ctx, name); return err },
				"clean":  func() error { _, err := s.queue.CleanQuota(ctx, name); return err },
				"put":    func() error { _, err := asyncnats.Put(ctx, s.queue, shout.Call("x").Quota(name)); return err },
				"put many": func() error {
					_, err := asyncnats.PutMany(ctx, s.queue, shout.Call("x"), shout.Call("x").Quota(name))
					return err
				},
			} {
				illegal, is := errors.AsType[*job.NameError](do())
				if !is || illegal.Name != name || !strings.Contains(illegal.Error(), "letters") {
					s.Errorf("%s %q: %v", verb, name, illegal)
				}
			}
		}
		if names := s.names(); len(names) > 0 {
			s.Errorf("quotas %q", names)
		}
		if info, err := s.queue.Info(ctx); err != nil || info.Messages != 0 {
			s.Errorf("%d messages, %v", info.Messages, err)
		}
	})
}

// Quotas are a queue's: those of another have nothing to do with them, and with
// the queue they go.
func TestQuotasOfAQueue(t *testing.T) {
	tell(t, func(s *story) {
		audio, err := s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{})
		if err != nil {
			s.Fatal(err)
		}
		s.create("gpu", 1)
		call := paint.Call(stint{Name: "there", For: time.Second}).Quota("gpu")
		if _, err := asyncnats.Put(s.Context(), audio, call); !errors.Is(err, asyncnats.ErrUnknownQuota) {
			s.Errorf("put on the other queue: %v", err)
		}
		if err := audio.CreateQuota(s.Context(), "gpu", 1); err != nil {
			s.Fatal(err)
		}
		w := s.site()
		c := w.staff(5)
		c.Queues = []string{"default", "audio"}
		s.dispatch(c)
		stints(s, paint, gpu, "here")
		j, err := asyncnats.Put(s.Context(), audio, call)
		if err != nil {
			s.Fatal(err)
		}
		wait(s, j)
		s.wantQuota("gpu", ids("here"), nil)
		w.finish("here")

		if err := s.client.DeleteQueue(s.Context(), "audio"); err != nil {
			s.Fatal(err)
		}
		if audio, err = s.client.CreateQueue(s.Context(), "audio", asyncnats.QueueConfig{}); err != nil {
			s.Fatal(err)
		}
		if list, err := audio.Quotas(s.Context()); err != nil || len(list) > 0 {
			s.Errorf("quotas of a new queue: %v, %v", list, err)
		}
		s.wantQuota("gpu", nil, nil)
	})
}

// A put looks for its quotas again where the connection was lost while it did.
func TestQuotaIsLookedForAgain(t *testing.T) {
	tell(t, func(s *story) {
		s.create("gpu", 1)
		nc, wire := s.server.ConnectWire(s.T)
		client, err := asyncnats.Connect(s.Context(), nc, asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		queue := client.Queue(job.DefaultQueue)
		if _, err := queue.Quota(s.Context(), "gpu"); err != nil { // it is open
			s.Fatal(err)
		}
		wire.Cut()
		time.AfterFunc(5*time.Second, wire.Restore)
		began := time.Now()
		ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
		defer cancel()
		_, err = asyncnats.Put(ctx, queue, paint.Call(stint{Name: "job"}).Quota("gpu"))
		if took := time.Since(began); err != nil || took > 10*time.Second {
			s.Errorf("%v after %v", err, took)
		}
	})
}
