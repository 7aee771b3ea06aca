package dispatcher

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/asyncnats/asyncnats/internal/mailbox"
	"github.com/asyncnats/asyncnats/stream"
)

const (
	// flowPause is how long a lane whose flow could not be set is left alone, and
	// after what time one that was set is looked at again: a process that makes the
	// lane's consumer at the same moment may have undone it, see [stream.Queue.SetFlow].
	flowPause = time.Second
	// flowEvery is how often the flows are set again, since a lane's consumer
	// may have been made since, or made again.
	flowEvery = time.Minute
)

// flow has the server give out no more jobs of a lane than its quotas can use
// soon: as many as the smallest has slots, and as many again, which stand by to
// take over. Every dispatcher does it, to the same effect. A rate limit is no bound:
// its jobs may run for any time while others start, and of those that wait an agent
// takes no more than its size.
//
// Its state is owned by the goroutine in run.
type flow struct {
	queue *stream.Queue
	log   *slog.Logger
	box   *mailbox.Mailbox

	lanes []stream.Lane
	sizes map[string]int // by quota; -1 for one that does not limit how many run
	set   map[stream.Lane]int
	sure  map[stream.Lane]int // what was set, and set again a pause later
}

func newFlow(queue *stream.Queue, log *slog.Logger) *flow {
	return &flow{
		queue: queue, log: log.With("queue", queue.Name()), box: mailbox.New(),
		sizes: make(map[string]int), set: make(map[stream.Lane]int), sure: make(map[stream.Lane]int),
	}
}

// add has a lane's flow follow its quotas.
func (f *flow) add(lane stream.Lane) {
	if len(lane.Quotas()) == 0 {
		return
	}
	f.box.Post(func() {
		if !slices.Contains(f.lanes, lane) {
			f.lanes = append(f.lanes, lane)
		}
	})
}

// resized takes the size of a quota.
func (f *flow) resized(name string, size int) {
	f.box.Post(func() { f.sizes[name] = size })
}

// run sets flows until ctx ends.
func (f *flow) run(ctx context.Context) {
	again := time.NewTicker(flowEvery)
	defer again.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.box.Ready():
		case <-retry.C:
			f.doubt()
		case <-again.C:
			clear(f.set)
		}
		f.box.Run()
		if !f.step(ctx) || !maps.Equal(f.set, f.sure) {
			retry.Reset(flowPause)
		}
	}
}

// doubt has what was set set once more.
func (f *flow) doubt() {
	maps.DeleteFunc(f.set, func(lane stream.Lane, n int) bool {
		sure := f.sure[lane] == n
		f.sure[lane] = n
		return !sure
	})
}

// step sets the flows that are not as they should be. It reports whether all
// are.
func (f *flow) step(ctx context.Context) bool {
	done := true
	for _, lane := range f.lanes {
		n, known := flowOf(lane.Quotas(), f.sizes)
		if !known || f.set[lane] == n {
			continue
		}
		if err := f.queue.SetFlow(ctx, lane, n); err != nil {
			if ctx.Err() == nil {
				f.log.Warn("flow not set, will be tried again", "lane", lane.Token(), "err", err)
			}
			done = false
			continue
		}
		f.set[lane] = n
	}
	return done
}

// flowOf is how many jobs that name these quotas are to be given out at once; -1
// for any number. It is at least one: the server takes zero for a thousand.
// known is false where the size of one is not known yet.
func flowOf(names []string, sizes map[string]int) (n int, known bool) {
	n = -1
	for _, name := range names {
		size, known := sizes[name]
		if !known {
			return 0, false
		}
		if each := max(1, 2*size); size >= 0 && (n < 0 || each < n) {
			n = each
		}
	}
	return n, true
}
