package stream

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

func TestNames(t *testing.T) {
	n, l, id := names{"async", "media"}, Lane{Task: "image.thumb"}, job.ID("a/b=c")
	limited := LaneOf("image.thumb", []string{"db", "gpu"}, job.Normal)
	urgent := LaneOf("image.thumb", []string{"db", "gpu"}, job.High)
	tests := map[string]string{
		n.stream():            "ASYNC_media",
		n.meta():              "async.media.meta",
		n.job(l, id):          "async.media.job.image=thumb.a/b=c",
		n.lane(l):             "async.media.job.image=thumb.*",
		n.jobs():              "async.media.job.*.*",
		n.anywhere(id):        "async.media.*.*.a/b=c",
		n.done(id):            "async.media.done.a/b=c",
		n.who():               "async.media.ctl.who",
		n.ask(id, "state"):    "async.media.ctl.ask.a/b=c.state",
		n.note(id, "x"):       "media.a/b=c.x",
		n.note(id, "*"):       "media.a/b=c.*",
		n.notes():             "media.*.*",
		noteName("m.a/b=c.x"): "x",
		n.record(id):          "media.a/b=c",
		n.records():           "media.*",
		n.laneKey(l):          "lane.media.image=thumb",
		n.laneKeys():          "lane.media.*",
		n.job(limited, id):    "async.media.job.image=thumb==db==gpu.a/b=c",
		n.lane(limited):       "async.media.job.image=thumb==db==gpu.*",
		n.laneKey(limited):    "lane.media.image=thumb==db==gpu",
		n.job(urgent, id):     "async.media.job.image=thumb==db==gpu===high.a/b=c",
		n.laneKey(urgent):     "lane.media.image=thumb==db==gpu===high",
		n.dead("a.b", id):     "media.a=b.a/b=c",
		n.deadOf("a.b"):       "media.a=b.*",
		n.deadOf(""):          "media.*.*",
		n.deadJob(id):         "media.*.a/b=c",
		deadBucket("a-b"):     "A-B_DEAD",
		notesBucket("a-b"):    "A-B_NOTES",
		quotasBucket("a-b"):   "A-B_QUOTAS",
		recordsBucket("a-b"):  "A-B_JOBS",
		dispatchersBucket(""): "_DISPATCHERS",
	}
	for got, want := range tests {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	stored := []string{"async.media.meta", "async.media.job.*.*", "async.media.later.*.*", "async.media.wait.*.*", "async.media.parts.*.*.*", "async.media.timer.*.*.*", "async.media.due.*.*.*"}
	if diff := cmp.Diff(stored, n.stored()); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

func TestParseLane(t *testing.T) {
	tests := map[string]Lane{
		"image=thumb":          {Task: "image.thumb"},
		"a":                    {Task: "a"},
		"A_b-1=c=d":            {Task: "A_b-1.c.d"},
		"a==gpu":               LaneOf("a", []string{"gpu"}, job.Normal),
		"image=thumb==db==gpu": LaneOf("image.thumb", []string{"db", "gpu"}, job.Normal),
		"a===high":             {Task: "a", Priority: job.High},
		"image=thumb===low":    {Task: "image.thumb", Priority: job.Low},
		"a==db==gpu===high":    LaneOf("a", []string{"db", "gpu"}, job.High),
	}
	for token, want := range tests {
		l, err := ParseLane(token)
		if err != nil || l != want || l.Token() != token || !slices.Equal(l.Quotas(), want.Quotas()) {
			t.Errorf("%s: %q (%s), %v", token, l.Task, l.Token(), err)
		}
	}
	for _, token := range []string{
		"", "=", "a=", "=a", "a.b", "a/b", "a b", "*", ">", "ä", strings.Repeat("a", 129),
		"a===", "a===normal", "a===High", "===high", "a====high", "a=====high", "a==gpu====low", "a===high==gpu", "a===high=",
		"a===high===low", "a==high==", "a===hi.gh", "a=high===", "a=b====c===high", "a==b=c===high", "a==c==b===low",
		"a==", "==b", "a===b", "a====b", "a==c==b", "a==b==b", "a==b=c", "a==b.c", "a==*", "a==b==", "a==" + strings.Repeat("b", 65),
		strings.Repeat("a", 128) + "==" + strings.Repeat("b", 64) + "==" + strings.Repeat("c", 64), // legal each, too long together
	} {
		if l, err := ParseLane(token); err == nil {
			t.Errorf("%q: lane %q, want an error", token, l.Task)
		}
	}
}

func TestParseJob(t *testing.T) {
	n := names{"async", "media"}
	for _, subject := range []string{
		"", "async.media", "async.media.meta", "async.media.job.image=thumb", "async.media.job.image=thumb.a.b",
		"async.other.job.image=thumb.a", "other.media.job.image=thumb.a", "xasync.media.job.image=thumb.a",
		"async.media.job.im/age.a", "async.media.job.image=thumb.", "async.media.job.image=thumb.a~b",
	} {
		if _, _, err := n.parseJob(subject); err == nil {
			t.Errorf("%q is taken for that of a job", subject)
		}
	}
}

// Whatever may be a task with quotas has a lane of its own that reads back, and the other way round.
func FuzzLane(f *testing.F) {
	for _, seed := range []string{"image.thumb", "image=thumb", "a", "a..b", "", "ä", "a.b.c-d_e", "a==b", "a==b==c", "a===b", "a===high", "a==b===low", "a=b==c==d===high", "a===normal", "a===high===low", "a====high"} {
		f.Add(seed, "gpu", "")
	}
	f.Add("a", "b", "c")
	f.Add("a", "", "c")
	f.Add("a", "b=", "=c")
	f.Fuzz(func(t *testing.T, s, one, two string) {
		for _, quotas := range [][]string{nil, {one}, {one, two}} {
			for p := job.Low; p <= job.High && job.CheckTask(s) == nil && job.CheckQuotas(s, quotas) == nil; p++ {
				lane := LaneOf(s, quotas, p)
				if l, err := ParseLane(lane.Token()); err != nil || l != lane || l.Task != s || !slices.Equal(l.Quotas(), quotas) || l.Priority != p {
					t.Errorf("task %q with quotas %q and priority %v: %q, %v", s, quotas, p, l.Token(), err)
				}
			}
		}
		if l, err := ParseLane(s); err == nil && (l.Token() != s || job.CheckTask(l.Task) != nil || job.CheckQuotas(l.Task, l.Quotas()) != nil || l.Priority.Check() != nil) {
			t.Errorf("token %q: %q, task %q, quotas %q", s, l.Token(), l.Task, l.Quotas())
		}
	})
}

// Whatever may be a queue, a task and an ID makes a subject that reads back, and matches the filters and no other's.
func FuzzJobSubject(f *testing.F) {
	f.Add("async", "media", "image.thumb", "0198c1f0-0000-7000-8000-000000000000")
	f.Add("a_b", "A-1", "a", "a/b=c")
	f.Add("", "media", "a..b", "a.b")
	f.Fuzz(func(t *testing.T, namespace, queue, task, id string) {
		parsed, err := job.ParseID(id)
		if err != nil || job.CheckNamespace(namespace) != nil || job.CheckQueue(queue) != nil || job.CheckTask(task) != nil {
			return
		}
		n, l := names{namespace, queue}, LaneOf(task, nil, job.Normal)
		subject := n.job(l, parsed)
		gotLane, gotID, err := n.parseJob(subject)
		if err != nil || gotLane != l || gotID != parsed {
			t.Errorf("%s: %v, %s, %v", subject, gotLane, gotID, err)
		}
		for _, filter := range []string{n.lane(l), n.jobs(), n.anywhere(parsed), n.stored()[1]} {
			if !matches(filter, subject) {
				t.Errorf("%s does not match %s", filter, subject)
			}
		}
		for _, filter := range []string{n.meta(), n.stored()[2], n.stored()[3], n.lane(LaneOf(task+"x", nil, job.Normal)), names{namespace, queue + "x"}.jobs()} {
			if matches(filter, subject) {
				t.Errorf("%s matches %s", filter, subject)
			}
		}
	})
}

// matches is how the server matches subjects; "*" is the only wildcard of ours.
func matches(filter, subject string) bool {
	want, got := strings.Split(filter, "."), strings.Split(subject, ".")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != "*" && want[i] != got[i] || got[i] == "" {
			return false
		}
	}
	return true
}
