package stories

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// openQueue opens the default queue as a dispatcher does, to play one.
func openQueue(s *story) *stream.Queue {
	s.Helper()
	return openNamed(s, job.DefaultQueue)
}

func openNamed(s *story, name string) *stream.Queue {
	s.Helper()
	js, err := jetstream.New(s.server.Connect(s.T))
	if err != nil {
		s.Fatal(err)
	}
	namespace, err := stream.Open(s.Context(), js, "")
	if err != nil {
		s.Fatal(err)
	}
	queue, err := namespace.Queue(s.Context(), name)
	if err != nil {
		s.Fatal(err)
	}
	return queue
}

// specOf reads what a job's message carries.
func specOf(s *story, queue *stream.Queue, id job.ID) job.Spec {
	s.Helper()
	stored, err := queue.Find(s.Context(), id)
	if err != nil {
		s.Fatal(err)
	}
	spec, err := stored.Spec()
	if err != nil {
		s.Fatal(err)
	}
	return spec
}

// While an attempt runs on, another records what it did: the first one's
// outcome is refused, whatever the clocks say.
func TestOneOutcomeIsRecorded(t *testing.T) {
	for name, state := range map[string]job.State{
		"the other has ended":   job.Completed,
		"the other has started": job.Active,
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, func(s *story) {
				begun := make(chan struct{})
				d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(context.Context, string) (string, error) {
					close(begun)
					time.Sleep(2 * time.Second) // no extension falls into it
					return "late", nil
				})}})
				j := put(s, shout.Call("x"))
				<-begun
				queue := openQueue(s)
				spec := specOf(s, queue, j.ID())
				other := job.Record{
					Version: job.RecordVersion, Nonce: spec.Nonce, Task: spec.Task, State: state,
					Attempt: job.Attempt{Number: 2, Token: 1, Dispatcher: "other"},
				}
				if state == job.Completed {
					other.Outcome = &job.Outcome{}
				}
				if _, err := queue.Write(s.Context(), j.ID(), other, 0, job.KeepDefault); err != nil {
					s.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				found, _, _, err := queue.Record(s.Context(), j.ID())
				if err != nil || found.Attempt != other.Attempt || found.State != state {
					s.Errorf("record %+v, %v: want the other's", found, err)
				}
				if !d.log.Contains("outcome dropped", "reassigned") {
					s.Error("the refusal was not logged")
				}
			})
		})
	}
}

// A running attempt learns at the next extension of its lease that another has
// written about its job.
func TestRunningAttemptLearnsOfAnother(t *testing.T) {
	tell(t, func(s *story) {
		p := newPatient()
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{p.handler()}})
		j := put(s, p.task.Call(asyncnats.None{}))
		awaitFake(s, func() bool { return p.starts.Load() == 1 })
		queue := openQueue(s)
		spec := specOf(s, queue, j.ID())
		if _, err := queue.Write(s.Context(), j.ID(), job.Record{
			Version: job.RecordVersion, Nonce: spec.Nonce, Task: spec.Task, State: job.Active,
			Attempt: job.Attempt{Number: 2, Token: 1, Dispatcher: "other"},
		}, 0, job.KeepDefault); err != nil {
			s.Fatal(err)
		}
		began := time.Now()
		if cause := <-p.causes; cause != job.ErrLeaseLost {
			s.Errorf("context ended with %v", cause)
		}
		if took := time.Since(began); took > ackWait/3+time.Second {
			s.Errorf("it learnt after %v", took)
		}
	})
}

// A job that was delivered and handed back many times has not been
// interrupted.
func TestHandBacksAreNoInterrupts(t *testing.T) {
	tell(t, func(s *story) {
		j := put(s, shout.Call("x"))
		queue := openQueue(s)
		link := stream.NewLink(queue.Namespace().JetStream().Conn(), time.Second)
		leases := make(chan *stream.Lease)
		tap, err := queue.Tap(s.Context(), stream.Lane{Task: shout.Name()}, link, stream.Sink{
			Deliver: func(_ *stream.Pull, lease *stream.Lease) { leases <- lease },
			End:     func(*stream.Pull, error) {},
		})
		if err != nil {
			s.Fatal(err)
		}
		for range 3 * job.DefaultInterrupts {
			if _, err := tap.Pull(1, true); err != nil {
				s.Fatal(err)
			}
			if err := (<-leases).HandBack(); err != nil {
				s.Fatal(err)
			}
		}
		tap.Close()
		s.dispatch(shouters(dispatcher.Config{}))
		wait(s, j)
		if r := record(s, j); r.Interrupts != 0 || r.Attempt.Number != 1 {
			s.Errorf("record %+v: want the first attempt and no interrupt", r)
		}
	})
}

// A message whose outcome is recorded already (the ack was lost) is not
// performed again.
func TestLostAck(t *testing.T) {
	tell(t, func(s *story) {
		var runs atomic.Int32
		begun, release := make(chan struct{}), make(chan struct{})
		d := s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(context.Context, string) (string, error) {
			if runs.Add(1) == 1 {
				close(begun)
				<-release
			}
			return "done", nil
		})}})
		j := put(s, shout.Call("x"))
		<-begun
		// The outcome is recorded through another wire, as this very attempt
		// would record it; then this one cannot ack.
		queue := openQueue(s)
		spec := specOf(s, queue, j.ID())
		d.wire.Cut()
		close(release)
		if _, err := queue.Write(s.Context(), j.ID(), job.Record{
			Version: job.RecordVersion, Nonce: spec.Nonce, Task: spec.Task, State: job.Completed, Outcome: &job.Outcome{},
		}, 0, job.KeepDefault); err != nil {
			s.Fatal(err)
		}
		heir := s.dispatch(shouters(dispatcher.Config{}))
		awaitFake(s, func() bool {
			info, err := s.queue.Info(s.Context())
			return err == nil && info.Messages == 0
		})
		if runs.Load() != 1 || heir.log.Contains("job done") {
			s.Error("the job ran again")
		}
		d.wire.Restore()
	})
}

// Whoever waits for a job, for as long as may be, hears of its end though an
// answer was lost with a connection, and with it the announcement.
func TestWaitOutlivesALostAnswer(t *testing.T) {
	tell(t, func(s *story) {
		release := make(chan struct{})
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(context.Context, string) (string, error) {
			<-release
			return "done", nil
		})}})
		nc, wire := s.server.ConnectWire(s.T)
		client, err := asyncnats.Connect(s.Context(), nc, asyncnats.Config{})
		if err != nil {
			s.Fatal(err)
		}
		j, err := asyncnats.Put(s.Context(), client.Queue(job.DefaultQueue), shout.Call("x"))
		if err != nil {
			s.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(s.Context(), time.Hour)
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := j.Wait(ctx)
			ended <- err
		}()
		time.Sleep(time.Second)
		wire.Freeze()
		time.Sleep(time.Second) // it asks meanwhile
		wire.Cut()
		close(release)
		time.Sleep(time.Second)
		wire.Thaw()
		wire.Restore()
		restored := time.Now()
		if err := <-ended; err != nil {
			s.Error(err)
		}
		if took := time.Since(restored); took > 5*time.Second {
			s.Errorf("it heard of the end after %v", took)
		}
	})
}

// A replica that is behind knows nothing of a job that is there, or another job of its
// ID that is over: nobody is told that theirs is.
func TestReplicaIsBehind(t *testing.T) {
	tell(t, func(s *story) {
		if err := s.queue.CreateQuota(s.Context(), "gpu", 1); err != nil {
			s.Fatal(err)
		}
		knows := func(*nats.Msg) bool { return false } // written while nobody asks
		queue := s.through(func(request *nats.Msg) bool {
			looks := strings.HasSuffix(request.Subject, ".DIRECT.GET.ASYNC_default") && strings.Contains(string(request.Data), "last_by_subj")
			return looks && knows(request)
		})
		former := put(s, shout.Call("x").ID("me").Keep(job.KeepNone))
		stale, err := s.server.JetStream(s.T).Stream(s.Context(), "ASYNC_default")
		if err != nil {
			s.Fatal(err)
		}
		old, err := stale.GetLastMsgForSubject(s.Context(), "async.default.job.*.me")
		if err != nil {
			s.Fatal(err)
		}
		if _, err := former.Pull(s.Context()); err != nil {
			s.Fatal(err)
		}
		later, err := asyncnats.Put(s.Context(), queue, shout.Call("y").ID("me").In(time.Hour).Quota("gpu"))
		if err != nil {
			s.Fatal(err)
		}
		nothing := nats.Msg{Header: nats.Header{"Status": {"404"}, "Description": {"Message Not Found"}}}
		another := nats.Msg{Data: old.Data, Header: nats.Header{
			jetstream.SubjectHeader: {old.Subject}, jetstream.SequenceHeader: {strconv.FormatUint(old.Sequence, 10)},
			jetstream.TimeStampHeaer: {old.Time.Format(time.RFC3339Nano)},
		}}
		for name, answer := range map[string]nats.Msg{"of nothing": nothing, "of another": another} {
			knows = func(request *nats.Msg) bool {
				reply := answer
				return request.RespondMsg(&reply) == nil
			}
			ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
			if _, err := later.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				s.Errorf("%s: waited: %v", name, err)
			}
			cancel()
			if status, err := later.Status(s.Context()); err != nil || status.State != job.Pending {
				s.Errorf("%s: status %+v, %v", name, status, err)
			}
			if found, err := asyncnats.Lookup[string](s.Context(), queue, "me"); err != nil {
				s.Errorf("%s: looked up: %v", name, err)
			} else if _, err := found.Status(s.Context()); err != nil {
				s.Errorf("%s: looked up another: %v", name, err)
			}
			for _, quotas := range [][]string{nil, {"gpu"}} {
				if err := later.SetQuotas(s.Context(), quotas...); err != nil {
					s.Errorf("%s: quotas %v: %v", name, quotas, err)
				}
			}
		}
		knows = func(*nats.Msg) bool { return false }
		s.dispatch(shouters(dispatcher.Config{}))
		if got := wait(s, later); got != "Y" {
			s.Errorf("result %q", got)
		}
	})
}

// A put whose first copy was performed before the second was stored is not
// performed again.
func TestRepeatedPutIsPerformedOnce(t *testing.T) {
	tell(t, func(s *story) {
		var runs atomic.Int32
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{shout.Handle(func(ctx context.Context, text string) (string, error) {
			runs.Add(1)
			return toUpper(ctx, text)
		})}})
		queue := openQueue(s)
		arg, err := job.Encode("x", job.MsgPack)
		if err != nil {
			s.Fatal(err)
		}
		entry := stream.Entry{ID: job.NewID(), Spec: job.Spec{
			Version: job.SpecVersion, Nonce: job.NewNonce(), Task: shout.Name(), Arg: arg,
		}}
		for _, again := range []bool{false, true} {
			entry.Spec.Again = again
			if err := queue.Put(s.Context(), entry); err != nil {
				s.Fatal(err)
			}
			awaitFake(s, func() bool {
				_, err := queue.Find(s.Context(), entry.ID)
				return errors.Is(err, stream.ErrNoJob)
			})
		}
		if n := runs.Load(); n != 1 {
			s.Errorf("it was performed %d times", n)
		}
	})
}
