package stories

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// wantAbsent waits for a broadcast that goes on without a dispatcher.
func (f *fleet) wantAbsent(j *asyncnats.Job[map[string]asyncnats.Outcome[string]], id string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 5*time.Minute)
	defer cancel()
	got, err := j.Wait(ctx)
	if failure := got[id].Failure; failure == nil || !errors.Is(failure, job.ErrAbsent) {
		f.Errorf("reply of a dispatcher that is dead: %+v, %v", got[id], err)
	}
}

// A death that nobody was there to see is found by whoever comes back, and what waits for
// the dead goes on.
func TestBroadcastDeadWhileAway(t *testing.T) {
	muster(t, func(f *fleet) {
		heard := f.witness()
		a, b := f.join(), f.join()
		j := f.toAll(whoami.Call("wait " + b))
		waitFor(f.story, func() bool { return len(f.diary.read()) == 2 })
		f.crew[a].wire.Cut()
		f.crew[b].wire.Cut()
		f.crew[b].stop()
		time.Sleep(3 * time.Minute) // whatever was left of the sign is gone
		f.crew[a].wire.Restore()
		time.Sleep(2 * time.Minute)
		heard.want(f.story, b, "registered", "activated", "deactivated: died")
		heard.want(f.story, a, "registered", "activated")
		f.wantAbsent(j, b)
	})
}

// How long a dispatcher is away is told by the server's clock: its own, and that of the
// sibling which finds it dead, may be wrong.
func TestBroadcastDeadOfAnotherTime(t *testing.T) {
	muster(t, func(f *fleet) {
		f.join()
		b := f.join()
		entries, err := f.server.JetStream(f.T).KeyValue(f.Context(), "ASYNC_DISPATCHERS")
		if err != nil {
			t.Fatal(err)
		}
		found, err := entries.Get(f.Context(), "dispatcher."+b)
		if err != nil {
			t.Fatal(err)
		}
		var entry map[string]any
		if err := json.Unmarshal(found.Value(), &entry); err != nil {
			t.Fatal(err)
		}
		entry["activated"] = time.Now().Add(time.Hour) // its clock is ahead
		data, err := json.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := entries.Put(f.Context(), "dispatcher."+b, data); err != nil {
			t.Fatal(err)
		}
		f.crew[b].wire.Freeze()
		j := f.toAll(whoami.Call("hi"))
		begin := time.Now()
		f.wantAbsent(j, b)
		if took := time.Since(begin); took < 30*time.Second || took > time.Minute {
			t.Errorf("it was over after %v, want 15 s of silence, 20 s of grace, and some", took)
		}
	})
}
