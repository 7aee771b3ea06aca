package quotas

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/vmihailenco/msgpack/v5"
)

// through is an administrator's set that asks by way of a relay. before is called
// before each request goes on.
func (w *world) through(before func(*nats.Msg)) *Set {
	w.t.Helper()
	w.server.Relay(w.t, "afar", func(request *nats.Msg) bool {
		before(request)
		return false
	})
	js, err := jetstream.NewWithDomain(w.server.Connect(w.t), "afar")
	if err != nil {
		w.t.Fatal(err)
	}
	return w.open(js)
}

// afar is a set whose requests take so long to arrive.
func (w *world) afar(delay time.Duration) *Set {
	return w.through(func(*nats.Msg) { time.Sleep(delay) })
}

// churn has jobs of two processes start and end all the time, until stop is called.
func (w *world) churn(name string) (stop func()) {
	var running sync.WaitGroup
	done := make(chan struct{})
	processes := []*process{w.start(), w.start()}
	for i := range 6 {
		running.Go(func() {
			for sequence := uint64(i + 1); !closed(done); sequence += 6 {
				processes[i%2].enter(sequence, name).turn(w.t, time.Hour, func() {
					time.Sleep(time.Duration(10+i) * time.Millisecond)
				})
			}
		})
	}
	return func() {
		close(done)
		running.Wait()
	}
}

// Whoever is far away changes a quota all the same whose jobs start and end all the
// time, and gives back in it what is held of jobs that are over.
func TestChangeFromAfar(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(3, "gpu")
		lost := w.start()
		wantIn(t, []*seat{lost.enter(999, "gpu")}, 999)
		lost.die()
		stop := w.churn("gpu")
		set := w.afar(40 * time.Millisecond)
		change := func(what string, f func(context.Context) error, want setting) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			began := time.Now()
			if err := f(ctx); err != nil {
				t.Errorf("%s: %v after %v", what, err, time.Since(began))
			}
			if now := w.now("gpu"); now.setting() != want {
				t.Errorf("%s: %+v, want %+v", what, now.setting(), want)
			}
		}
		const rate = Period(100 * time.Millisecond)
		time.Sleep(time.Second)
		change("clean", func(ctx context.Context) error {
			dropped, err := set.Clean(ctx, "gpu", func(_ context.Context, claims []Claim) ([]Claim, error) {
				return slices.DeleteFunc(claims, func(c Claim) bool { return c.Sequence != 999 }), nil
			})
			if dropped != 1 {
				t.Errorf("%d claims were dropped", dropped)
			}
			return err
		}, setting{Size: 3})
		change("resize", func(ctx context.Context) error { return set.Resize(ctx, "gpu", 4) }, setting{Size: 4})
		change("remove", func(ctx context.Context) error { return set.Remove(ctx, "gpu") }, setting{Removed: true})
		change("create", func(ctx context.Context) error { return set.Create(ctx, "gpu", 2) }, setting{Size: 2})
		change("change", func(ctx context.Context) error { return set.Change(ctx, "gpu", 20, time.Duration(rate)) }, setting{Size: 20, Period: rate})
		change("limit", func(ctx context.Context) error { return set.Limit(ctx, "gpu", 5) }, setting{Size: 5})
		change("in an emergency", func(ctx context.Context) error { return set.Resize(ctx, "gpu", 0) }, setting{})
		time.Sleep(time.Second)
		if now := w.now("gpu"); len(now.Holders) > 0 {
			t.Errorf("still held: %s", show(now))
		}
		w.limit(2, "gpu")
		stop()
		if n := len(w.keepers("gpu")); n != 2 { // lost, and one of the two
			t.Errorf("%d keepers", n)
		}
	})
}

// A keeper that does not do what it is asked, or does not say so, keeps nobody from a
// change, and does not make it later.
func TestChangeWithoutKeeper(t *testing.T) {
	for what, row := range map[string]struct {
		keeper func(*world, *process)
		within time.Duration
		ends   bool // its term
	}{
		"it is dead":   {func(_ *world, p *process) { p.die() }, 0, true},
		"it is silent": {func(_ *world, p *process) { p.wire.Freeze() }, tryPatience, true},
		"it is of an older release": {func(w *world, p *process) {
			p.die()
			if _, err := w.js.Conn().Subscribe(subject+"."+p.name, func(msg *nats.Msg) {
				value, _ := codec.Encode(w.now("gpu"))
				answer, _ := msgpack.Marshal(news{Quota: "gpu", Revision: w.revision("gpu"), Value: value})
				_ = msg.Respond(answer)
			}); err != nil {
				w.t.Fatal(err)
			}
		}, 0, false},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.limit(2, "gpu")
				p := w.start()
				wantIn(t, []*seat{p.enter(1, "gpu")}, 1)
				row.keeper(w, p)
				term := w.now("gpu").Term
				others := 3 // that write between the reading and the write
				set := w.through(func(request *nats.Msg) {
					if strings.Contains(request.Subject, "$KV.") && others > 0 {
						others--
						w.limit(2, "gpu")
					}
				})
				began := time.Now()
				if err := set.Resize(t.Context(), "gpu", 1); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > row.within {
					t.Errorf("it took %v, want %v", took, row.within)
				}
				if now := w.now("gpu"); now.Size != 1 || show(now) != "1 |" {
					t.Errorf("size %d, %s", now.Size, show(now))
				} else if ended := now.Term > term; ended != row.ends || now.Keeper != p.name {
					t.Errorf("the term is %d of %q, was %d", now.Term, now.Keeper, term)
				}
				w.limit(2, "gpu")
				p.wire.Thaw()
				time.Sleep(time.Minute)
				if now := w.now("gpu"); now.Size != 2 {
					t.Errorf("size %d: it was changed when nobody waited for that any more", now.Size)
				}
				two := w.start().enter(2, "gpu")
				wantIn(t, []*seat{two}, 2)
				w.check()
			})
		})
	}
}

// revision is that of a quota's value.
func (w *world) revision(name string) uint64 {
	w.t.Helper()
	_, revision, _, err := w.set.read(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return revision
}

// What a keeper has done without being able to say so is done.
func TestChangeWithoutAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(2, "gpu")
		p := w.start()
		wantIn(t, []*seat{p.enter(1, "gpu")}, 1)
		p.die()
		if err := w.set.Remove(t.Context(), "gpu"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.js.Conn().Subscribe(subject+"."+p.name, func(*nats.Msg) { w.limit(3, "gpu") }); err != nil {
			t.Fatal(err)
		}
		written := false
		set := w.through(func(request *nats.Msg) {
			if strings.Contains(request.Subject, "$KV.") && !written {
				written = true
				now := w.now("gpu")
				if _, err := w.set.write(t.Context(), "gpu", now, w.revision("gpu")); err != nil {
					t.Error(err)
				}
			}
		})
		if err := set.Create(t.Context(), "gpu", 3); err != nil || w.now("gpu").Size != 3 {
			t.Errorf("size %d, %v", w.now("gpu").Size, err)
		}
		wantError(t, "once more", set.Create(t.Context(), "gpu", 3), ErrExists, "")
	})
}

// A keeper changes the setting that it was asked to change, and no other, and tells all.
func TestKeeperChangesSetting(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.limit(1, "gpu")
		p, q := w.start(), w.start()
		seats := p.crowd(1, 3, "gpu")
		wantIn(t, seats, 1)
		q.told()
		set := func(was, be *setting) {
			t.Helper()
			if answer, answered := w.ask(p, request{Quota: "gpu", Term: w.now("gpu").Term, Ops: []op{{Kind: opSet, Was: was, Be: be}}}); !answered || answer.Revision == 0 {
				t.Errorf("%+v, %+v: answered %t: %+v", was, be, answered, answer)
			}
		}
		set(nil, nil)
		set(&setting{Size: 1}, nil)
		set(&setting{Size: 1}, &setting{Size: -1})
		set(&setting{Size: 1}, &setting{Period: -1})
		set(&setting{Size: 2}, &setting{Size: 3})
		w.wantLine("gpu", "1 | 2 3")
		set(&setting{Size: 1}, &setting{Size: 2})
		wantIn(t, seats, 1, 2)
		set(&setting{Size: 2}, &setting{Size: 2})
		if got := q.told(); !slices.Equal(got, []string{"gpu 2"}) {
			t.Errorf("told %q", got)
		}
		w.check()
	})
}
