package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// anyCalls makes calls at random, some of them compositions.
func anyCalls(random *rand.Rand, depth int) []job.Call {
	calls := make([]job.Call, random.IntN(6))
	for i := range calls {
		if depth > 0 && random.IntN(3) == 0 {
			calls[i] = composed([]job.Form{job.FormParallel, job.FormSerial}[random.IntN(2)], anyCalls(random, depth-1)...)
		} else {
			calls[i] = padded(random.IntN([]int{10, 3000}[random.IntN(2)]), fmt.Sprint(random.Int()))
		}
		if random.IntN(4) == 0 {
			calls[i].Queue = []string{"a", "b"}[random.IntN(2)]
		}
	}
	return calls
}

// unstow puts together what stow took apart, and checks what it says.
func unstow(t *testing.T, id job.ID, parts job.Parts, beside []besides) []job.Call {
	t.Helper()
	calls := slices.Clone(parts.Calls)
	for _, chunk := range parts.Chunks {
		owner := parts.At
		if owner == "" {
			owner = id
		}
		i := slices.IndexFunc(beside, func(b besides) bool { return b.owner == owner && b.base == parts.Base && b.name == chunk.Name })
		if i < 0 {
			t.Fatalf("chunk %s is not stored", chunk.Name)
		}
		if len(beside[i].calls) != chunk.Count {
			t.Fatalf("chunk %s has %d parts, want %d", chunk.Name, len(beside[i].calls), chunk.Count)
		}
		calls = append(calls, beside[i].calls...)
	}
	if len(calls) != parts.Count {
		t.Fatalf("%d parts, want %d", len(calls), parts.Count)
	}
	for i, call := range calls {
		if call.Queue != "" && !slices.Contains(parts.Queues, call.Queue) {
			t.Fatalf("queue %s is not listed", call.Queue)
		}
		if call.Parts == nil || call.Queue != "" {
			continue
		}
		nested := *call.Parts
		if nested.Base != parts.PartNonce(i) {
			t.Fatalf("part %d has another base", i)
		}
		again := unstow(t, parts.PartID(i), nested, beside)
		calls[i].Parts = &job.Parts{Form: nested.Form, Count: nested.Count, Calls: again}
	}
	return calls
}

// What stow takes apart can be put together again, however it is nested; and it leaves
// alone what it was given, and what it has stowed.
func TestStow(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	chunks := 0
	for range 500 {
		calls := anyCalls(random, 3)
		given := job.Parts{Form: job.FormParallel, Count: len(calls), Calls: calls, Base: job.NewNonce()}
		before, err := job.EncodeCalls(calls)
		if err != nil {
			t.Fatal(err)
		}
		most := []int{5000, chunkBytes}[random.IntN(2)]
		stowed, beside, err := stow("me", given, most)
		if err != nil {
			t.Fatal(err)
		}
		chunks += len(beside)
		for _, b := range beside {
			if data, err := job.EncodeCalls(b.calls); err != nil || b.owner != "me" || len(b.calls) > 1 && len(data) > most+10 {
				t.Errorf("%d parts of %d bytes beside %s: %v", len(b.calls), len(data), b.owner, err)
			}
		}
		if err := stowed.Check(); err != nil {
			t.Error(err)
		}
		after, err := job.EncodeCalls(unstow(t, "me", stowed, beside))
		if err != nil || string(after) != string(before) {
			t.Fatalf("changed: %v", err)
		}
		if again, err := job.EncodeCalls(calls); err != nil || string(again) != string(before) {
			t.Fatalf("what was given was changed: %v", err)
		}
		twice, more, err := stow("me", stowed, most)
		if err != nil || stowed.Chunks != nil && len(more) > 0 {
			t.Fatalf("stows %d again: %v", len(more), err)
		}
		first, firstErr := job.EncodeCalls([]job.Call{{Parts: &stowed}})
		second, secondErr := job.EncodeCalls([]job.Call{{Parts: &twice}})
		if err := errors.Join(firstErr, secondErr); err != nil || string(first) != string(second) {
			t.Fatalf("stowed again it is %+v, was %+v: %v", twice, stowed, err)
		}
	}
	if chunks == 0 {
		t.Error("nothing was stowed")
	}
}

// What does not fit a message is stored in pieces of the size that the server takes.
func TestDivide(t *testing.T) {
	for _, row := range []struct {
		sizes []int
		want  string
	}{
		{nil, ""}, {[]int{1}, "0-1"}, {[]int{9, 9}, "0-1 1-2"}, {[]int{2, 3, 1, 4}, "0-2 2-4"}, {[]int{6, 1, 1}, "0-1 1-3"},
	} {
		var got []string
		for first, last := range divide(row.sizes, 5) {
			got = append(got, fmt.Sprint(first, "-", last))
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%v: %v, want %s", row.sizes, got, row.want)
		}
	}
}

// Parts that were stored are read as they were put, those that were added among them.
func TestPartsOf(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		var calls []job.Call
		for i := range 8 {
			calls = append(calls, padded(100_000, fmt.Sprint(i)))
		}
		e := entryOf("", composed(job.FormParallel, calls...))
		e.Spec.Begin = time.Now().Add(time.Hour)
		put(t, q, e)
		added := []job.Call{called("x"), padded(250_000, "y"), padded(900_000, "z")}
		if err := q.AddParts(t.Context(), e.ID, e.Spec.Nonce, "some", added); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, added...)
		fresh := createQueue(t, s.Connect(t), Config{})
		parts := *mustRecord(t, q, e.ID).Parts
		reader := &partsOf{queue: fresh, id: e.ID, parts: parts}
		for _, i := range append(rand.Perm(len(calls)), rand.Perm(len(calls))...) {
			got, err := reader.call(t.Context(), i)
			if err != nil || string(got.Arg.Data) != string(calls[i].Arg.Data) {
				t.Errorf("part %d: %d bytes, %v", i, len(got.Arg.Data), err)
			}
		}
		for _, i := range []int{len(calls), len(calls) + 1} {
			if _, err := reader.call(t.Context(), i); !errors.Is(err, errPartsGone) {
				t.Errorf("part %d: %v", i, err)
			}
		}
		if err := q.purge(t.Context(), q.names.chunksOf(e.ID), 1<<40); err != nil {
			t.Fatal(err)
		}
		fresh.ns.chunks = chunkCache{}
		reader = &partsOf{queue: fresh, id: e.ID, parts: parts}
		if _, err := reader.call(t.Context(), 0); !errors.Is(err, errPartsGone) {
			t.Errorf("got %v", err)
		}
	})
}

func TestChunkCache(t *testing.T) {
	var c chunkCache
	for i := range mostChunks + 3 {
		c.add(fmt.Sprint(i), []job.Call{{Task: fmt.Sprint(i)}})
		c.add(fmt.Sprint(i), nil) // known
	}
	if len(c.calls) != mostChunks || len(c.order) != mostChunks {
		t.Errorf("%d are kept", len(c.calls))
	}
	for i := range mostChunks + 3 {
		calls, known := c.get(fmt.Sprint(i))
		if known != (i >= 3) || known && calls[0].Task != fmt.Sprint(i) {
			t.Errorf("%d: %v, %t", i, calls, known)
		}
	}
}

// Records are read as they are, however many there are: missing, replaced, of
// unfinished jobs, and too large to come in one answer.
func TestLatestRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		want := make(map[string]uint64)
		var keys []string
		var writes []kv.Write[job.Record]
		for i := range 1203 {
			id := job.ID(fmt.Sprint("job-", i))
			key := q.names.record(id)
			if keys = append(keys, key); i%5 == 0 {
				continue
			}
			record := job.Record{Version: job.RecordVersion, Nonce: job.NewNonce(), Task: task, State: job.Completed, Outcome: &job.Outcome{}}
			if i%5 == 1 {
				record.State, record.Outcome = job.Waiting, nil
			}
			if i%100 == 2 {
				record.Outcome.Result.Data = make([]byte, 600_000)
			}
			writes = append(writes, kv.Write[job.Record]{Key: key, Value: record})
		}
		for some := range slices.Chunk(writes, 100) {
			if n, err := q.records.UpdateEach(t.Context(), some, kv.Forever); n != 0 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		for i, w := range writes {
			entry, err := q.records.Latest(t.Context(), w.Key)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 7 {
			case 0:
				if err := q.records.Delete(t.Context(), w.Key, entry.Revision); err != nil {
					t.Fatal(err)
				}
				continue
			case 1:
				if entry.Revision, err = q.records.Update(t.Context(), w.Key, w.Value, entry.Revision, time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			want[w.Key] = entry.Revision
		}
		found, err := q.latestRecords(t.Context(), slices.Collect(slices.Chunk(keys, 1)))
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]uint64)
		for key, entry := range found {
			got[key] = entry.Revision
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("revisions (-want +got):\n%s", diff)
		}
	})
}

// Parts of one whole that are completed while it is told of others are told together.
func TestPaymentsAreToldTogether(t *testing.T) {
	var p payments
	whole, other := job.Parent{ID: "a"}, job.Parent{ID: "b"}
	begun, goOn := make(chan []int), make(chan error)
	tell := func(done []int) error {
		begun <- slices.Clone(done)
		return <-goOn
	}
	first := p.add(whole, 1, tell)
	if got := <-begun; !slices.Equal(got, []int{1}) {
		t.Errorf("told of %v", got)
	}
	second, third := p.add(whole, 2, tell), p.add(whole, 3, tell)
	elsewhere := p.add(other, 1, func([]int) error { return nil })
	<-elsewhere.told
	if second != third || first == second {
		t.Error("what comes together is not told together")
	}
	goOn <- errBegan
	<-first.told
	if got := <-begun; !slices.Equal(got, []int{2, 3}) || !errors.Is(first.err, errBegan) {
		t.Errorf("told of %v, after %v", got, first.err)
	}
	select {
	case <-third.told:
		t.Error("told too early")
	default:
	}
	goOn <- nil
	<-third.told
	if third.err != nil {
		t.Error(third.err)
	}
	for range 1000 {
		p.mu.Lock()
		n := len(p.open)
		p.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("payments are left open")
}

// Who waits no longer is not held up; the whole is told all the same.
func TestPayGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		e := entryOf("", composed(job.FormParallel, called("a")))
		put(t, q, e)
		if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
			t.Fatal(err)
		}
		message := perform(t, q, partOf(e, 0), job.Value{})
		spec, _ := message.Spec()
		faulty, wire := wired(t, s)
		wire.Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		within(t, 2*time.Second, "pay", func() {
			if err := faulty.PayOrDisown(ctx, partOf(e, 0), spec, false); !kv.Unanswered(err) {
				t.Errorf("got %v", err)
			}
		})
		wire.Thaw()
		time.Sleep(time.Minute)
		if got := mustRecord(t, q, e.ID); got.State != job.Completed {
			t.Errorf("the whole is %s", got.State)
		}
	})
}

// Callbacks that are put again are left out where they have begun, and marked else.
func TestPutCallbacksAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		e := newEntry()
		for _, on := range []job.On{job.OnSuccess, job.OnAny, job.OnFailure} {
			e.Spec.Callbacks = append(e.Spec.Callbacks, job.Callback{On: on, Call: job.Call{Task: task}})
		}
		record := job.Record{
			Version: job.RecordVersion, Nonce: e.Spec.Nonce, State: job.Callbacks, Outcome: &job.Outcome{},
			Callbacks: []job.Callback{{On: job.OnAny, Call: job.Call{Task: task, Queue: "gone"}}},
		}
		nonce := e.Spec.Nonce
		for round, want := range [][]bool{{true, true}, {false, true}} {
			called, err := q.PutCallbacks(t.Context(), e.ID, e.Spec, record, round > 0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]job.Called{
				{On: job.OnSuccess, ID: nonce.CallbackID(0), Task: task}, {On: job.OnAny, ID: nonce.CallbackID(1), Task: task},
				{On: job.OnAny, ID: nonce.CallbackID(3), Task: task, Queue: "gone"},
			}, called); diff != "" {
				t.Errorf("round %d (-want +got):\n%s", round, diff)
			}
			for i, stored := range want {
				if isStored(t, q, nonce.CallbackID(i)) != stored {
					t.Errorf("round %d: callback %d is stored: %t", round, i, !stored)
				}
			}
			if round == 0 { // the first is performed meanwhile, and the message of the second is lost
				message := perform(t, q, nonce.CallbackID(0), job.Value{})
				if _, err := q.remove(t.Context(), message.Sequence); err != nil {
					t.Fatal(err)
				}
				if err := q.removeAll(t.Context(), nonce.CallbackID(1), nonce.CallbackNonce(1)); err != nil {
					t.Fatal(err)
				}
			}
		}
		message, _, err := q.findLatest(t.Context(), nonce.CallbackID(1))
		if spec, _ := message.Spec(); err != nil || !spec.Again || spec.Parent == nil || !spec.Parent.Callback || spec.Parent.Number != 1 {
			t.Errorf("%+v, %v", spec, err)
		}
		if got, _, found, err := q.Record(t.Context(), nonce.CallbackID(3)); err != nil || found {
			t.Errorf("%+v, %v", got, err)
		}
		gone, err := q.records.Latest(t.Context(), names{q.names.namespace, "gone"}.record(nonce.CallbackID(3)))
		if err != nil || gone.Value.Outcome.Failure.Kind != job.KindInvalid {
			t.Errorf("%+v, %v", gone, err)
		}
	})
}

// A wire that is cut while parts and callbacks are added costs time; each is added
// once.
func TestAddOverCutWire(t *testing.T) {
	const rounds = 60
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		random := rand.New(rand.NewPCG(seed, 0))
		faulty, wire := wired(t, s)
		for round := range rounds {
			e := entryOf("", composed(job.FormParallel, called("a")))
			e.Spec.Callbacks = []job.Callback{{On: job.OnAny, Call: job.Call{Task: task}}}
			put(t, q, e)
			if err := q.Advance(t.Context(), e.ID, e.Spec.Nonce, time.Now()); err != nil {
				t.Fatal(err)
			}
			answers := make(chan error, 2)
			var done sync.WaitGroup
			done.Go(func() {
				answers <- faulty.AddParts(t.Context(), e.ID, e.Spec.Nonce, "deed", []job.Call{called("b"), called("c")})
				answers <- faulty.AddCallback(t.Context(), e.ID, e.Spec.Nonce, job.Callback{On: job.OnAny, Call: job.Call{Task: task}})
			})
			for range random.IntN(2000) {
				runtime.Gosched() // as in TestPutOverCutWire
			}
			wire.Cut()
			time.Sleep([]time.Duration{0, 5 * time.Second}[random.IntN(2)])
			wire.Restore()
			for range 2 {
				if err := <-answers; err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			done.Wait()
			record := mustRecord(t, q, e.ID)
			if record.Parts.Count != 3 || len(record.Callbacks) != 1 {
				t.Fatalf("round %d: %d parts, %d callbacks", round, record.Parts.Count, len(record.Callbacks))
			}
			for i := range 3 {
				finish(t, q, partOf(e, i))
			}
			if record = mustRecord(t, q, e.ID); record.State != job.Completed || len(record.Called) != 2 {
				t.Fatalf("round %d: %s, called %d", round, record.State, len(record.Called))
			}
			time.Sleep(10 * time.Second)
		}
	})
}

// So does one while a composition is put, which is begun once.
func TestPutCompositionOverCutWire(t *testing.T) {
	const rounds = 60
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		random := rand.New(rand.NewPCG(seed, 0))
		faulty, wire := wired(t, s)
		attending(t, q)
		for round := range rounds {
			e := entryOf([]job.ID{"", "me"}[round%2], composed(job.FormParallel, padded(3000, "a"), padded(3000, "b")))
			answer := make(chan error, 1)
			go func() { answer <- faulty.Put(t.Context(), e) }()
			for range random.IntN(500) {
				runtime.Gosched()
			}
			wire.Cut()
			time.Sleep([]time.Duration{0, 5 * time.Second}[random.IntN(2)])
			wire.Restore()
			if err := <-answer; err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			time.Sleep(2 * time.Second)
			for i := range 2 {
				finish(t, q, partOf(e, i))
			}
			time.Sleep(time.Second)
			if record := mustRecord(t, q, e.ID); record.Nonce != e.Spec.Nonce || record.State != job.Completed {
				t.Fatalf("round %d: %s", round, record.State)
			}
			wantMessages(t, q, 0)
		}
	})
}

// A composition that one put cannot store is refused with what to do, before anything is
// stored.
func TestTooManyChunks(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *natstest.Server, q *Queue) {
		q.maxMsgSize = 4 << 10
		calls := make([]job.Call, MaxBatch)
		for i := range calls {
			calls[i] = job.Call{Task: task, Arg: job.Value{Data: append([]byte{0xc5, 0x0b, 0xb8}, make([]byte, 3000)...)}}
		}
		spec := job.Spec{
			Version: job.SpecVersion, Nonce: job.NewNonce(), Task: string(job.FormParallel),
			Parts: &job.Parts{Form: job.FormParallel, Count: len(calls), Calls: calls},
		}
		err := q.Put(t.Context(), Entry{ID: job.NewID(), Spec: spec})
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "1002 messages, and one put stores 1000 at most") {
			t.Errorf("got %v", err)
		}
	})
}
