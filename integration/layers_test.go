package integration

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/asyncnats/asyncnats"

// layers says which packages of ours each package may import: only downward.
// A producer never links the worker: the root does not import agents or
// dispatcher.
var layers = map[string][]string{
	"job":           {},
	"kv":            {},
	"stream":        {"job", "kv", "internal/cron"},
	"quotas":        {"job", "kv", "internal/mailbox"},
	"agents":        {"job", "kv", "stream", "quotas", "internal/mailbox", "internal/roster"},
	"dispatcher":    {"job", "stream", "quotas", "agents", "internal/instance", "internal/mailbox", "internal/roster"},
	"":              {"job", "stream", "quotas", "internal/instance", "internal/roster"},
	"cmd/asyncnats": {"", "job", "kv", "stream", "quotas", "agents", "dispatcher"},
	"integration":   {},
	// Dispatchers in fake time; see ADR 20.
	"integration/stories":       {},
	"integration/internal/crew": {"dispatcher", "internal/natstest"},
	// Runs the benchmarks of integration, as a program.
	"integration/bench": {},
	// The one goroutine that owns a state, and those who have it do something.
	"internal/mailbox": {},
	// When something recurs.
	"internal/cron": {},
	// Who this process is.
	"internal/instance": {},
	// The dispatchers and their agents, as they are stored; for those who run them
	// and those who administer them.
	"internal/roster": {"job", "kv", "stream"},
	// Test servers are for tests: nothing imports them but tests, and what is made for tests.
	"internal/natstest": {},
}

func TestImportsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name := short(fields[0])
		allowed, known := layers[name]
		if !known {
			t.Errorf("package %q is in no layer: a new folder needs a decision in docs/adr", name)
		}
		for _, imported := range fields[1:] {
			if imported != module && !strings.HasPrefix(imported, module+"/") {
				continue
			}
			if !slices.Contains(allowed, short(imported)) {
				t.Errorf("%q imports %q: not a layer below it", name, short(imported))
			}
		}
	}
}

func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}
