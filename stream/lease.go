package stream

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
)

// leaseMargin is how much earlier than the server a holder considers its lease
// over: the server may be half a second early itself.
const leaseMargin = time.Second

// Lease is the right to perform a delivered job now.
//
// Whether the lease is still held is decided by the holder's own clock: from
// the last moment proven to precede the delivery or an extension, it lasts the
// ack wait less a second. The server cannot be asked, since it acknowledges
// the extension of a delivery that it has given to somebody else meanwhile; so
// an answer counts only while the lease is held, and a lease once lost stays
// lost.
//
// The holder ends it with [Lease.Ack] or [Lease.HandBack], and with neither
// once it is lost: both would act on the delivery of whoever has the job now.
type Lease struct {
	Stored
	// Delivered counts deliveries, this one included. It is a hint: it counts
	// hand-backs and deliveries to pulls that were withdrawn, and begins anew
	// when a consumer is made again.
	Delivered uint64
	// Pending is how many more jobs the lane had when this one was delivered.
	Pending uint64
	// Due is when the job is to start, by the server's clock, where its message
	// says so; the zero time for at once.
	Due time.Time
	// Illegal is what is wrong with the subject, where a job was published by
	// hand under a name that no job may have. The ID is then one made of the
	// sequence, under which the Failure that says so is recorded.
	Illegal error

	msg     *nats.Msg
	nc      *nats.Conn
	ackWait time.Duration

	mu     sync.Mutex
	proven time.Time
	lost   bool
}

// Held reports whether the lease can still be proven.
func (l *Lease) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held()
}

func (l *Lease) held() bool {
	l.lost = l.lost || elapsed(l.proven) >= l.ackWait-leaseMargin
	return !l.lost
}

// Remaining returns how long the lease is still held if it is not extended.
func (l *Lease) Remaining() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held() {
		return 0
	}
	return l.ackWait - leaseMargin - elapsed(l.proven)
}

// Ack ends the lease and the job's message. It is sent without waiting for an
// answer: if it is lost the job is delivered again, and whoever gets it finds
// its record.
func (l *Lease) Ack() error { return l.msg.Ack() }

// HandBack ends the lease and has the job delivered again at once.
//
// It extends the lease first, and hands nothing back where that fails: a
// hand-back that lay in a stalled or broken connection for longer than the
// lease would end the lease of whoever has the job then. So it waits for an
// answer of the server, as long as [Lease.Extend] does.
func (l *Lease) HandBack() error {
	if err := l.Extend(context.Background()); err != nil {
		return err
	}
	return l.msg.Nak()
}

// Extend asks the server once to let the lease begin anew. It waits for the
// answer for a part of the ack wait only: a request that was lost with its
// connection must leave time for another.
func (l *Lease) Extend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(l.Remaining(), max(l.ackWait/6, leaseMargin)))
	defer cancel()
	sent := time.Now()
	_, err := l.nc.RequestWithContext(ctx, l.msg.Reply, []byte("+WPI"))
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held() {
		return job.ErrLeaseLost
	}
	if err == nil {
		l.proven = sent
	}
	return err
}

// Keep extends the lease, a third of the ack wait after each proof, until ctx
// ends or the lease is lost, and then calls lost with job.ErrLeaseLost. After
// each extension it calls look, whose error also ends it and goes to lost:
// there the holder sees whether somebody else writes about the job.
//
// stop, called once, ends the keeping; what was begun when it is called may still call lost.
// A lease that is stopped within a third of its ack wait costs no request and
// no goroutine.
func (l *Lease) Keep(ctx context.Context, look func(context.Context) error, lost func(error)) (stop func()) {
	stopped := make(chan struct{})
	timer := time.AfterFunc(l.Remaining()-l.ackWait*2/3+leaseMargin, func() {
		if err := l.keep(ctx, stopped, look); err != nil {
			lost(err)
		}
	})
	return func() {
		timer.Stop()
		close(stopped)
	}
}

func (l *Lease) keep(ctx context.Context, stopped <-chan struct{}, look func(context.Context) error) error {
	over := func() bool {
		select {
		case <-stopped:
			return true
		default:
			return ctx.Err() != nil
		}
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-stopped:
			return nil
		case <-pause.C:
		}
		err := l.Extend(ctx)
		switch {
		case over():
			return nil
		case err == nil:
			if err := look(ctx); err != nil && !over() {
				return err
			}
			pause.Reset(l.ackWait / 3)
		case !l.Held():
			return job.ErrLeaseLost
		default:
			pause.Reset(min(l.ackWait/30, l.Remaining()))
		}
	}
}
