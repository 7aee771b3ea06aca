package dispatcher

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/asyncnats/asyncnats/agents"
	"github.com/asyncnats/asyncnats/internal/instance"
	"github.com/asyncnats/asyncnats/job"
)

func handler(task string) job.Handler {
	return job.Handler{Task: task, Perform: func(context.Context, job.Value) (job.Value, error) { return job.Value{}, nil }}
}

func TestConfigIsChecked(t *testing.T) {
	t.Setenv("ASYNCNATS_UUID", filepath.Join(t.TempDir(), "uuid.txt"))
	ok := []job.Handler{handler("text.shout")}
	for name, row := range map[string]struct {
		config Config
		want   []string
	}{
		"no handlers":          {Config{}, []string{"no handlers"}},
		"illegal namespace":    {Config{Handlers: ok, Namespace: "A B"}, []string{`illegal namespace name "A B"`}},
		"illegal task":         {Config{Handlers: []job.Handler{handler("a b")}}, []string{`illegal task name "a b"`}},
		"two handlers":         {Config{Handlers: append(ok, ok...)}, []string{"two handlers"}},
		"no function":          {Config{Handlers: []job.Handler{{Task: "a"}}}, []string{"no function"}},
		"illegal queue":        {Config{Handlers: ok, Queues: []string{"a b"}}, []string{`illegal queue name "a b"`}},
		"queue named twice":    {Config{Handlers: ok, Queues: []string{"a", "a"}}, []string{`queue "a" is named twice`}},
		"illegal agent":        {Config{Handlers: ok, Agents: []agents.Agent{{Name: "a b"}}}, []string{`illegal agent name "a b"`}},
		"illegal filter":       {Config{Handlers: ok, Agents: []agents.Agent{{Name: "a", Filter: []string{"image.>.x"}}}}, []string{`illegal filter "image.>.x"`}},
		"negative size":        {Config{Handlers: ok, Agents: []agents.Agent{{Name: "a", Size: -1}}}, []string{"size -1"}},
		"agent of other queue": {Config{Handlers: ok, Queues: []string{"q"}, Agents: []agents.Agent{{Name: "a", Queue: "x"}}}, []string{`serves queue "x"`}},
		"agents of one name":   {Config{Handlers: ok, Agents: []agents.Agent{{Name: "a"}, {Name: "a"}}}, []string{`two agents are named "a"`}},
		"an agent for one queue and one of its name for all": {
			Config{Handlers: ok, Queues: []string{"q"}, Agents: []agents.Agent{{Name: "a", Queue: "q"}, {Name: "a"}}}, []string{`two agents are named "a"`},
		},
		"silence of half seconds":       {Config{Handlers: ok, PingInterval: time.Second, PingDeathInterval: 3500 * time.Millisecond}, []string{"must be whole seconds"}},
		"silence too short":             {Config{Handlers: ok, PingInterval: 10 * time.Second, PingDeathInterval: 12 * time.Second}, []string{"twice the former"}},
		"several mistakes are all told": {Config{Queues: []string{"a b"}, Agents: []agents.Agent{{}}}, []string{"no handlers", `queue name "a b"`, `agent name ""`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(nil, row.config)
			for _, want := range row.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("ASYNCNATS_UUID", "")
	a, err := New(nil, Config{Handlers: []job.Handler{handler("a")}})
	if err != nil {
		t.Fatal(err)
	}
	c := a.config
	if len(c.Agents) != 1 || c.Agents[0].Name != agents.DefaultName || c.Grace != DefaultGrace ||
		c.PingInterval != DefaultPingInterval || c.PingDeathInterval != 15*time.Second {
		t.Errorf("got %+v", c)
	}
	b, err := New(nil, Config{Handlers: []job.Handler{handler("a")}, Agents: []agents.Agent{}, Grace: -1, PingInterval: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.config.Agents) != 0 || b.config.Grace != 0 {
		t.Errorf("an empty list of agents means none, a negative grace none: got %+v", b.config)
	}
	if b.config.PingDeathInterval != 3*time.Second {
		t.Errorf("death interval %v", b.config.PingDeathInterval)
	}
	if id, err := instance.FromFile(instance.DefaultFile); err != nil || a.UUID() != id.String() || b.UUID() != id.String() {
		t.Errorf("UUIDs %s and %s, want the instance's, %v, %v", a.UUID(), b.UUID(), id, err)
	}
	// Agents of one name in different queues are two agents.
	if _, err := New(nil, Config{
		Handlers: []job.Handler{handler("a")}, Queues: []string{"p", "q"},
		Agents: []agents.Agent{{Name: "main", Queue: "p"}, {Name: "main", Queue: "q"}},
	}); err != nil {
		t.Error(err)
	}
}
