package stories

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// whoami returns the dispatcher that performs it.
var whoami = asyncnats.Define[string, string]("story.whoami")

// fleet is a broadcast queue with dispatchers.
type fleet struct {
	*story
	queue *asyncnats.Queue
	diary diary
	crew  map[string]*staff
	stop  chan struct{} // closed when those who were told to wait may go on
}

// muster begins a story with a broadcast queue.
func muster(t *testing.T, f func(f *fleet)) {
	tell(t, func(s *story) {
		q, err := s.client.CreateQueue(s.Context(), "fleet", asyncnats.QueueConfig{Broadcast: true, Grace: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		f(&fleet{story: s, queue: q, crew: make(map[string]*staff), stop: make(chan struct{})})
	})
}

// join runs a dispatcher, and returns its UUID when it is heard of.
func (f *fleet) join() string { return f.joinAs(uuid.New(), nil) }

// joinDeaf runs a dispatcher that would not perform a broadcast of whoami.
func (f *fleet) joinDeaf(change func(*dispatcher.Config)) {
	f.Helper()
	f.run(uuid.New(), change)
	time.Sleep(time.Second)
}

func (f *fleet) joinAs(id uuid.UUID, change func(*dispatcher.Config)) string {
	f.Helper()
	before := f.hearers()
	f.run(id, change)
	waitFor(f.story, func() bool { return f.hearers() > before })
	return id.String()
}

func (f *fleet) run(id uuid.UUID, change func(*dispatcher.Config)) {
	f.Helper()
	c := dispatcher.Config{
		UUID: id, Queues: []string{"fleet"}, Grace: -1, Agents: []agents.Agent{{Name: "main", Size: 2}},
		Handlers: []job.Handler{whoami.Handle(func(ctx context.Context, arg string) (string, error) {
			info, _ := job.FromContext(ctx)
			f.diary.write("%s by %.8s", arg, info.Dispatcher)
			switch arg {
			case "fail":
				return "", errBroken
			case "flaky":
				if info.Attempt == 1 {
					return "", errBroken
				}
			case "wait " + info.Dispatcher:
				select {
				case <-f.stop:
				case <-ctx.Done():
					return "", context.Cause(ctx)
				}
			}
			return info.Dispatcher, nil
		})},
	}
	if change != nil {
		change(&c)
	}
	f.crew[id.String()] = f.dispatch(c)
}

// hearers is how many dispatchers would perform a broadcast of whoami.
func (f *fleet) hearers() int {
	f.Helper()
	opened, err := openNamed(f.story, "fleet").Hearers(f.Context(), whoami.Name())
	if err != nil {
		f.Fatal(err)
	}
	return len(opened)
}

func (f *fleet) toAll(call asyncnats.Call[string]) *asyncnats.Job[map[string]asyncnats.Outcome[string]] {
	f.Helper()
	j, err := asyncnats.Put(f.Context(), f.queue, asyncnats.ToAll(call))
	if err != nil {
		f.Fatal(err)
	}
	return j
}

// wants checks that just these dispatchers have replied, each with its own UUID.
func (f *fleet) wants(got map[string]asyncnats.Outcome[string], ids ...string) {
	f.Helper()
	want := make(map[string]asyncnats.Outcome[string])
	for _, id := range ids {
		want[id] = asyncnats.Outcome[string]{Result: id}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("replies (-want +got):\n%s", diff)
	}
}

// TestBroadcast has every dispatcher perform one copy.
func TestBroadcast(t *testing.T) {
	muster(t, func(f *fleet) {
		a, b, c := f.join(), f.join(), f.join()
		j := f.toAll(whoami.Call("hi"))
		f.wants(wait(f.story, j), a, b, c)
		to, err := asyncnats.Expected(f.Context(), j)
		if want := slices.Sorted(slices.Values([]string{a, b, c})); err != nil || !slices.Equal(to, want) {
			t.Errorf("expected %v, %v, want %v", to, err, want)
		}
		if n := len(f.diary.read()); n != 3 {
			t.Errorf("%d copies were performed, want 3", n)
		}
		f.crew[b].stop()
		f.wants(wait(f.story, f.toAll(whoami.Call("again"))), a, c)
		time.Sleep(15 * time.Second) // timers fire in vain
		stream, err := f.server.JetStream(f.T).Stream(f.Context(), "ASYNC_fleet")
		if err != nil {
			t.Fatal(err)
		}
		if n := stream.CachedInfo().State.Msgs; n != 1 {
			t.Errorf("%d messages are left, want that of the queue alone", n)
		}
	})
}

// TestBroadcastToNobody is over at once.
func TestBroadcastToNobody(t *testing.T) {
	muster(t, func(f *fleet) {
		early := f.toAll(whoami.Call("early"))
		a := f.join()
		f.wants(wait(f.story, early))
		f.joinDeaf(func(c *dispatcher.Config) { c.Handlers = []job.Handler{nap.Handle(nil)} })
		f.joinDeaf(func(c *dispatcher.Config) { c.Agents = []agents.Agent{} })
		f.joinDeaf(func(c *dispatcher.Config) { c.Agents[0].Filter = []string{"other.>"} })
		f.wants(wait(f.story, f.toAll(whoami.Call("now"))), a)
	})
}

// TestBroadcastFailures reports who fails, and calls callbacks with the aggregate.
func TestBroadcastFailures(t *testing.T) {
	muster(t, func(f *fleet) {
		told := asyncnats.Define[map[string]asyncnats.Outcome[string], asyncnats.None]("story.aggregate")
		f.dispatch(dispatcher.Config{Queues: []string{job.DefaultQueue}, Handlers: []job.Handler{
			told.Handle(func(_ context.Context, all map[string]asyncnats.Outcome[string]) (asyncnats.None, error) {
				f.diary.write("aggregate of %d", len(all))
				return asyncnats.None{}, nil
			}),
		}})
		a, b := f.join(), f.join()
		j, err := asyncnats.Put(f.Context(), f.queue, asyncnats.ToAll(whoami.Call("fail")).OnSuccess(told.Queue(job.DefaultQueue)))
		if err != nil {
			t.Fatal(err)
		}
		got := wait(f.story, j)
		for _, id := range []string{a, b} {
			if failure := got[id].Failure; failure == nil || failure.Message != errBroken.Error() || failure.Dispatcher != id {
				t.Errorf("reply of %s: %+v", id, got[id])
			}
		}
		waitFor(f.story, func() bool { return slices.Contains(f.diary.read(), "aggregate of 2") })
	})
}

// TestBroadcastDead has five dispatchers, of which one dies before and one during its
// copy, while another joins: the aggregate is complete, once, and says who is gone.
func TestBroadcastDead(t *testing.T) {
	muster(t, func(f *fleet) {
		var ids []string
		for range 5 {
			ids = append(ids, f.join())
		}
		f.crew[ids[0]].wire.Freeze() // dead, and nobody knows yet
		begin := time.Now()
		j := f.toAll(whoami.Call("wait " + ids[1]))
		waitFor(f.story, func() bool { return len(f.diary.read()) == 4 })
		f.crew[ids[1]].wire.Freeze() // dead in the middle
		late := f.join()
		quorum, err := asyncnats.WaitReplies(f.Context(), j, 3)
		if err != nil {
			t.Error(err)
		}
		f.wants(quorum, ids[2], ids[3], ids[4])
		got := wait(f.story, j)
		for _, id := range ids[:2] {
			if failure := got[id].Failure; failure == nil || !errors.Is(failure, job.ErrAbsent) {
				t.Errorf("reply of a dispatcher that is dead: %+v", got[id])
			}
			delete(got, id)
		}
		f.wants(got, ids[2], ids[3], ids[4])
		if took := time.Since(begin); took < 35*time.Second || took > time.Minute {
			t.Errorf("it was over after %v, want 15 s of silence, 20 s of grace, and some", took)
		}
		for _, line := range f.diary.read() {
			if strings.HasSuffix(line, late[:8]) {
				t.Error("one who joined later performed it")
			}
		}
		// One comes back, and what it says is dropped.
		f.crew[ids[1]].wire.Thaw()
		close(f.stop)
		time.Sleep(time.Minute)
		if again := wait(f.story, j); again[ids[1]].Failure == nil {
			t.Errorf("a late reply counts: %+v", again[ids[1]])
		}
		f.crew[ids[0]].wire.Thaw()
	})
}

// TestBroadcastBrieflyAway has a copy wait for a dispatcher that is restarted.
func TestBroadcastBrieflyAway(t *testing.T) {
	muster(t, func(f *fleet) {
		a, id := f.join(), uuid.New()
		b := f.joinAs(id, nil)
		f.crew[b].wire.Freeze()
		j := f.toAll(whoami.Call("hi"))
		if _, err := asyncnats.WaitReplies(f.Context(), j, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // it is taken for dead
		f.crew[b].wire.Thaw()
		f.wants(wait(f.story, j), a, b)
	})
}

// TestBroadcastBackFromTheDead has a dispatcher that was taken for dead, and comes back,
// perform later broadcasts; and what it missed, if it says so.
func TestBroadcastBackFromTheDead(t *testing.T) {
	muster(t, func(f *fleet) {
		a := f.join()
		b := f.joinAs(uuid.New(), func(c *dispatcher.Config) { c.CatchUp = time.Hour })
		f.crew[b].wire.Freeze()
		first := f.toAll(whoami.Call("first"))
		time.Sleep(time.Minute) // it is given up
		f.wants(wait(f.story, f.toAll(whoami.Call("missed"))), a)
		f.crew[b].wire.Thaw()
		time.Sleep(10 * time.Second) // it takes jobs again
		f.wants(wait(f.story, f.toAll(whoami.Call("later"))), a, b)
		if failure := wait(f.story, first)[b].Failure; failure == nil || !errors.Is(failure, job.ErrAbsent) {
			t.Errorf("reply of a dispatcher that was dead: %v", failure)
		}
		waitFor(f.story, func() bool { return slices.Contains(f.diary.read(), "missed by "+b[:8]) })
	})
}

// TestBroadcastHeardAgain has a dispatcher that lives say anew what it performs where a
// sibling, which had taken it for dead, removed that late.
func TestBroadcastHeardAgain(t *testing.T) {
	muster(t, func(f *fleet) {
		a, b := f.join(), f.join()
		if err := openNamed(f.story, "fleet").Leave(f.Context(), b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		f.wants(wait(f.story, f.toAll(whoami.Call("hi"))), a, b)
	})
}

// TestBroadcastSameUUID has a dispatcher whose UUID another process took over leave that
// one's broadcasts alone.
func TestBroadcastSameUUID(t *testing.T) {
	muster(t, func(f *fleet) {
		id := uuid.New()
		f.joinAs(id, nil)
		old := f.crew[id.String()]
		old.wire.Freeze()
		time.Sleep(time.Minute)
		f.run(id, nil)
		time.Sleep(time.Minute)
		old.wire.Thaw()
		time.Sleep(time.Minute)
		old.stop()
		f.wants(wait(f.story, f.toAll(whoami.Call("hi"))), id.String())
	})
}

// TestBroadcastLate has a copy that does not begin in time fail, and one that takes too
// long.
func TestBroadcastLate(t *testing.T) {
	muster(t, func(f *fleet) {
		a, b := f.join(), f.join()
		if err := f.queue.PauseAgent(f.Context(), b, "main"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		got := wait(f.story, f.toAll(whoami.Call("hi").Within(5*time.Second)))
		if failure := got[b].Failure; failure == nil || !errors.Is(failure, job.ErrTimeout) {
			t.Errorf("reply of one who did not begin: %+v", got[b])
		}
		got = wait(f.story, f.toAll(whoami.Call("wait "+a).Timeout(5*time.Second).Within(10*time.Second)))
		if failure := got[a].Failure; failure == nil || !errors.Is(failure, job.ErrTimeout) {
			t.Errorf("reply of one who takes too long: %+v", got[a])
		}
	})
}

// TestBroadcastRetries has each copy tried again by itself.
func TestBroadcastRetries(t *testing.T) {
	muster(t, func(f *fleet) {
		a, b := f.join(), f.join()
		f.wants(wait(f.story, f.toAll(whoami.Call("flaky").Retry(job.Retry{Max: 1}))), a, b)
		if n := len(f.diary.read()); n != 4 {
			t.Errorf("%d attempts, want 4: %q", n, f.diary.read())
		}
	})
}

// TestBroadcastCancel cancels all copies.
func TestBroadcastCancel(t *testing.T) {
	muster(t, func(f *fleet) {
		a := f.join()
		b := f.join()
		j := f.toAll(whoami.Call("wait " + a))
		waitFor(f.story, func() bool { return len(f.diary.read()) == 2 })
		if _, err := j.Cancel(f.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Wait(f.Context()); !errors.Is(err, job.ErrCancelled) {
			t.Errorf("got %v", err)
		}
		f.wants(wait(f.story, f.toAll(whoami.Call("hi"))), a, b)
	})
}

// TestBroadcastComposed makes a broadcast the first part of another job, in another
// queue.
func TestBroadcastComposed(t *testing.T) {
	muster(t, func(f *fleet) {
		count := asyncnats.Define[map[string]asyncnats.Outcome[string], int]("story.count")
		f.dispatch(dispatcher.Config{Queues: []string{job.DefaultQueue}, Handlers: []job.Handler{
			count.Handle(func(_ context.Context, all map[string]asyncnats.Outcome[string]) (int, error) { return len(all), nil }),
		}})
		f.join()
		f.join()
		j, err := asyncnats.Put(f.Context(), f.client.Queue(job.DefaultQueue), asyncnats.Then(asyncnats.ToAll(whoami.Call("hi")).Queue("fleet"), count))
		if err != nil {
			t.Fatal(err)
		}
		if n := wait(f.story, j); n != 2 {
			t.Errorf("got %d, want 2", n)
		}
	})
}

// TestBroadcastQuota has copies share a quota of the queue.
func TestBroadcastQuota(t *testing.T) {
	muster(t, func(f *fleet) {
		if err := f.queue.Limit(f.Context(), "one", 1); err != nil {
			t.Fatal(err)
		}
		a, b, c := f.join(), f.join(), f.join()
		f.wants(wait(f.story, f.toAll(whoami.Call("hi").Quota("one"))), a, b, c)
	})
}

// TestBroadcastCatchUp has one who joins later perform what it has missed, if it says
// so, and each once.
func TestBroadcastCatchUp(t *testing.T) {
	muster(t, func(f *fleet) {
		a := f.join()
		f.wants(wait(f.story, f.toAll(whoami.Call("too old"))), a)
		time.Sleep(2 * time.Hour)
		for _, word := range []string{"one", "two"} {
			f.wants(wait(f.story, f.toAll(whoami.Call(word))), a)
			time.Sleep(time.Minute)
		}
		id := uuid.New()
		late := func(c *dispatcher.Config) { c.CatchUp, c.Agents[0].Size = time.Hour, 1 }
		b := f.joinAs(id, late)
		time.Sleep(time.Second) // it is heard of before it has put what it missed
		f.wants(wait(f.story, f.toAll(whoami.Call("three"))), a, b)
		f.crew[b].stop()
		b = f.joinAs(id, late)
		f.wants(wait(f.story, f.toAll(whoami.Call("four"))), a, b)
		var own []string
		for _, line := range f.diary.read() {
			if word, found := strings.CutSuffix(line, " by "+b[:8]); found {
				own = append(own, word)
			}
		}
		if diff := cmp.Diff([]string{"one", "two", "three", "four"}, own); diff != "" {
			t.Errorf("performed by one who was late (-want +got):\n%s", diff)
		}
	})
}

// TestBroadcastCatchUpNotOver has one who joins later perform what is not over yet, each
// once: what others perform at once, and what is to begin when it does.
func TestBroadcastCatchUpNotOver(t *testing.T) {
	muster(t, func(f *fleet) {
		a := f.join()
		begin := time.Now().Add(5 * time.Minute)
		now := f.toAll(whoami.Call("wait " + a))
		soon, err := asyncnats.Put(f.Context(), f.queue, asyncnats.ToAll(whoami.Call("soon")).At(begin))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		b := f.joinAs(uuid.New(), func(c *dispatcher.Config) { c.CatchUp = time.Hour })
		time.Sleep(time.Until(begin) - time.Second)
		want := []string{"wait " + a + " by " + a[:8], "wait " + a + " by " + b[:8]}
		if diff := cmp.Diff(want, f.diary.read()); diff != "" {
			t.Errorf("performed before it is time (-want +got):\n%s", diff)
		}
		close(f.stop)
		f.wants(wait(f.story, now), a)
		f.wants(wait(f.story, soon), a)
		time.Sleep(time.Second)
		want = slices.Sorted(slices.Values(append(want, "soon by "+a[:8], "soon by "+b[:8])))
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(f.diary.read()))); diff != "" {
			t.Errorf("performed (-want +got):\n%s", diff)
		}
	})
}

// TestBroadcastCatchUpAgain has one who could not read what it has missed try again.
func TestBroadcastCatchUpAgain(t *testing.T) {
	muster(t, func(f *fleet) {
		a, b := f.join(), uuid.New()
		f.wants(wait(f.story, f.toAll(whoami.Call("one"))), a)
		f.run(b, func(c *dispatcher.Config) { c.CatchUp, c.Agents = time.Hour, []agents.Agent{} })
		readable := func(so bool) {
			f.edit("KV_ASYNC_JOBS", func(c *jetstream.StreamConfig) { c.AllowDirect = so })
		}
		time.Sleep(time.Second)
		readable(false)
		if err := f.queue.AddAgent(f.Context(), b.String(), agents.Agent{Name: "late", Size: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		readable(true)
		time.Sleep(3 * time.Second)
		if want := "one by " + b.String()[:8]; !slices.Contains(f.diary.read(), want) {
			t.Errorf("got %q, want %q among them", f.diary.read(), want)
		}
	})
}

// TestBroadcastLanesGo removes the lanes of dispatchers that are gone for long.
func TestBroadcastLanesGo(t *testing.T) {
	muster(t, func(f *fleet) {
		a, b := f.join(), f.join()
		f.wants(wait(f.story, f.toAll(whoami.Call("hi"))), a, b)
		lanes := func() (of []string) {
			all, err := openNamed(f.story, "fleet").Lanes(f.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, lane := range all {
				of = append(of, lane.To)
			}
			return of
		}
		if n := len(lanes()); n != 2 {
			t.Errorf("%d lanes, want 2", n)
		}
		f.crew[b].stop()
		time.Sleep(30 * time.Minute)
		if n := len(lanes()); n != 2 {
			t.Errorf("%d lanes, want 2 still", n)
		}
		time.Sleep(time.Hour)
		if got := lanes(); !slices.Equal(got, []string{a}) {
			t.Errorf("lanes of %v, want %s", got, a)
		}
		stream, err := f.server.JetStream(f.T).Stream(f.Context(), "ASYNC_fleet")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Consumer(f.Context(), "story=whoami===="+b); err == nil {
			t.Error("the consumer of a lane that was removed is left")
		}
		b = f.joinAs(uuid.MustParse(b), nil)
		f.wants(wait(f.story, f.toAll(whoami.Call("again"))), a, b)
	})
}

// TestBroadcastRepliesOutliveALostAnswer has whoever takes replies for as long as may be ask
// again what got no answer, also who is to reply.
func TestBroadcastRepliesOutliveALostAnswer(t *testing.T) {
	muster(t, func(f *fleet) {
		lost, asked := 0, 0 // written while nobody asks
		queue := f.through(func(request *nats.Msg) bool {
			if !strings.Contains(request.Subject, ".DIRECT.GET.KV_ASYNC_JOBS.") {
				return false
			}
			asked++
			return asked <= lost
		}).Client().Queue("fleet")
		a, b := f.join(), f.join()
		j, err := asyncnats.Put(f.Context(), queue, asyncnats.ToAll(whoami.Call("hi")))
		if err != nil {
			t.Fatal(err)
		}
		for lost = range 3 {
			for what, look := range map[string]func(context.Context) error{
				"replies": func(ctx context.Context) error {
					got, err := asyncnats.WaitReplies(ctx, j, 2)
					f.wants(got, a, b)
					return err
				},
				"expected": func(ctx context.Context) error {
					to, err := asyncnats.Expected(ctx, j)
					if len(to) != 2 {
						t.Errorf("expected %v", to)
					}
					return err
				},
			} {
				asked = 0
				ctx, cancel := context.WithTimeout(f.Context(), time.Hour)
				began := time.Now()
				err := look(ctx)
				cancel()
				if took := time.Since(began); err != nil || took > 10*time.Second {
					t.Errorf("%s, %d lost: %v after %v", what, lost, err, took)
				}
			}
		}
	})
}

// TestBroadcastNames refuses a broadcast that names what does not exist, as any call is.
func TestBroadcastNames(t *testing.T) {
	muster(t, func(f *fleet) {
		told := asyncnats.Define[job.Failure, asyncnats.None]("story.told")
		all := asyncnats.ToAll(whoami.Call("hi"))
		for name, row := range map[string]struct {
			call asyncnats.Call[map[string]asyncnats.Outcome[string]]
			want error
		}{
			"its quota":                    {asyncnats.ToAll(whoami.Call("hi").Quota("gpu")), asyncnats.ErrUnknownQuota},
			"its callback's queue":         {all.OnFailure(told.Queue("nowhere")), asyncnats.ErrNoQueue},
			"its callback's quota":         {all.OnFailure(told.Quota("gpu")), asyncnats.ErrUnknownQuota},
			"its copies' callback's queue": {asyncnats.ToAll(whoami.Call("hi").OnFailure(told.Queue("nowhere"))), asyncnats.ErrNoQueue},
			"its copies' callback's quota": {asyncnats.ToAll(whoami.Call("hi").OnFailure(told.Quota("gpu"))), asyncnats.ErrUnknownQuota},
			"nothing, and has callbacks":   {asyncnats.ToAll(whoami.Call("hi").OnFailure(told)).OnFailure(told), nil},
		} {
			if _, err := asyncnats.Put(f.Context(), f.queue, row.call); !errors.Is(err, row.want) {
				t.Errorf("%s: %v, want %v", name, err, row.want)
			}
		}
	})
}

// TestBroadcastKinds refuses jobs on a queue of the other kind.
func TestBroadcastKinds(t *testing.T) {
	muster(t, func(f *fleet) {
		ordinary := f.client.Queue(job.DefaultQueue)
		for want, put := range map[string]func() error{
			"is a broadcast queue: put ToAll": func() error { _, err := asyncnats.Put(f.Context(), f.queue, whoami.Call("hi")); return err },
			"is no broadcast queue": func() error {
				_, err := asyncnats.Put(f.Context(), ordinary, asyncnats.ToAll(whoami.Call("hi")))
				return err
			},
			"exists, and is of kind broadcast": func() error {
				_, err := f.client.CreateQueue(f.Context(), "fleet", asyncnats.QueueConfig{})
				return err
			},
			"is for broadcast queues only": func() error {
				_, err := f.client.CreateQueue(f.Context(), "more", asyncnats.QueueConfig{Grace: time.Second})
				return err
			},
			"its ID from that": func() error {
				_, err := asyncnats.Put(f.Context(), f.queue, asyncnats.ToAll(whoami.Call("hi").ID("x")))
				return err
			},
		} {
			if err := put(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
	})
}
