package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/asyncnats/asyncnats/internal/natstest"
	"github.com/asyncnats/asyncnats/job"
)

func presence(i int) Presence {
	return Presence{
		Dispatcher: fmt.Sprintf("dispatcher-%d", i), Host: "host", PID: i, Tasks: []string{task},
		Agents: []AgentPresence{{Name: "main", Size: 3, Filter: []string{"image.>"}, Active: 1}},
		Jobs: []Running{{
			ID: job.ID(fmt.Sprintf("job-%d", i)), Task: task, Agent: "main", Attempt: 1, Since: time.Now().UTC(),
		}},
	}
}

// serve answers for n dispatchers on connections of their own.
func serve(t *testing.T, s *natstest.Server, n int) []Presence {
	t.Helper()
	var all []Presence
	for i := range n {
		p := presence(i)
		q := createQueue(t, s.Connect(t), Config{})
		stop, err := q.Answer(func() Presence { return p })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		if err := q.conn().Flush(); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestWho(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
			want := serve(t, s, n)
			const patience = 500 * time.Millisecond
			begin := time.Now()
			got, err := q.Who(t.Context(), patience)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, func(a, b Presence) int { return strings.Compare(a.Dispatcher, b.Dispatcher) })
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// That there is nobody is known at once; that there are no more is not.
			if took := time.Since(begin); took != patience && n > 0 || took != 0 && n == 0 {
				t.Errorf("%d dispatchers: took %v", n, took)
			}
		})
	}
}

func TestPerformer(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
			all := serve(t, s, n)
			const patience = 500 * time.Millisecond
			for _, want := range all {
				within(t, 0, "an answer", func() {
					who, ok, err := q.Performer(t.Context(), want.Jobs[0].ID, patience)
					if diff := cmp.Diff(want, who); !ok || err != nil || diff != "" {
						t.Errorf("%v, %v (-want +got):\n%s", ok, err, diff)
					}
				})
			}
			within(t, patience, "silence", func() {
				if who, ok, err := q.Performer(t.Context(), "nobodys", patience); ok || err != nil {
					t.Errorf("%v, %v, %v", who, ok, err)
				}
			})
		})
	}
}

func TestWhoStops(t *testing.T) {
	inBubble(t, func(t *testing.T, s *natstest.Server, q *Queue) {
		answering := createQueue(t, s.Connect(t), Config{})
		stop, err := answering.Answer(func() Presence { return presence(1) })
		if err != nil {
			t.Fatal(err)
		}
		ask := func() int {
			t.Helper()
			if err := answering.conn().Flush(); err != nil {
				t.Fatal(err)
			}
			answers, err := q.Who(t.Context(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			return len(answers)
		}
		if got := ask(); got != 1 {
			t.Errorf("%d answers, want 1", got)
		}
		// Questions and answers of somebody else's make are ignored.
		if _, err := q.conn().Request("async.media.ctl.who", []byte("hello"), time.Second); err == nil {
			t.Error("answered a question that cannot be read")
		}
		stop()
		if got := ask(); got != 0 {
			t.Errorf("%d answers after stop", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := q.Who(ctx, time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want Canceled", err)
		}
	})
}
