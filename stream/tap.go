package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

const (
	// pullWait is how long a waiting pull stays with the server.
	pullWait = 30 * time.Second
	// pullBeat is how often the server says that a waiting pull is alive. A
	// pull is given up after two beats without word, for then its consumer's
	// leader is gone.
	pullBeat = 5 * time.Second
	// pullPatience is how long a pull that does not wait may take.
	pullPatience = 5 * time.Second
)

// Sink receives what pulls bring. Its functions are called one after another
// for one pull, and concurrently for several; they must not block.
type Sink struct {
	// Deliver brings a job.
	Deliver func(*Pull, *Lease)
	// End says that the pull brings no more: nil where it brought all that it
	// was to, found nothing (a pull that does not wait) or waited in vain. It
	// is called exactly once for each pull, Cancel or not.
	End func(*Pull, error)
}

// Tap pulls jobs from one lane.
type Tap struct {
	queue   *Queue
	lane    Lane
	link    *Link
	sink    Sink
	ackWait time.Duration
	request string

	mu     sync.Mutex
	idle   *pipe // kept for the next pull
	closed bool
}

// pipe is a subscription to an inbox, used by one pull after another.
type pipe struct {
	sub  *nats.Subscription
	mu   sync.Mutex
	pull *Pull
}

// Tap opens a lane for pulling, and makes its consumer where there is none.
func (q *Queue) Tap(ctx context.Context, lane Lane, link *Link, sink Sink) (*Tap, error) {
	consumer, err := q.consumer(ctx, lane)
	if err != nil {
		return nil, err
	}
	return &Tap{
		queue: q, lane: lane, link: link, sink: sink, ackWait: consumer.Config.AckWait,
		request: kv.APIPrefix(q.ns.js) + "CONSUMER.MSG.NEXT." + q.names.stream() + "." + lane.Token(),
	}, nil
}

// Pull is one request for jobs.
type Pull struct {
	// Waiting says that the pull waits for jobs; else it takes what is there.
	Waiting bool

	tap  *Tap
	pipe *pipe
	// asked precedes the request, and so whatever the pull brings.
	asked time.Time

	mu         sync.Mutex
	left       int // jobs that it may still bring
	timer      *time.Timer
	cancelled  bool
	delivering bool
	due        *ending // waits for the delivery under way
	ended      bool
}

type ending struct{ err error }

// Pull asks for n jobs. A waiting pull stays until it has brought them, or
// half a minute; the other kind brings at once what is there.
func (t *Tap) Pull(n int, waiting bool) (*Pull, error) {
	p := &Pull{Waiting: waiting, tap: t, left: n, asked: time.Now()}
	var err error
	if p.pipe, err = t.take(p); err != nil {
		return nil, fmt.Errorf("pull from lane %s: %w", t.lane.Token(), err)
	}
	request, err := json.Marshal(pullRequest(n, waiting))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.timer = time.AfterFunc(p.patience(), func() { p.end(ErrUnanswered) })
	p.mu.Unlock()
	if err := t.queue.conn().PublishRequest(t.request, p.pipe.sub.Subject, request); err != nil {
		p.timer.Stop()
		t.release(p.pipe)
		return nil, fmt.Errorf("pull from lane %s: %w", t.lane.Token(), err)
	}
	return p, nil
}

func pullRequest(n int, waiting bool) any {
	type request struct {
		Batch   int           `json:"batch"`
		NoWait  bool          `json:"no_wait,omitempty"`
		Expires time.Duration `json:"expires,omitempty"`
		Beat    time.Duration `json:"idle_heartbeat,omitempty"`
	}
	if waiting {
		return request{Batch: n, Expires: pullWait, Beat: pullBeat}
	}
	return request{Batch: n, NoWait: true}
}

func (p *Pull) patience() time.Duration {
	if p.Waiting {
		return 2*pullBeat + time.Second
	}
	return pullPatience
}

// Cancel withdraws the pull: the server sees nobody listening and gives the
// jobs to others. What it sent before is still delivered.
func (p *Pull) Cancel() {
	p.mu.Lock()
	done := p.ended || p.cancelled
	p.cancelled = true
	p.mu.Unlock()
	if done {
		return
	}
	// Drain, not Unsubscribe: it keeps listening until the server has seen
	// the end of the subscription, so that nothing on its way is lost.
	p.pipe.sub.SetClosedHandler(func(string) { p.end(nil) })
	if err := p.pipe.sub.Drain(); err != nil {
		p.end(err) // the connection is closed
	}
}

// end closes the pull and tells the sink, once.
func (p *Pull) end(err error) {
	p.mu.Lock()
	if p.ended || p.delivering {
		if p.due == nil {
			p.due = &ending{err}
		}
		p.mu.Unlock()
		return
	}
	p.ended = true
	p.timer.Stop()
	// Of a pull that ended without the server's word more may come, so its
	// pipe is not used again.
	cancelled, clean := p.cancelled, !errors.Is(err, ErrUnanswered)
	p.mu.Unlock()
	switch {
	case cancelled: // Cancel drains it
	case clean:
		p.tap.release(p.pipe)
	default:
		_ = p.pipe.sub.Drain()
	}
	p.tap.sink.End(p, err)
}

// receive handles one message of the pull.
func (p *Pull) receive(msg *nats.Msg) {
	if msg.Reply == "" {
		p.status(msg)
		return
	}
	lease, err := p.tap.lease(msg, p.asked)
	if err != nil {
		return // not the server's: nobody else knows the reply subjects of leases
	}
	p.mu.Lock()
	ended := p.ended
	p.delivering = !ended
	p.mu.Unlock()
	if ended { // given up before this arrived
		go func() { _ = lease.HandBack() }() // if that fails it comes back by itself
		return
	}
	p.tap.sink.Deliver(p, lease)
	p.mu.Lock()
	p.delivering = false
	p.left--
	due := p.due
	if due == nil && p.left == 0 {
		due = &ending{nil}
	}
	p.timer.Reset(p.patience())
	p.mu.Unlock()
	if due != nil {
		p.end(due.err)
	}
}

// status handles a word of the server about the pull.
func (p *Pull) status(msg *nats.Msg) {
	switch status := msg.Header.Get("Status"); status {
	case "100": // a beat
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.ended {
			p.timer.Reset(p.patience())
		}
	case "404", "408": // nothing there, or waited in vain
		p.end(nil)
	default:
		p.end(fmt.Errorf("pull from lane %s: %s %s", p.tap.lane.Token(), status, msg.Header.Get("Description")))
	}
}

// lease makes a lease of a delivery, which is younger than its pull and than
// what the link has proven.
func (t *Tap) lease(msg *nats.Msg, asked time.Time) (*Lease, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	lease := &Lease{
		Stored:    Stored{Lane: t.lane, Sequence: meta.Sequence.Stream, Stored: meta.Timestamp, Body: msg.Data},
		Delivered: meta.NumDelivered,
		Pending:   meta.NumPending,
		Due:       due(msg.Header),
		msg:       msg,
		nc:        t.queue.conn(),
		ackWait:   t.ackWait,
		proven:    later(asked, t.link.Proven()),
	}
	t.link.Clock.saw(meta.Timestamp, time.Now())
	if _, lease.ID, err = t.queue.names.parseJob(msg.Subject); err != nil {
		lease.ID, lease.Illegal = job.ID(fmt.Sprintf("illegal-%d", lease.Sequence)), err
	}
	return lease, nil
}

// take gives a pull a pipe.
func (t *Tap) take(p *Pull) (*pipe, error) {
	t.mu.Lock()
	free := t.idle
	t.idle = nil
	t.mu.Unlock()
	if free != nil {
		free.mu.Lock()
		free.pull = p
		free.mu.Unlock()
		return free, nil
	}
	made := &pipe{pull: p}
	sub, err := t.queue.conn().Subscribe(t.queue.conn().NewInbox(), func(msg *nats.Msg) {
		made.mu.Lock()
		pull := made.pull
		made.mu.Unlock()
		pull.receive(msg)
	})
	if err != nil {
		return nil, err
	}
	// A pull bounds what arrives; a limit here would drop leases.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	made.sub = sub
	return made, nil
}

// release keeps a pipe for the next pull.
func (t *Tap) release(free *pipe) {
	t.mu.Lock()
	spare := t.closed || t.idle != nil
	if !spare {
		t.idle = free
	}
	t.mu.Unlock()
	if spare {
		_ = free.sub.Unsubscribe()
	}
}

// Close gives up what the tap keeps. Pulls that have not ended go on, and give
// up theirs when they do.
func (t *Tap) Close() {
	t.mu.Lock()
	free := t.idle
	t.idle, t.closed = nil, true
	t.mu.Unlock()
	if free != nil {
		_ = free.sub.Unsubscribe()
	}
}
