package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/asyncnats/asyncnats/job"
)

// payments are the parts that were completed here and whose wholes are not told
// yet. Those of one whole that come while it is told of others are told together,
// in one write.
type payments struct {
	mu   sync.Mutex
	open map[job.Parent]*payment // by whole
}

// payment is what is to be told to one whole. It has a goroutine while it is open.
type payment struct {
	next *round // nil for none
}

// round are the parts that are told in one write.
type round struct {
	done []int
	told chan struct{} // closed when err is set
	err  error
}

// Pay tells a job that waits for others that a part of it is completed, of which
// the record is written, and goes on with it: see [Queue.Advance]. When it returns
// nil the message of the part may go. It may be repeated. Parts of one whole for which
// it is called at the same time share a write, which goes on where ctx ends.
//
// The error is [ErrOver] where nobody waits for the part, or not any more.
func (ns *Namespace) Pay(ctx context.Context, part job.Parent) error {
	whole := part
	whole.Number = 0
	told := ns.payments.add(whole, part.Number, func(done []int) error {
		return ns.tell(whole, done)
	})
	select {
	case <-told.told:
		return told.err
	case <-ctx.Done():
		return fmt.Errorf("tell job %s that part %d is completed: %w", part.ID, part.Number, ctx.Err())
	}
}

// add has a part told to its whole with the next write.
func (p *payments) add(whole job.Parent, number int, tell func([]int) error) *round {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = make(map[job.Parent]*payment)
	}
	of, open := p.open[whole]
	if !open {
		of = &payment{}
		p.open[whole] = of
		go p.run(whole, of, tell)
	}
	if of.next == nil {
		of.next = &round{told: make(chan struct{})}
	}
	of.next.done = append(of.next.done, number)
	return of.next
}

// run tells a whole of its parts until there are no more.
func (p *payments) run(whole job.Parent, of *payment, tell func([]int) error) {
	for {
		p.mu.Lock()
		now := of.next
		of.next = nil
		if now == nil {
			delete(p.open, whole)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		now.err = tell(now.done)
		close(now.told)
	}
}

// tell tells a whole of parts that are completed.
func (ns *Namespace) tell(whole job.Parent, done []int) error {
	ctx, cancel := context.WithTimeout(context.Background(), putPatience)
	defer cancel()
	queue, err := ns.opened(ctx, nil, whole.Queue)
	if err == nil {
		err = queue.advance(ctx, whole.ID, whole.Nonce, time.Now(), done...)
	}
	if errors.Is(err, ErrNoQueue) {
		return ErrOver
	}
	return err
}

// queues are the queues of a namespace that were opened to put parts and callbacks.
type queues struct {
	mu   sync.Mutex
	open map[string]*Queue
}

// forget has a queue opened anew, which is gone: one of that name that is made later is
// another.
func (q *queues) forget(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, name)
}

// opened returns a queue, which may be the one that is given.
func (ns *Namespace) opened(ctx context.Context, here *Queue, name string) (*Queue, error) {
	if here != nil && here.names.queue == name {
		return here, nil
	}
	ns.queues.mu.Lock()
	found, open := ns.queues.open[name]
	ns.queues.mu.Unlock()
	if open {
		return found, nil
	}
	ctx, cancel := briefly(ctx)
	defer cancel()
	found, err := ns.Queue(ctx, name)
	if err != nil {
		return nil, err
	}
	ns.queues.mu.Lock()
	defer ns.queues.mu.Unlock()
	if ns.queues.open == nil {
		ns.queues.open = make(map[string]*Queue)
	}
	ns.queues.open[name] = found
	return found, nil
}
