package stories

import (
	"errors"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// A pending job can be given other quotas; unknown ones are refused and change nothing (FEATURES 32, SEED), and so is a
// job that a dispatcher was given (50).
func TestSetQuotas(t *testing.T) {
	tell(t, func(s *story) {
		for _, name := range []string{"gpu", "db"} {
			if err := s.queue.CreateQuota(s.Context(), name, 1); err != nil {
				s.Fatal(err)
			}
		}
		j := put(s, shout.Call("hello"))
		named := func(want ...string) {
			s.Helper()
			status, err := j.Status(s.Context())
			if err != nil || len(status.Quotas) != len(want) {
				s.Fatalf("quotas %q, %v; want %q", status.Quotas, err, want)
			}
			for i := range want {
				if status.Quotas[i] != want[i] {
					s.Fatalf("quotas %q, want %q", status.Quotas, want)
				}
			}
		}
		if err := j.SetQuotas(s.Context(), "nobody"); !errors.Is(err, asyncnats.ErrUnknownQuota) {
			s.Fatalf("%v, want ErrUnknownQuota", err)
		}
		named()
		if err := j.SetQuotas(s.Context(), "gpu", "db", "gpu"); err != nil {
			s.Fatal(err)
		}
		named("db", "gpu")
		if err := j.SetQuotas(s.Context(), "gpu"); err != nil {
			s.Fatal(err)
		}
		named("gpu")
		info, err := s.queue.Info(s.Context())
		if err != nil || info.Messages != 1 || info.Strays != 0 {
			s.Fatalf("%+v, %v; want one message", info, err)
		}

		// It waits for a slot now, so it is a dispatcher's.
		if err := s.queue.ResizeQuota(s.Context(), "gpu", 0); err != nil {
			s.Fatal(err)
		}
		s.dispatch(shouters(dispatcher.Config{}))
		time.Sleep(time.Second)
		if err := j.SetQuotas(s.Context()); !errors.Is(err, asyncnats.ErrAssigned) {
			s.Fatalf("%v, want ErrAssigned", err)
		}
		named("gpu")
		if err := s.queue.ResizeQuota(s.Context(), "gpu", 1); err != nil {
			s.Fatal(err)
		}
		if got := wait(s, j); got != "HELLO" {
			s.Errorf("got %q", got)
		}
		if r := record(s, j); r.State != job.Completed || r.Attempt.Number != 1 || len(r.Quotas) != 1 {
			s.Errorf("record %+v", r)
		}
		time.Sleep(time.Second) // its ack is on the way
		if err := j.SetQuotas(s.Context()); !errors.Is(err, asyncnats.ErrNoJob) {
			s.Errorf("a completed job: %v, want ErrNoJob", err)
		}
		// Its old lanes go on.
		if got := wait(s, put(s, shout.Call("again"))); got != "AGAIN" {
			s.Errorf("got %q", got)
		}
	})
}
