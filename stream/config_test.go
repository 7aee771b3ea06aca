package stream

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGolden(t *testing.T) {
	n := names{"async", "media"}
	tests := map[string]any{
		"stream":          streamConfig(n, Config{}.withDefaults()),
		"stream-replicas": streamConfig(names{"prod-1", "default"}, Config{Replicas: 3}.withDefaults()),
		"consumer":        consumerConfig(n, lane, DefaultAckWait),
		"consumer-long":   consumerConfig(n, Lane{Task: "build"}, time.Hour),
		"consumer-quotas": consumerConfig(n, quotaLane, DefaultAckWait),
		"consumer-due":    dueConfig(n, DefaultAckWait),
	}
	for name, config := range tests {
		got, err := json.MarshalIndent(config, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		path := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got; go test ./stream -update writes it anew):\n%s", name, diff)
		}
	}
}

func TestConfig(t *testing.T) {
	if got, want := (Config{}).withDefaults(), (Config{AckWait: DefaultAckWait, Replicas: 1}); got != want {
		t.Errorf("defaults %+v, want %+v", got, want)
	}
	for _, c := range []Config{{}, {AckWait: MinAckWait}, {AckWait: 24 * time.Hour, Replicas: 5}, {Replicas: 1}} {
		if err := c.check(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []Config{{AckWait: MinAckWait - 1}, {AckWait: -1}, {Replicas: -1}, {Replicas: 6}} {
		if c.check() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestProblems(t *testing.T) {
	n := names{"async", "media"}
	tests := map[string]struct {
		change func(*jetstream.StreamConfig)
		want   string // "" where the administrator may choose
	}{
		"as made":        {func(*jetstream.StreamConfig) {}, ""},
		"lacks meta":     {func(c *jetstream.StreamConfig) { c.Subjects = c.Subjects[1:] }, "lacks subject async.media.meta"},
		"lacks wait":     {func(c *jetstream.StreamConfig) { c.Subjects = slices.Delete(c.Subjects, 3, 4) }, "lacks subject async.media.wait.*.*"},
		"lacks due":      {func(c *jetstream.StreamConfig) { c.Subjects = c.Subjects[:6] }, "lacks subject async.media.due.*.*.*"},
		"retention":      {func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy }, "has retention Limits, needs WorkQueue"},
		"age":            {func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, "has max age 1h0m0s, needs none"},
		"per subject":    {func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 }, "has a limit of 1 messages per subject"},
		"sealed":         {func(c *jetstream.StreamConfig) { c.Sealed = true }, "denies deletion"},
		"deny delete":    {func(c *jetstream.StreamConfig) { c.DenyDelete = true }, "denies deletion"},
		"messages":       {func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }, "has a limit on its size"},
		"bytes":          {func(c *jetstream.StreamConfig) { c.MaxBytes = 10 }, "has a limit on its size"},
		"direct":         {func(c *jetstream.StreamConfig) { c.AllowDirect = false }, "does not allow direct reads"},
		"schedules":      {func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = false }, "does not allow message schedules"},
		"atomic":         {func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false }, "does not allow atomic batches"},
		"mirror":         {func(c *jetstream.StreamConfig) { c.Mirror = &jetstream.StreamSource{} }, "is a mirror or has sources"},
		"sources":        {func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{}} }, "is a mirror or has sources"},
		"replicas":       {func(c *jetstream.StreamConfig) { c.Replicas = 3 }, ""},
		"description":    {func(c *jetstream.StreamConfig) { c.Description = "mine" }, ""},
		"metadata":       {func(c *jetstream.StreamConfig) { c.Metadata = map[string]string{"team": "x"} }, ""},
		"compression":    {func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression }, ""},
		"message size":   {func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 }, ""},
		"more subjects":  {func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "more") }, ""},
		"no limits at 0": {func(c *jetstream.StreamConfig) { c.MaxMsgs, c.MaxBytes, c.MaxMsgsPerSubject = 0, 0, 0 }, ""},
	}
	for name, test := range tests {
		c := streamConfig(n, Config{}.withDefaults())
		test.change(&c)
		wantProblem(t, name, problems(n, c), test.want)
	}
}

func TestConsumerProblems(t *testing.T) {
	n := names{"async", "media"}
	tests := map[string]struct {
		change func(*jetstream.ConsumerConfig)
		want   string
	}{
		"as made":      {func(*jetstream.ConsumerConfig) {}, ""},
		"filter":       {func(c *jetstream.ConsumerConfig) { c.FilterSubject = "x" }, `filters "x", needs "async.media.job.image=thumb.*"`},
		"no filter":    {func(c *jetstream.ConsumerConfig) { c.FilterSubject = "" }, `filters ""`},
		"no ack":       {func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckNonePolicy }, "has ack policy AckNone, needs explicit"},
		"ack wait":     {func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second }, "has an ack wait of 1s, needs at least 3s"},
		"deliveries":   {func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }, "gives up after 5 deliveries, needs no limit"},
		"push":         {func(c *jetstream.ConsumerConfig) { c.DeliverSubject = "x" }, `pushes to "x", needs to be pulled`},
		"back-off":     {func(c *jetstream.ConsumerConfig) { c.BackOff = []time.Duration{1} }, "has a back-off of its own, needs none"},
		"longer lease": {func(c *jetstream.ConsumerConfig) { c.AckWait = time.Hour }, ""},
		"description":  {func(c *jetstream.ConsumerConfig) { c.Description = "mine" }, ""},
		"flow":         {func(c *jetstream.ConsumerConfig) { c.MaxAckPending, c.MaxWaiting = 10, 100 }, ""},
	}
	for name, test := range tests {
		c := consumerConfig(n, lane, DefaultAckWait)
		test.change(&c)
		wantProblem(t, name, consumerProblems(consumerConfig(n, lane, DefaultAckWait), c), test.want)
	}
}

func wantProblem(t *testing.T, name string, got []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(got) > 0:
		t.Errorf("%s: %q, want none", name, got)
	case want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want)):
		t.Errorf("%s: %q, want %q alone", name, got, want)
	}
}

func TestConfigError(t *testing.T) {
	err := error(&ConfigError{What: "stream ASYNC_media", Problems: []string{"has max age 1h0m0s, needs none", "denies deletion"}})
	want := "stream ASYNC_media exists with other settings: it has max age 1h0m0s, needs none, it denies deletion; " +
		"change or remove it, or use another name"
	if err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestCheckVersion(t *testing.T) {
	tests := map[string]string{ // what the error says; "" is none
		"2.14.0": "", "2.14.1": "", "2.15.2": "", "3.0.0": "", "2.15.0-RC.1": "", "2.15.0-preview.2": "",
		"2.13.9": "too old: upgrade to v2.14.0", "2.9.25": "too old", "1.0.0": "too old", "2.14.0-RC.1": "too old",
		"2.12.3": "loses messages", "2.12.4": "loses messages", "2.12.5": "too old",
		"": "", "devel": "", // nobody knows: the server's own answers will tell
	}
	for version, want := range tests {
		err := checkVersion(version)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", version, err)
		case want != "" && (!errors.Is(err, ErrServer) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), version)):
			t.Errorf("%q: %v, want %q", version, err, want)
		}
	}
}
