package stories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// idle is a task that nobody performs.
var idle = asyncnats.Define[asyncnats.None, asyncnats.None]("story.idle")

// Jobs in a state are found wherever in the queue they are, behind more than are
// listed, each in the one state that Status tells as well.
func TestJobsInAState(t *testing.T) {
	tell(t, func(s *story) {
		const limit = 8
		for i := range 3 * limit {
			put(s, idle.Call(asyncnats.None{}).ID(fmt.Sprint("idle-", i)))
		}
		blocks := asyncnats.Define[string, asyncnats.None]("story.blocks")
		s.dispatch(dispatcher.Config{Handlers: []job.Handler{blocks.Handle(func(ctx context.Context, what string) (asyncnats.None, error) {
			info, _ := job.FromContext(ctx)
			switch {
			case what == "done":
				return asyncnats.None{}, nil
			case info.Attempt > 1:
			case what == "later":
				return asyncnats.None{}, job.RetryAfter(time.Hour, errors.New("not yet"))
			case what == "again":
				return asyncnats.None{}, job.RetryAfter(0, errors.New("at once"))
			case what == "soon":
				return asyncnats.None{}, job.RetryAfter(time.Minute, errors.New("soon"))
			case what == "due":
				return asyncnats.None{}, job.RetryAfter(90*time.Second, errors.New("due when all places are taken"))
			}
			<-ctx.Done()
			return asyncnats.None{}, ctx.Err()
		})}, Agents: []agents.Agent{{Name: "main", Size: 3}}})
		of := map[string]*asyncnats.Job[asyncnats.None]{}
		for _, what := range []string{"done", "later", "due", "again", "soon", "runs"} {
			of[what] = put(s, blocks.Call(what).ID(what))
		}
		of["scheduled"] = put(s, idle.Call(asyncnats.None{}).ID("scheduled").In(time.Hour))
		of["begun"] = put(s, idle.Call(asyncnats.None{}).ID("begun"))
		of["owing"] = put(s, idle.Call(asyncnats.None{}).ID("owing"))
		put(s, asyncnats.Serial(idle.Call(asyncnats.None{}).In(time.Hour)).ID("whole"))
		time.Sleep(2 * time.Minute)

		// As a worker that died leaves them.
		opened := openQueue(s)
		for id, state := range map[string]job.State{"begun": job.Active, "owing": job.Callbacks} {
			record := job.Record{Version: job.RecordVersion, Nonce: specOf(s, opened, job.ID(id)).Nonce, Task: idle.Name(), State: state}
			if state.Ended() {
				record.Outcome = &job.Outcome{}
			}
			if _, err := opened.Write(s.Context(), job.ID(id), record, 0, job.KeepDefault); err != nil {
				s.Fatal(err)
			}
		}
		for state, want := range map[job.State][]job.ID{
			job.Assigned:  ids("runs"),
			job.Active:    ids("again", "begun", "soon"),
			job.Retrying:  ids("later"),
			job.Waiting:   ids("whole"),
			job.Callbacks: ids("owing"),
			job.Completed: ids("done"),
		} {
			listed, err := s.queue.Jobs(s.Context(), limit, state)
			if err != nil {
				s.Fatal(err)
			}
			var got []job.ID
			for _, status := range listed {
				got = append(got, status.ID)
				if status.State != state || (status.Running != nil) != slices.Contains(ids("runs", "again", "soon"), status.ID) {
					s.Errorf("listed as %s: %+v", state, status)
				}
				if j := of[string(status.ID)]; j == nil {
					continue
				} else if alone, err := j.Status(s.Context()); err != nil || alone.State != state || alone.Dispatcher != status.Dispatcher {
					s.Errorf("by itself it is %+v, %v; listed as %+v", alone, err, status)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				s.Errorf("%s (-want +got):\n%s", state, diff)
			}
		}

		if alone, err := of["due"].Status(s.Context()); err != nil || alone.State != job.Pending || !alone.Due.IsZero() {
			s.Errorf("one that is due and has no place: %+v, %v", alone, err)
		}
		if listed, err := s.queue.Jobs(s.Context(), limit, job.Pending); err != nil || len(listed) != limit || listed[0].ID != "idle-0" {
			s.Errorf("pending, the first %d: %v, %v", limit, listed, err)
		}
		seen := make(map[job.ID]int)
		listed, err := s.queue.Jobs(s.Context(), 1000)
		for _, status := range listed {
			seen[status.ID]++
		}
		// Those that have a name, and the part of the whole.
		if err != nil || len(listed) != 3*limit+len(of)+2 || len(seen) != len(listed) {
			s.Errorf("%d of all, %d different: %v, %v", len(listed), len(seen), seen, err)
		}
	})
}
