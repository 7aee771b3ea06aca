package dispatcher

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// past is a history that a test writes. Its clock is the test's.
type past struct {
	*testing.T
	*history
	now   time.Time
	token job.Token
}

func newPast(t *testing.T) *past {
	p := &past{T: t, history: newHistory(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	p.begin(p.now)
	return p
}

func (p *past) sleep(d time.Duration) { p.now = p.now.Add(d) }

// poll notes a poll of the agents main and side in queue default.
func (p *past) poll() Poll {
	poll, _ := p.note(sight{results: PollResults{"default": {"main": {Size: 3}, "side": {Size: 1}}}}, p.now)
	return poll
}

// start has an attempt begin; it is over when ended is called with its outcome.
func (p *past) start(queue, agent, id string, arg any) (ended func(*job.Outcome)) {
	p.token++
	value := job.Value{}
	if arg != nil {
		value = encoded(p.T, arg)
	}
	report := agents.Report{
		Queue: queue, Agent: agent, ID: job.ID(id), Task: "image.thumbnail", Arg: value,
		Attempt: job.Attempt{Number: 1, Token: p.token}, Started: p.now,
	}
	p.observe(report)
	return func(outcome *job.Outcome) {
		report.Ended, report.Outcome, report.Reassigned = p.now, outcome, outcome == nil
		p.observe(report)
	}
}

func encoded(t *testing.T, v any) job.Value {
	value, err := job.Encode(v, job.MsgPack)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func (p *past) info(q Query) JobInfo {
	p.Helper()
	info, err := p.job(q)
	if err != nil {
		p.Fatal(err)
	}
	return info
}

var fine = &job.Outcome{}

func bad(message, stack string) *job.Outcome {
	return &job.Outcome{Failure: &job.Failure{Kind: job.KindPanic, Message: message, Stack: stack}}
}

// The last 200 jobs that are over are remembered, and all that run.
func TestHistoryKeepsJobs(t *testing.T) {
	p := newPast(t)
	for i := range 300 {
		p.start("default", "main", fmt.Sprintf("active%d", i), nil)
	}
	for i := range 250 {
		p.start("default", "main", fmt.Sprintf("over%d", i), nil)(fine)
	}
	if n := len(p.jobs(Query{})); n != 300 {
		t.Errorf("%d active jobs, want 300", n)
	}
	for id, known := range map[string]bool{"active0": true, "active299": true, "over0": false, "over49": false, "over50": true, "over249": true} {
		if _, err := p.job(Query{ID: job.ID(id)}); known != (err == nil) || err != nil && !errors.Is(err, ErrForgotten) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestHistoryKeepsPolls(t *testing.T) {
	p := newPast(t)
	for range 450 {
		p.poll()
		p.sleep(time.Second)
	}
	polls := p.recent(Query{}, 1000, p.now)
	if len(polls) != 400 || polls[0].Key != 450 || polls[399].Key != 51 {
		t.Errorf("%d polls", len(polls))
	}
}

// A dispatcher that is started again remembers nothing; one that stopped
// remembers all.
func TestHistoryBeginsAnew(t *testing.T) {
	p := newPast(t)
	old := p.start("default", "main", "old", nil)
	p.start("default", "main", "done", nil)(fine)
	p.poll()
	p.end(p.now)
	if len(p.jobs(Query{})) != 1 || len(p.recent(Query{}, 9, p.now)) != 1 {
		t.Error("forgotten at the end")
	}
	p.begin(p.now)
	old(fine) // a handler that was left behind
	for _, id := range []job.ID{"old", "done"} {
		if _, err := p.job(Query{ID: id}); !errors.Is(err, ErrForgotten) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if poll := p.poll(); poll.Key != 1 || poll.Results["default"]["main"].Started != 0 {
		t.Errorf("%+v", poll)
	}
}

func TestJobInfo(t *testing.T) {
	p := newPast(t)
	p.poll()
	start := p.now
	long := strings.Repeat("ä", 20_000)
	p.start("default", "main", "active", map[string]string{"name": "cat.png"})
	done := p.start("default", "main", "done", 7)
	failed := p.start("default", "side", "failed", nil)
	lost := p.start("default", "main", "lost", nil)
	large := p.start("default", "main", "large", long)
	huge := p.start("default", "main", "huge", []byte(strings.Repeat("x", 100_000)))
	odd := p.start("default", "main", "odd", map[any]int{"1": 1, 1: 2})
	p.sleep(time.Second)
	done(&job.Outcome{Result: encoded(t, []int{1, 2})})
	failed(bad("oops", "main.go:7"))
	lost(nil)
	large(&job.Outcome{Result: encoded(t, strings.Repeat("x", 9_998))})
	huge(&job.Outcome{Result: encoded(t, strings.Repeat("x", 9_999))})
	odd(fine)
	p.poll()
	end := p.now

	job := func(id, agent string) ActiveJob {
		return ActiveJob{ID: job.ID(id), Queue: "default", Agent: agent, Task: "image.thumbnail", Attempt: 1, Started: start}
	}
	none := []string{}
	for _, want := range []JobInfo{
		{ActiveJob: job("active", "main"), Call: `image.thumbnail({"name":"cat.png"})`, Quotas: none, PollID: new(2)},
		{ActiveJob: job("done", "main"), Call: "image.thumbnail(7)", Quotas: none, Completed: &end, Result: new("[1,2]"), PollID: new(2)},
		{ActiveJob: job("failed", "side"), Call: "image.thumbnail()", Quotas: none, Completed: &end, Failed: true, Result: new("panic: oops\nmain.go:7"), PollID: new(2)},
		{ActiveJob: job("lost", "main"), Call: "image.thumbnail()", Quotas: none, Completed: &end, Reassigned: true, PollID: new(2)},
		{
			ActiveJob: job("large", "main"), Call: `image.thumbnail("` + long[:2*(10_000-len(`image.thumbnail("`))] + "\n[...TRUNCATED...]", Quotas: none,
			Completed: &end, Result: new(`"` + strings.Repeat("x", 9_998) + `"`), PollID: new(2),
		},
		{
			ActiveJob: job("huge", "main"), Call: `image.thumbnail("` + strings.Repeat("eHh4", 2_500)[:10_000-len(`image.thumbnail("`)] + "\n[...TRUNCATED...]", Quotas: none,
			Completed: &end, Result: new(`"` + strings.Repeat("x", 9_999) + "\n[...TRUNCATED...]"), PollID: new(2),
		},
		{
			ActiveJob: job("odd", "main"), Call: `image.thumbnail(?: value as JSON: a map has two keys that JSON shows as "1")`, Quotas: none,
			Completed: &end, Result: new("null"), PollID: new(2),
		},
	} {
		if diff := cmp.Diff(want, p.info(Query{ID: want.ID})); diff != "" {
			t.Errorf("%s:\n%s", want.ID, diff)
		}
	}
}

// What is remembered of large values is their text.
func TestHistoryKeepsNoBulk(t *testing.T) {
	p := newPast(t)
	p.start("default", "main", "large", strings.Repeat("x", 1<<20))(&job.Outcome{Result: encoded(t, strings.Repeat("y", 1<<20))})
	for r := range p.over.newest() {
		if n := len(r.Arg.Data) + len(r.Outcome.Result.Data); n > 21_000 {
			t.Errorf("%d bytes", n)
		}
	}
}

func TestJobOfSeveralAttempts(t *testing.T) {
	p := newPast(t)
	p.start("default", "main", "again", 1)(nil)
	p.sleep(time.Second)
	second := p.start("default", "main", "again", 2)
	if got := p.info(Query{ID: "again"}); got.Call != "image.thumbnail(2)" || got.Completed != nil {
		t.Errorf("%+v", got)
	}
	p.start("other", "main", "again", 3)
	if _, err := p.job(Query{ID: "again"}); !errors.Is(err, ErrQuery) || !strings.Contains(err.Error(), "give one of them") {
		t.Errorf("in two queues: %v", err)
	}
	second(fine)
	if got := p.info(Query{ID: "again", Queue: "default"}); got.Call != "image.thumbnail(2)" || got.Completed == nil {
		t.Errorf("%+v", got)
	}
	// One that began earlier and ends later is not the last.
	slow := p.start("default", "main", "crossed", 1)
	p.sleep(time.Second)
	p.start("default", "main", "crossed", 2)(fine)
	slow(nil)
	if got := p.info(Query{ID: "crossed"}); got.Call != "image.thumbnail(2)" {
		t.Errorf("%+v", got)
	}
}

func TestPollCounts(t *testing.T) {
	p := newPast(t)
	first := p.poll()
	empty := AgentPoll{ActiveJobs: []job.ID{}, NewJobs: []job.ID{}}
	main, side := empty, empty
	main.Size, side.Size = 3, 1
	if diff := cmp.Diff(PollResults{"default": {"main": main, "side": side}}, first.Results); diff != "" {
		t.Error(diff)
	}
	for i := range 150 {
		p.start("default", "side", fmt.Sprintf("%03d", i), nil)
	}
	p.start("default", "main", "a", nil)(fine)
	p.start("gone", "main", "b", nil)
	second := p.poll().Results
	got := second["default"]["side"]
	if got.Len != 150 || got.Started != 150 || len(got.ActiveJobs) != 100 || len(got.NewJobs) != 100 || got.NewJobs[99] != "099" || got.ActiveJobs[99] != "099" {
		t.Errorf("%+v", got)
	}
	main.NewJobs, main.Started = []job.ID{"a"}, 1
	gone := AgentPoll{ActiveJobs: []job.ID{"b"}, Len: 1, NewJobs: []job.ID{"b"}, Started: 1}
	if diff := cmp.Diff([]AgentPoll{main, gone}, []AgentPoll{second["default"]["main"], second["gone"]["main"]}); diff != "" {
		t.Error(diff)
	}
	third := p.poll().Results["default"]
	if third["main"].Started != 0 || len(third["side"].NewJobs) != 0 || third["side"].Len != 150 {
		t.Errorf("%+v", third)
	}
}

func TestPollNews(t *testing.T) {
	p := newPast(t)
	size := 1
	news := func() bool {
		_, news := p.note(sight{results: PollResults{"default": {"main": {Size: size}}}}, p.now)
		return news
	}
	for i, row := range []struct {
		change func()
		want   bool
	}{
		{func() {}, true}, {func() {}, false}, {func() { p.start("default", "main", "x", nil)(fine) }, true},
		{func() {}, true}, {func() {}, false}, {func() { size = 2 }, true},
	} {
		row.change()
		if got := news(); got != row.want {
			t.Errorf("poll %d: news %v", i+1, got)
		}
	}
}

func TestPollInLog(t *testing.T) {
	var log strings.Builder
	trace := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	p := newPast(t)
	p.start("default", "main", "x", nil)
	poll := p.poll()
	trace.Debug("poll", "poll", poll.Key, "results", poll.Results)
	const want = "level=DEBUG msg=poll poll=1 results.default.main.active_jobs=[x] results.default.main.error=\"\"" +
		" results.default.main.len=1 results.default.main.new_jobs=[x] results.default.main.started=1 results.default.main.size=3" +
		" results.default.main.paused=false results.default.side.active_jobs=[] results.default.side.error=\"\" results.default.side.len=0" +
		" results.default.side.new_jobs=[] results.default.side.started=0 results.default.side.size=1 results.default.side.paused=false\n"
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Error(diff)
	}
}

func TestStatus(t *testing.T) {
	const interval = 10 * time.Second
	ago := func(d time.Duration) *stream.Duration { return new(stream.Duration(d)) }
	h := newHistory()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, row := range []struct {
		name          string
		do            func()
		state         State
		since, uptime *stream.Duration
	}{
		{"never started", func() {}, StateStopped, nil, nil},
		{"started", func() { h.begin(now) }, StateStarting, ago(0), ago(0)},
		{"no poll for the interval and a half", func() { now = now.Add(15 * time.Second) }, StateStarting, ago(15 * time.Second), ago(15 * time.Second)},
		{"for longer", func() { now = now.Add(1) }, StateStuck, ago(15*time.Second + 1), ago(15*time.Second + 1)},
		{"polled", func() { h.note(sight{results: PollResults{}}, now) }, StateRunning, ago(0), ago(15*time.Second + 1)},
		{"late", func() { now = now.Add(15 * time.Second) }, StateRunning, ago(15 * time.Second), ago(30*time.Second + 1)},
		{"too late", func() { now = now.Add(1) }, StateStuck, ago(15*time.Second + 1), ago(30*time.Second + 2)},
		{"stopped", func() { h.end(now) }, StateStopped, nil, nil},
		{"started again", func() { h.begin(now) }, StateStarting, ago(0), ago(0)},
	} {
		row.do()
		want := Status{
			State: row.state, UUID: "u", PollInterval: stream.Duration(interval), SinceLastPoll: row.since, Uptime: row.uptime, Paused: []Pause{},
		}
		got := h.status("u", interval, now)
		if got.Paused == nil {
			got.Paused = []Pause{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", row.name, diff)
		}
	}
	// Where polls are close a second of delay is nothing.
	h.note(sight{results: PollResults{}}, now)
	if got := h.status("u", time.Second, now.Add(2*time.Second)); got.State != StateRunning {
		t.Errorf("%+v", got)
	}
}

func TestJobStats(t *testing.T) {
	p := newPast(t)
	outcome := map[string]func(*job.Outcome){}
	start := func(agent, id string) { outcome[id] = p.start("default", agent, id, nil) }
	var polls []Poll
	poll := func() {
		polls = append(polls, p.poll())
		p.sleep(time.Second)
	}
	poll() // 1
	start("main", "long")
	start("main", "quick")
	p.sleep(time.Second)
	outcome["quick"](fine)
	poll() // 2
	start("main", "slow")
	start("side", "bad")
	start("side", "lost")
	poll() // 3
	outcome["bad"](bad("x", ""))
	outcome["lost"](nil)
	p.sleep(5 * time.Second)
	outcome["slow"](fine)
	poll()                   // 4
	start("main", "unnoted") // after the last poll
	now := p.now

	took := func(id string, d time.Duration) *JobTime {
		return &JobTime{Queue: "default", ID: job.ID(id), Duration: stream.Duration(d)}
	}
	span := func(s JobStats, first, last int) JobStats {
		s.Start, s.End = &polls[first-1].Time, &polls[last-1].Time
		return s
	}
	long := took("long", 9*time.Second)
	at := func(key int) Moment { return On(polls[key-1].Time) }
	for _, row := range []struct {
		name string
		q    Query
		want JobStats
	}{
		{"all", Query{}, span(JobStats{
			Started: 5, Successful: 2, Failed: 1, Unknown: 1, LongestActive: long, ShortestActive: long,
			LongestFailed: took("bad", time.Second), ShortestFailed: took("bad", time.Second),
			LongestSuccessful: took("slow", 6*time.Second), ShortestSuccessful: took("quick", time.Second),
		}, 1, 4)},
		{"main", Query{Agent: "main"}, span(JobStats{
			Started: 3, Successful: 2, LongestActive: long, ShortestActive: long,
			LongestSuccessful: took("slow", 6*time.Second), ShortestSuccessful: took("quick", time.Second),
		}, 1, 4)},
		{"other queue", Query{Queue: "other"}, span(JobStats{}, 1, 4)},
		{"at the second", Query{At: at(2)}, span(JobStats{
			Started: 2, Successful: 1, LongestActive: long, ShortestActive: long,
			LongestSuccessful: took("quick", time.Second), ShortestSuccessful: took("quick", time.Second),
		}, 1, 2)},
		{"before the second", Query{Before: at(2)}, span(JobStats{}, 1, 1)},
		{"since the third", Query{Since: at(3)}, span(JobStats{
			Started: 3, Successful: 1, Failed: 1, Unknown: 1, LongestActive: long, ShortestActive: long,
			LongestFailed: took("bad", time.Second), ShortestFailed: took("bad", time.Second),
			LongestSuccessful: took("slow", 6*time.Second), ShortestSuccessful: took("slow", 6*time.Second),
		}, 3, 4)},
		{"active at the last", Query{Since: at(4)}, span(JobStats{LongestActive: long, ShortestActive: long}, 4, 4)},
		{"before the first", Query{Before: Ago(time.Hour)}, JobStats{}},
	} {
		if diff := cmp.Diff(row.want, p.jobStats(row.q, now)); diff != "" {
			t.Errorf("%s:\n%s", row.name, diff)
		}
	}
}

// Jobs that are not remembered any more are counted as unknown.
func TestJobStatsUnknown(t *testing.T) {
	p := newPast(t)
	for i := range 250 {
		p.start("default", "main", fmt.Sprint(i), nil)(fine)
	}
	p.poll()
	if got := p.jobStats(Query{}, p.now); got.Started != 250 || got.Successful != 200 || got.Unknown != 50 {
		t.Errorf("%+v", got)
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-01-02T03:04:05.5+01:00": now.Add(500*time.Millisecond - time.Hour), "2020-01-01T00:00:00Z": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		"1h30m": now.Add(-90 * time.Minute), "20s": now.Add(-20 * time.Second),
	} {
		var m, again Moment
		if err := m.UnmarshalText([]byte(text)); err != nil || !m.on(now).Equal(want) {
			t.Errorf("%s: %v %v, want %v", text, m.on(now), err, want)
		}
		written, err := m.MarshalText()
		if err != nil || again.UnmarshalText(written) != nil || !again.on(now).Equal(want) {
			t.Errorf("%s is written %s, %v", text, written, err)
		}
	}
	for _, text := range []string{"", "0s", "-1h", "1H", "yesterday", "2026-01-02"} {
		var m Moment
		if err := m.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "must be a time like") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseQuery(t *testing.T) {
	all := `{"queue":"a","agent":"b","id":"c","at":"1h","since":"2026-01-02T03:04:05Z","count":7}`
	q, err := parseQuery([]byte(all))
	want := Query{Queue: "a", Agent: "b", ID: "c", At: Ago(time.Hour), Since: On(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Count: 7}
	if err != nil || !cmp.Equal(q, want, cmp.AllowUnexported(Moment{})) {
		t.Errorf("%+v %v", q, err)
	}
	if want := []string{"queue", "agent", "id", "at", "since", "count"}; !slices.Equal(q.given(), want) {
		t.Errorf("given %q", q.given())
	}
	for _, nothing := range []string{"", " \n", "{}", "null"} {
		if q, err := parseQuery([]byte(nothing)); err != nil || len(q.given()) != 0 {
			t.Errorf("%q: %+v %v", nothing, q, err)
		}
	}
	for _, wrong := range []string{"[]", "7", "{", `{"count":"7"}`, "{}{}", `{"x":1}`} {
		if _, err := parseQuery([]byte(wrong)); !errors.Is(err, ErrQuery) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	h := newHistory()
	report := agents.Report{Queue: "default", Agent: "main", ID: "x", Task: "t", Started: time.Now()}
	for b.Loop() {
		report.Attempt.Token++
		report.Ended, report.Outcome = time.Time{}, nil
		h.observe(report)
		report.Ended, report.Outcome = report.Started, fine
		h.observe(report)
	}
}
