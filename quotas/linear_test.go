package quotas

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What a quota's users do and see: take a slot, give it back, change the size.
type quotaCall struct {
	what string // "take", "give", "resize"
	size int
}

type quotaState struct{ size, taken int }

// semaphore is what a quota should be to those who use it: a counter that nobody
// raises above its size. Calls are linearizable if each can be thought to happen
// at one moment between its beginning and its end.
var semaphore = porcupine.Model{
	Init: func() any { return quotaState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, call := state.(quotaState), input.(quotaCall)
		switch call.what {
		case "take":
			s.taken++
			return s.taken <= s.size, s
		case "give":
			s.taken--
			return s.taken >= 0, s
		}
		s.size = call.size
		return true, s
	},
}

// history records calls by a clock that tells their order and no more.
type history struct {
	clock atomic.Int64
	mu    sync.Mutex
	calls []porcupine.Operation
}

func (h *history) record(client int, call quotaCall, do func()) {
	began := h.clock.Add(1)
	do()
	ended := h.clock.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, porcupine.Operation{ClientId: client, Input: call, Call: began, Return: ended})
}

// Several processes take slots and give them back while the size changes: their
// history is that of one counter.
func TestLinearizable(t *testing.T) {
	const processes, clients, rounds, resizes = 3, 3, 12, 20
	inBubble(t, func(t *testing.T, w *world) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		var h history
		resize := func(size int) {
			h.record(processes*clients, quotaCall{"resize", size}, func() { w.limit(size, "gpu") })
		}
		resize(2)
		var sequence atomic.Uint64
		var group sync.WaitGroup
		for i := range processes {
			p := w.start()
			for j := range clients {
				client := i*clients + j
				random := rand.New(rand.NewPCG(seed, uint64(client)))
				group.Go(func() {
					for range rounds {
						var s *seat
						h.record(client, quotaCall{what: "take"}, func() {
							s = p.enter(sequence.Add(1), "gpu")
							<-s.Granted()
						})
						time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
						h.record(client, quotaCall{what: "give"}, func() { <-s.Leave() })
					}
				})
			}
		}
		random := rand.New(rand.NewPCG(seed, 1000))
		for range resizes {
			time.Sleep(time.Duration(random.IntN(8000)) * time.Microsecond)
			resize(random.IntN(5))
		}
		resize(2)
		group.Wait()
		if got := porcupine.CheckOperationsTimeout(semaphore, h.calls, time.Minute); got != porcupine.Ok {
			t.Errorf("%d calls: %v, want %v", len(h.calls), got, porcupine.Ok)
		}
		w.check()
	})
}

// The check is one that can fail.
func TestNotLinearizable(t *testing.T) {
	call := func(client int, what string, size int, began, ended int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: quotaCall{what, size}, Call: began, Return: ended}
	}
	for name, row := range map[string]struct {
		calls []porcupine.Operation
		want  bool
	}{
		"within the size":   {[]porcupine.Operation{call(0, "resize", 1, 1, 2), call(1, "take", 0, 3, 4), call(1, "give", 0, 5, 6), call(2, "take", 0, 7, 8)}, true},
		"handed over":       {[]porcupine.Operation{call(0, "resize", 1, 1, 2), call(1, "take", 0, 3, 4), call(2, "take", 0, 5, 9), call(1, "give", 0, 6, 8)}, true},
		"one too many":      {[]porcupine.Operation{call(0, "resize", 1, 1, 2), call(1, "take", 0, 3, 4), call(2, "take", 0, 5, 6), call(1, "give", 0, 7, 8)}, false},
		"after it shrank":   {[]porcupine.Operation{call(0, "resize", 2, 1, 2), call(1, "take", 0, 3, 4), call(0, "resize", 1, 5, 6), call(2, "take", 0, 7, 8)}, false},
		"while it shrinks":  {[]porcupine.Operation{call(0, "resize", 2, 1, 2), call(1, "take", 0, 3, 4), call(0, "resize", 1, 5, 8), call(2, "take", 0, 6, 7)}, true},
		"given, not taken":  {[]porcupine.Operation{call(0, "resize", 2, 1, 2), call(1, "give", 0, 3, 4)}, false},
		"taken by nobody's": {[]porcupine.Operation{call(1, "take", 0, 1, 2)}, false},
	} {
		if got := porcupine.CheckOperations(semaphore, row.calls); got != row.want {
			t.Errorf("%s: %t, want %t", name, got, row.want)
		}
	}
}
