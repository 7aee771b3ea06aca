package quotas

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/asyncnats/asyncnats/job"
)

// checkStep checks a revision of a quota against the one before it.
func checkStep(old, now Slots) error {
	for _, check := range []func(old, now Slots) error{checkPlaces, checkGrants, checkFences, checkPassed} {
		if err := check(old, now); err != nil {
			return fmt.Errorf("%w\nold %+v\nnow %+v", err, old, now)
		}
	}
	return nil
}

// granted lists the claims of jobs that have a slot now and had none before; in a
// rate limit, of those whose start was granted since.
func granted(old, now Slots) []Claim {
	return slices.DeleteFunc(slices.Clone(now.Holders), func(c Claim) bool {
		i := find(old.Holders, c.Nonce)
		return i >= 0 && (!now.limitsRate() || old.Holders[i].Fence == c.Fence)
	})
}

// checkPlaces: nobody stands twice, waiters stand in order, and none waits in
// vain.
func checkPlaces(_, now Slots) error {
	seen := make(map[job.Nonce]bool)
	for _, c := range slices.Concat(now.Holders, now.Waiters) {
		if seen[c.Nonce] {
			return fmt.Errorf("job %d stands twice", c.Sequence)
		}
		seen[c.Nonce] = true
	}
	for i := range now.Waiters[:max(0, len(now.Waiters)-1)] {
		a, b := now.Waiters[i], now.Waiters[i+1]
		if b.Interrupted && !a.Interrupted || a.Interrupted == b.Interrupted && a.Sequence >= b.Sequence {
			return fmt.Errorf("job %d waits behind job %d", b.Sequence, a.Sequence)
		}
	}
	if i := slices.IndexFunc(now.Waiters, func(c Claim) bool { return !c.Several }); now.Removed && i >= 0 {
		return fmt.Errorf("job %d waits for a removed quota", now.Waiters[i].Sequence)
	}
	free := now.free()
	for _, c := range now.Waiters {
		if c.Reserves {
			free--
		}
		if free > 0 && !c.Several {
			return fmt.Errorf("job %d waits while a slot is free", c.Sequence)
		}
	}
	return nil
}

// checkGrants: no slot is given that is not free, or kept free, or belongs to
// somebody who stands before.
func checkGrants(old, now Slots) error {
	if now.Removed {
		return nil
	}
	for _, c := range granted(old, now) {
		// Slots are given in the order of the holders.
		free := now.Size - find(now.Holders, c.Nonce) - 1
		if now.limitsRate() {
			free = now.free()
			for _, later := range granted(old, now) {
				if later.Fence > c.Fence {
					free++
				}
			}
		}
		if now.free() < 0 {
			return fmt.Errorf("job %d is number %d of %d", c.Sequence, len(now.Holders), now.Size)
		}
		kept := 0
		for _, w := range now.Waiters {
			switch {
			case compare(w, c) >= 0:
			case !w.Several:
				return fmt.Errorf("job %d overtook job %d", c.Sequence, w.Sequence)
			case w.Reserves:
				kept++
			}
		}
		if free < kept {
			return fmt.Errorf("job %d took a slot that was kept free", c.Sequence)
		}
	}
	return nil
}

// checkFences: each slot that is given, or taken over, has a higher token than
// all before it, and a slot that is kept keeps its token.
func checkFences(old, now Slots) error {
	last := old.Fence
	for _, c := range now.Holders {
		i := find(old.Holders, c.Nonce)
		switch {
		case i >= 0 && old.Holders[i].Token == c.Token:
			if c.Fence != old.Holders[i].Fence {
				return fmt.Errorf("fence of job %d changed from %d to %d", c.Sequence, old.Holders[i].Fence, c.Fence)
			}
		case c.Fence <= old.Fence || c.Fence > now.Fence:
			return fmt.Errorf("fence %d of job %d is not within (%d, %d]", c.Fence, c.Sequence, old.Fence, now.Fence)
		case i < 0:
			if c.Fence <= last {
				return fmt.Errorf("fence %d of job %d is not above %d, given before it", c.Fence, c.Sequence, last)
			}
			last = c.Fence
		}
	}
	if now.Term < old.Term || now.Term == old.Term && now.Keeper != old.Keeper {
		return fmt.Errorf("term %d of %q after term %d of %q", now.Term, now.Keeper, old.Term, old.Keeper)
	}
	if now.Fence < old.Fence {
		return fmt.Errorf("the last fence went back from %d to %d", old.Fence, now.Fence)
	}
	return nil
}

// checkPassed: whoever needs several slots counts those who passed.
func checkPassed(old, now Slots) error {
	for _, w := range now.Waiters {
		want := 0
		if earlier, waited := old.waiter(w.Nonce); waited {
			want = earlier.Passed
			if earlier.Reserves && !w.Reserves {
				return fmt.Errorf("job %d lost its reservation", w.Sequence)
			}
		}
		for _, c := range granted(old, now) {
			if compare(w, c) < 0 {
				want++
			}
		}
		if w.Passed != want && w.Several {
			return fmt.Errorf("job %d was passed by %d, counts %d", w.Sequence, want, w.Passed)
		}
	}
	return nil
}

// revision is one message of the bucket.
type revision struct {
	sequence uint64
	name     string
	stored   time.Time // by the server's clock
	slots    Slots
	deleted  bool
}

// history reads all revisions that the bucket still has.
func (w *world) history() []revision {
	w.t.Helper()
	stream := w.stream()
	state := stream.CachedInfo().State
	var all []revision
	for sequence := state.FirstSeq; sequence <= state.LastSeq; sequence++ {
		msg, err := stream.GetMsg(w.t.Context(), sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // it was purged
		}
		if err != nil {
			w.t.Fatal(err)
		}
		name, _ := strings.CutPrefix(msg.Subject, "$KV."+bucketName+"."+queueName+".")
		r := revision{sequence: sequence, name: name, stored: msg.Time, deleted: msg.Header.Get("KV-Operation") != "" || msg.Header.Get(jetstream.MarkerReasonHeader) != ""}
		if !r.deleted {
			if r.slots, err = codec.Decode(msg.Data); err != nil {
				continue // somebody spoiled it
			}
		}
		all = append(all, r)
	}
	return all
}

// check checks every revision that was written, and that jobs which name
// several quotas got slots in all of them in one batch.
func (w *world) check() []revision {
	w.t.Helper()
	history := w.history()
	last := make(map[string]Slots)
	grants := make(map[job.Token][]uint64)
	first := make(map[job.Nonce]job.Token)
	rates := make(map[string]*rateReplay)
	for _, r := range history {
		old, known := last[r.name]
		if !known {
			old = Slots{Removed: true}
		}
		if r.deleted {
			delete(last, r.name)
			delete(rates, r.name)
			continue
		}
		if rates[r.name] == nil {
			rates[r.name] = &rateReplay{unstarted: w.isUnstarted}
		}
		if err := rates[r.name].step(old, r.slots, r.stored); err != nil {
			w.t.Fatalf("revision %d, quota %s: %v", r.sequence, r.name, err)
		}
		last[r.name] = r.slots
		if err := checkStep(old, r.slots); err != nil {
			w.t.Fatalf("revision %d, quota %s: %v", r.sequence, r.name, err)
		}
		for _, c := range granted(old, r.slots) {
			if c.Several {
				grants[c.Token] = append(grants[c.Token], r.sequence)
				if _, before := first[c.Nonce]; !before {
					first[c.Nonce] = c.Token
				}
			}
		}
	}
	for nonce, token := range first { // a further attempt may hold some of them already
		at := grants[token]
		slices.Sort(at)
		if at[len(at)-1]-at[0] != uint64(len(at)-1) || len(at) != len(w.names[nonce]) {
			w.t.Errorf("job %v with quotas %v got its slots at %v, want one batch", nonce, w.names[nonce], at)
		}
	}
	return history
}
