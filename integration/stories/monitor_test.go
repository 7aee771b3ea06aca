package stories

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	services "github.com/nats-io/nats.go/micro"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/job"
)

// monitored is a dispatcher with the handlers of the tests below, and somebody
// who asks it.
type monitored struct {
	*story
	*staff
	nc   *nats.Conn
	open chan struct{} // lets those that wait go on
}

var (
	double  = asyncnats.Define[int, int]("double")
	failing = asyncnats.Define[asyncnats.None, asyncnats.None]("failing")
	waiting = asyncnats.Define[asyncnats.None, asyncnats.None]("waiting")
)

func (s *story) monitor(c dispatcher.Config) *monitored {
	s.Helper()
	m := &monitored{story: s, nc: s.server.Connect(s.T), open: make(chan struct{})}
	c.Handlers = []job.Handler{
		double.Handle(func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Second)
			return 2 * n, nil
		}),
		failing.Handle(func(context.Context, asyncnats.None) (asyncnats.None, error) {
			time.Sleep(2 * time.Second)
			return asyncnats.None{}, job.Invalidf("no good")
		}),
		waiting.Handle(func(ctx context.Context, _ asyncnats.None) (asyncnats.None, error) {
			select {
			case <-m.open:
				return asyncnats.None{}, nil
			case <-ctx.Done():
				return asyncnats.None{}, ctx.Err()
			}
		}),
	}
	m.staff = s.dispatch(c)
	time.Sleep(10 * time.Millisecond)
	return m
}

// ask asks the dispatcher, and returns the code of an error, or its answer.
func (m *monitored) ask(verb, request string, into any) (code, message string) {
	m.Helper()
	msg, err := m.nc.Request("async.$dispatcher."+m.UUID()+"."+verb, []byte(request), time.Second)
	if err != nil {
		m.Fatalf("%s %s: %v", verb, request, err)
	}
	if code := msg.Header.Get(services.ErrorCodeHeader); code != "" {
		return code, msg.Header.Get(services.ErrorHeader)
	}
	if err := json.Unmarshal(msg.Data, into); err != nil {
		m.Fatalf("%s %s: %v in %s", verb, request, err, msg.Data)
	}
	return "", ""
}

// answer asks the dispatcher, who has to have an answer.
func answer[T any](m *monitored, verb, request string) (found T) {
	m.Helper()
	if code, message := m.ask(verb, request, &found); code != "" {
		m.Fatalf("%s %s: error %s %s", verb, request, code, message)
	}
	return found
}

// text is an answer in JSON, with its keys sorted.
func (m *monitored) text(verb, request string) string {
	m.Helper()
	text, err := json.MarshalIndent(answer[any](m, verb, request), "", "  ")
	if err != nil {
		m.Fatal(err)
	}
	return string(text)
}

func (m *monitored) want(verb, request, want string) {
	m.Helper()
	if diff := cmp.Diff(strings.TrimSpace(want), m.text(verb, request)); diff != "" {
		m.Errorf("%s %s:\n%s", verb, request, diff)
	}
}

func TestMonitorStatus(t *testing.T) {
	tell(t, func(s *story) {
		m := s.monitor(dispatcher.Config{})
		time.Sleep(6 * time.Second)
		m.want("status", "", `
{
  "paused": [],
  "poll_interval": "5s",
  "status": "RUNNING",
  "suspended": false,
  "time_since_last_poll": "1.01s",
  "uptime": "6.01s",
  "uuid": "`+m.UUID()+`"
}`)
		if err := s.queue.Pause(s.Context(), "double"); err != nil {
			s.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if got := answer[dispatcher.Status](m, "status", "{}").Paused; !slices.Equal(got, []dispatcher.Pause{{Queue: "default", Task: "double"}}) {
			s.Errorf("paused: %+v", got)
		}
		m.stop()
		if got := m.Status(); got.State != dispatcher.StateStopped || got.Uptime != nil {
			s.Errorf("stopped: %+v", got)
		}
	})
}

// The service is there while the dispatcher runs, as NATS shows services.
func TestMonitorService(t *testing.T) {
	tell(t, func(s *story) {
		m := s.monitor(dispatcher.Config{})
		var info services.Info
		msg, err := m.nc.Request("$SRV.INFO", nil, time.Second)
		if err != nil {
			s.Fatal(err)
		}
		if err := json.Unmarshal(msg.Data, &info); err != nil {
			s.Fatal(err)
		}
		host, _ := os.Hostname()
		metadata := map[string]string{"uuid": m.UUID(), "host": host, "pid": strconv.Itoa(os.Getpid()), "namespace": "async"}
		if info.Name != "asyncnats" || !cmp.Equal(info.Metadata, metadata) {
			s.Errorf("%+v", info)
		}
		var endpoints []string
		for _, e := range info.Endpoints {
			if e.Subject != "async.$dispatcher."+m.UUID()+"."+e.Name {
				s.Errorf("%s is at %s", e.Name, e.Subject)
			}
			endpoints = append(endpoints, e.Name)
		}
		if want := []string{"status", "jobs", "job", "jobstats", "poll", "polls"}; !slices.Equal(endpoints, want) {
			s.Errorf("endpoints %q, want %q", endpoints, want)
		}
		m.ask("job", `{"id":"none"}`, nil)
		msg, err = m.nc.Request("$SRV.STATS.asyncnats", nil, time.Second)
		if err != nil {
			s.Fatal(err)
		}
		var stats services.Stats
		if err := json.Unmarshal(msg.Data, &stats); err != nil {
			s.Fatal(err)
		}
		if e := stats.Endpoints[2]; e.NumRequests != 1 || e.NumErrors != 1 {
			s.Errorf("%+v", e)
		}
		m.stop()
		for _, subject := range []string{"$SRV.INFO", "$SRV.PING.asyncnats", "async.$dispatcher." + m.UUID() + ".status"} {
			if _, err := m.nc.Request(subject, nil, time.Second); err != nats.ErrNoResponders {
				s.Errorf("%s after the stop: %v", subject, err)
			}
		}
	})
}

// A dispatcher that waits for its UUID does not answer for the one that has it.
func TestMonitorServiceOfTwins(t *testing.T) {
	tell(t, func(s *story) {
		first := s.monitor(dispatcher.Config{})
		twin := s.monitor(dispatcher.Config{UUID: uuid.MustParse(first.UUID())})
		time.Sleep(10 * time.Second)
		if got := twin.Status(); got.State != dispatcher.StateStuck {
			s.Errorf("who waits: %+v", got)
		}
		for range 8 {
			if got := answer[dispatcher.Status](first, "status", ""); got.State != dispatcher.StateRunning {
				s.Errorf("who has the UUID: %+v", got)
			}
		}
	})
}

func TestMonitorJobs(t *testing.T) {
	tell(t, func(s *story) {
		other, err := s.client.CreateQueue(s.Context(), "other", asyncnats.QueueConfig{})
		if err != nil {
			s.Fatal(err)
		}
		if err := s.queue.Limit(s.Context(), "gpu", 1); err != nil {
			s.Fatal(err)
		}
		m := s.monitor(dispatcher.Config{Agents: []agents.Agent{
			{Name: "main", Filter: []string{"double", "failing"}, Size: 2}, {Name: "slow", Filter: []string{"waiting"}, Size: 5},
		}})
		m.want("jobs", "", "[]")
		put(s, waiting.Call(asyncnats.None{}).ID("older").Quota("gpu"))
		time.Sleep(time.Second)
		if _, err := asyncnats.Put(s.Context(), other, waiting.Call(asyncnats.None{}).ID("newer")); err != nil {
			s.Fatal(err)
		}
		time.Sleep(time.Second)
		ids := func(request string) (ids []job.ID) {
			for _, j := range answer[[]dispatcher.ActiveJob](m, "jobs", request) {
				ids = append(ids, j.ID)
			}
			return ids
		}
		for request, want := range map[string][]job.ID{
			"": {"newer", "older"}, `{"queue":"other"}`: {"newer"}, `{"agent":"slow"}`: {"newer", "older"},
			`{"agent":"main"}`: nil, `{"queue":"default","agent":"slow"}`: {"older"},
		} {
			if got := ids(request); !slices.Equal(got, want) {
				s.Errorf("jobs %s: %q, want %q", request, got, want)
			}
		}
		m.want("job", `{"id":"older"}`, `
{
  "agent": "slow",
  "attempt": 1,
  "call": "waiting()",
  "completed": null,
  "failed": false,
  "id": "older",
  "poll_id": null,
  "priority": "normal",
  "queue": "default",
  "quota_names": [
    "gpu"
  ],
  "reassigned": false,
  "result": null,
  "started": "2000-01-01T00:00:`+answer[dispatcher.JobInfo](m, "job", `{"id":"older"}`).Started.Format("05.999999999Z")+`",
  "task": "waiting"
}`)
		time.Sleep(4 * time.Second)
		if got := answer[dispatcher.JobInfo](m, "job", `{"id":"older"}`).PollID; got == nil || *got != 2 {
			s.Errorf("poll of a job that is new in the second: %v", got)
		}
		close(m.open)
		wait(s, put(s, double.Call(21).ID("done")))
		_, err = put(s, failing.Call(asyncnats.None{}).ID("bad")).Wait(s.Context())
		if err == nil {
			s.Error("no failure")
		}
		synctest.Wait()
		done := answer[dispatcher.JobInfo](m, "job", `{"id":"done"}`)
		if done.Call != "double(21)" || done.Result == nil || *done.Result != "42" || done.Failed || done.Completed == nil ||
			done.Completed.Sub(done.Started) < time.Second {
			s.Errorf("%+v", done)
		}
		bad := answer[dispatcher.JobInfo](m, "job", `{"id":"bad"}`)
		if !bad.Failed || bad.Result == nil || !strings.Contains(*bad.Result, "invalid: no good") {
			s.Errorf("%+v", bad)
		}
		m.want("jobs", "", "[]")
	})
}

func TestMonitorPolls(t *testing.T) {
	tell(t, func(s *story) {
		m := s.monitor(dispatcher.Config{})
		put(s, waiting.Call(asyncnats.None{}).ID("long"))
		time.Sleep(time.Millisecond)
		wait(s, put(s, double.Call(1).ID("short")))
		time.Sleep(20 * time.Second) // the fifth poll is noted at 20 s
		polls := answer[[]dispatcher.Poll](m, "polls", `{"count":400}`)
		var keys []int
		for i, poll := range polls {
			keys = append(keys, poll.Key)
			if i > 0 && polls[i-1].Time.Sub(poll.Time) != 5*time.Second {
				s.Errorf("polls %d and %d lie %v apart", poll.Key, polls[i-1].Key, polls[i-1].Time.Sub(poll.Time))
			}
		}
		if want := []int{5, 4, 3, 2, 1}; !slices.Equal(keys, want) {
			s.Fatalf("polls %v, want %v", keys, want)
		}
		second := polls[3]
		want := dispatcher.PollResults{"default": {"main": {
			ActiveJobs: []job.ID{"long"}, Len: 1, NewJobs: []job.ID{"long", "short"}, Started: 2, Size: 3,
		}}}
		if diff := cmp.Diff(want, second.Results); diff != "" {
			s.Error(diff)
		}
		m.want("poll", `{"at":"`+second.Time.Add(5*time.Second).Format(time.RFC3339Nano)+`"}`, `
{
  "key": 3,
  "results": {
    "default": {
      "main": {
        "active_jobs": [
          "long"
        ],
        "error": "",
        "len": 1,
        "new_jobs": [],
        "paused": false,
        "size": 3,
        "started": 0
      }
    }
  },
  "time": "`+second.Time.Add(5*time.Second).Format(time.RFC3339Nano)+`"
}`)
		moment := func(key int) string { return polls[5-key].Time.Format(time.RFC3339Nano) }
		for request, want := range map[string][]int{
			"": {5, 4, 3}, `{"count":1}`: {5},
			`{"at":"` + moment(3) + `"}`: {3, 2, 1}, `{"before":"` + moment(3) + `"}`: {2, 1},
			`{"since":"` + moment(3) + `"}`: {5, 4, 3}, `{"since":"` + moment(3) + `","before":"` + moment(5) + `"}`: {4, 3},
			`{"at":"10s"}`: {3, 2, 1}, `{"since":"7s"}`: {5, 4}, `{"before":"1h"}`: nil,
		} {
			var got []int
			for _, poll := range answer[[]dispatcher.Poll](m, "polls", request) {
				got = append(got, poll.Key)
			}
			if !slices.Equal(got, want) {
				s.Errorf("polls %s: %v, want %v", request, got, want)
			}
		}
		if got := answer[dispatcher.Poll](m, "poll", `{"agent":"none"}`); len(got.Results) != 0 || got.Key != 5 {
			s.Errorf("of no agent: %+v", got)
		}
		// Polls that differ from the one before are in the trace: the first without an
		// agent, the one with new jobs, and the one after.
		if got := strings.Count(m.log.String(), "msg=poll "); got != 3 || !m.log.Contains("msg=poll", "poll=2", "results.default.main.new_jobs=\"[long short]\"") {
			s.Errorf("%d polls in the trace:\n%s", got, m.log)
		}
		close(m.open)
	})
}

func TestMonitorJobStats(t *testing.T) {
	tell(t, func(s *story) {
		m := s.monitor(dispatcher.Config{Agents: []agents.Agent{{Name: "main", Size: 9}}})
		put(s, waiting.Call(asyncnats.None{}).ID("long"))
		wait(s, put(s, double.Call(1).ID("short")))
		put(s, failing.Call(asyncnats.None{}).ID("bad"))
		time.Sleep(10 * time.Second)
		stats := answer[dispatcher.JobStats](m, "jobstats", "")
		if stats.Started != 3 || stats.Successful != 1 || stats.Failed != 1 || stats.Unknown != 0 {
			s.Errorf("%+v", stats)
		}
		if got := stats.LongestSuccessful; got == nil || got.ID != "short" || time.Duration(got.Duration).Round(time.Second) != time.Second {
			s.Errorf("longest successful: %+v", got)
		}
		if got := stats.ShortestFailed; got == nil || got.ID != "bad" || time.Duration(got.Duration).Round(time.Second) != 2*time.Second {
			s.Errorf("shortest failed: %+v", got)
		}
		if got := stats.LongestActive; got == nil || got.ID != "long" || time.Duration(got.Duration).Round(time.Second) != 11*time.Second {
			s.Errorf("longest active: %+v", got)
		}
		m.want("jobstats", `{"queue":"other","before":"1h"}`, `
{
  "failed": 0,
  "longest_active": null,
  "longest_failed": null,
  "longest_successful": null,
  "shortest_active": null,
  "shortest_failed": null,
  "shortest_successful": null,
  "started": 0,
  "statistics_end": null,
  "statistics_start": null,
  "successful": 0,
  "unknown": 0
}`)
		close(m.open)
	})
}

// What cannot be answered is refused with a text that says what to do.
func TestMonitorBadQueries(t *testing.T) {
	tell(t, func(s *story) {
		m := s.monitor(dispatcher.Config{})
		for _, row := range []struct{ verb, request, code, text string }{
			{"status", `{"queue":"x"}`, "400", "queue is given: this question takes nothing"},
			{"jobs", `{"id":"x"}`, "400", "id is given: this question takes only queue, agent"},
			{"jobs", `hello`, "400", `send nothing, or a JSON object like {"queue":"media","since":"1h30m"}`},
			{"jobs", `{} {}`, "400", "more text after the JSON object"},
			{"jobs", `{"colour":"red"}`, "400", `unknown field "colour"`},
			{"job", "", "400", "id is missing"},
			{"job", `{"id":"none"}`, "404", `job "none": not remembered`},
			{"jobstats", `{"at":"1h","before":"1h"}`, "400", "at and before are both given"},
			{"jobstats", `{"since":"yesterday"}`, "400", `"yesterday": must be a time like 2026-01-02T15:04:05Z, or a duration like 1h30m`},
			{"jobstats", `{"since":"-1h"}`, "400", `"-1h": must be a time like`},
			{"poll", `{"before":"1h"}`, "404", "poll: not remembered"},
			{"poll", `{"count":1}`, "400", "count is given"},
			{"polls", `{"count":401}`, "400", "must be from 1 to 400"},
			{"polls", `{"count":-1}`, "400", "must be from 1 to 400"},
		} {
			code, message := m.ask(row.verb, row.request, nil)
			if code != row.code || !strings.Contains(message, row.text) {
				s.Errorf("%s %s: %s %s, want %s %s", row.verb, row.request, code, message, row.code, row.text)
			}
		}
	})
}

// An answer that the server does not take is refused with what to do.
func TestMonitorLargeAnswers(t *testing.T) {
	small := func(o *server.Options) { o.MaxPayload = 8 << 10 }
	tellWith(t, small, func(s *story) {
		m := s.monitor(dispatcher.Config{})
		time.Sleep(10 * time.Minute)
		code, message := m.ask("polls", `{"count":400}`, nil)
		if code != "413" || !strings.Contains(message, "ask for less, by queue, agent or count") {
			s.Errorf("%s %s", code, message)
		}
		if got := answer[[]dispatcher.Poll](m, "polls", ""); len(got) != 3 {
			s.Errorf("%d polls", len(got))
		}
	})
}

// The service survives the connection.
func TestMonitorAfterReconnect(t *testing.T) {
	tell(t, func(s *story) {
		m := s.monitor(dispatcher.Config{})
		m.wire.Cut()
		time.Sleep(8 * time.Second)
		m.wire.Restore()
		time.Sleep(time.Second)
		m.want("jobs", "", "[]")
		s.server.Restart(s.T)
		time.Sleep(8 * time.Second)
		if got := answer[dispatcher.Status](m, "status", ""); got.State != dispatcher.StateRunning {
			s.Errorf("%+v", got)
		}
	})
}
