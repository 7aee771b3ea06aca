package dispatcher

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

func TestFlowOf(t *testing.T) {
	sizes := map[string]int{"none": 0, "one": 1, "two": 2, "ten": 10, "removed": -1}
	for name, row := range map[string]struct {
		quotas []string
		n      int
		known  bool
	}{
		"no quotas":                       {nil, -1, true},
		"one job runs, one stands by":     {[]string{"one"}, 2, true},
		"as many again stand by":          {[]string{"ten"}, 20, true},
		"the smallest counts":             {[]string{"ten", "two"}, 4, true},
		"whichever it is":                 {[]string{"two", "ten"}, 4, true},
		"a removed one does not":          {[]string{"removed", "two"}, 4, true},
		"nor the other way round":         {[]string{"two", "removed"}, 4, true},
		"nothing limits":                  {[]string{"removed"}, -1, true},
		"one at least: 0 means any":       {[]string{"none"}, 1, true},
		"also beside others":              {[]string{"none", "ten"}, 1, true},
		"a size that is not known":        {[]string{"new"}, 0, false},
		"also beside one that is":         {[]string{"one", "new"}, 0, false},
		"and before it, whatever it says": {[]string{"new", "none"}, 0, false},
	} {
		if n, known := flowOf(row.quotas, sizes); n != row.n || known != row.known {
			t.Errorf("%s: %d, %t; want %d, %t", name, n, known, row.n, row.known)
		}
	}
}

// flowing is a flow on a connection of its own.
type flowing struct {
	*flow
	t    *testing.T
	js   jetstream.JetStream
	wire *natstest.Wire
	log  bytes.Buffer
}

func newFlowing(t *testing.T, s *natstest.Server) *flowing {
	t.Helper()
	nc, wire := s.ConnectWire(t, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := stream.Open(t.Context(), js, "")
	if err != nil {
		t.Fatal(err)
	}
	queue, err := namespace.CreateQueue(t.Context(), "media", stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f := &flowing{t: t, js: s.JetStream(t), wire: wire}
	f.flow = newFlow(queue, slog.New(slog.NewTextHandler(&f.log, nil)))
	return f
}

// wantFlow checks what the server lets out of a lane at once; 0 stands for a
// lane that has no consumer.
func (f *flowing) wantFlow(lane stream.Lane, want int) {
	f.t.Helper()
	got := 0
	if consumer, err := f.js.Consumer(f.t.Context(), "ASYNC_media", lane.Token()); err == nil {
		got = consumer.CachedInfo().Config.MaxAckPending
	}
	if got != want {
		f.t.Errorf("flow of lane %s is %d, want %d", lane.Token(), got, want)
	}
}

func (f *flowing) start() {
	ctx, stop := context.WithCancel(f.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(ctx)
	}()
	f.t.Cleanup(func() {
		stop()
		<-ended
	})
}

var (
	plain = stream.LaneOf("a", nil, job.Normal)
	gpu   = stream.LaneOf("a", []string{"gpu"}, job.Normal)
	both  = stream.LaneOf("a", []string{"db", "gpu"}, job.Normal)
)

// The flow of each lane with quotas follows their sizes, as they become known
// and change; lanes without are left alone.
func TestFlowFollowsSizes(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		f := newFlowing(t, s)
		f.start()
		wanted := func(p, g, b int) {
			t.Helper()
			time.Sleep(10 * time.Millisecond)
			f.wantFlow(plain, p)
			f.wantFlow(gpu, g)
			f.wantFlow(both, b)
		}
		for _, lane := range []stream.Lane{plain, gpu, both, gpu} {
			f.add(lane)
		}
		wanted(0, 0, 0)
		f.resized("gpu", 3)
		wanted(0, 6, 0) // the other is not known yet
		f.resized("db", 1)
		wanted(0, 6, 2)
		f.resized("gpu", 0)
		wanted(0, 1, 1)
		f.resized("gpu", -1)
		wanted(0, -1, 2)
		f.resized("db", -1)
		f.resized("other", 1)
		wanted(0, -1, -1)
	})
}

// A consumer that was removed, or made anew, is found within a minute.
func TestFlowIsSetAgain(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		f := newFlowing(t, s)
		f.start()
		f.add(gpu)
		f.resized("gpu", 5)
		time.Sleep(10 * time.Millisecond)
		f.wantFlow(gpu, 10)
		if err := f.js.DeleteConsumer(t.Context(), "ASYNC_media", gpu.Token()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(flowEvery)
		f.wantFlow(gpu, 10)
	})
}

// A process that makes the lane's consumer meanwhile sets it back to how it begins.
func TestFlowThatIsUndoneAtOnce(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		f := newFlowing(t, s)
		f.start()
		f.add(gpu)
		for _, size := range []int{5, 7} {
			f.resized("gpu", size)
			time.Sleep(10 * time.Millisecond)
			f.wantFlow(gpu, 2*size)
			if err := f.queue.SetFlow(t.Context(), gpu, 2); err != nil {
				t.Fatal(err)
			}
			time.Sleep(flowPause)
			f.wantFlow(gpu, 2*size)
		}
	})
}

// What fails is tried again, and does not keep the other lanes from theirs.
func TestFlowAfterAnError(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		f := newFlowing(t, s)
		f.start()
		// A consumer that cannot serve is not touched.
		if _, err := f.js.CreateConsumer(t.Context(), "ASYNC_media", jetstream.ConsumerConfig{
			Durable: gpu.Token(), FilterSubject: "async.media.job.a==gpu.*", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 1, MaxAckPending: 7,
		}); err != nil {
			t.Fatal(err)
		}
		f.resized("gpu", 5)
		f.resized("db", 1)
		f.add(gpu)
		f.add(both)
		// The consumer is removed between two tries. A server that is asked to make one
		// while it removes another of that name deletes the folder of the new one, whose
		// flow cannot be set any more.
		time.Sleep(5*flowPause + flowPause/2)
		f.wantFlow(gpu, 7)
		f.wantFlow(both, 2)
		if err := f.js.DeleteConsumer(t.Context(), "ASYNC_media", gpu.Token()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * flowPause)
		f.wantFlow(gpu, 10)

		f.wire.Cut()
		f.resized("gpu", 2)
		time.Sleep(time.Minute)
		f.wire.Restore()
		time.Sleep(10 * time.Second)
		f.wantFlow(gpu, 4)
	})
}

func TestStep(t *testing.T) {
	natstest.Run(t, func(t *testing.T, s *natstest.Server) {
		f := newFlowing(t, s)
		f.add(gpu)
		f.add(both)
		f.resized("gpu", 2)
		f.box.Run()
		if !f.step(t.Context()) || !maps.Equal(f.set, map[stream.Lane]int{gpu: 4}) {
			t.Errorf("set %v; the other lane's is not known and nothing to wait for", f.set)
		}
		f.resized("gpu", 1)
		f.box.Run()
		f.wire.Freeze()
		if f.step(t.Context()) || f.set[gpu] != 4 {
			t.Errorf("without an answer: set %v", f.set)
		}
		if !strings.Contains(f.log.String(), "flow not set, will be tried again") || !strings.Contains(f.log.String(), `lane="a==gpu"`) {
			t.Errorf("logged %q", f.log.String())
		}
		f.wire.Thaw()
		time.Sleep(time.Second)
		if !f.step(t.Context()) || f.set[gpu] != 2 {
			t.Errorf("then: set %v", f.set)
		}
		f.wantFlow(gpu, 2)
		// What is as it should be costs nothing.
		f.wire.Cut()
		if !f.step(t.Context()) {
			t.Error("set again what is set")
		}
		// Nor is it an error to be asked to stop.
		f.resized("gpu", 9)
		f.box.Run()
		f.log.Reset()
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if f.step(ctx) || f.log.Len() > 0 {
			t.Errorf("stopped: logged %q", f.log.String())
		}
	})
}
