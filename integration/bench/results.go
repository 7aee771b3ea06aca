package main

import (
	"cmp"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report is what is written as JSON.
type Report struct {
	Machine Machine   `json:"machine"`
	Began   time.Time `json:"began"`
	Count   int       `json:"count"`
	Results []Result  `json:"results"`
}

// Machine says where the figures come from.
type Machine struct {
	CPU        string `json:"cpu"`
	Processors int    `json:"processors"`
	System     string `json:"system"`
	Go         string `json:"go"`
	Server     string `json:"server"`
	Commit     string `json:"commit,omitempty"`
}

// String describes the machine in a line.
func (m Machine) String() string {
	return strings.Join([]string{
		m.CPU, strconv.Itoa(m.Processors) + " processors", m.System, m.Go, "nats-server " + m.Server, "commit " + cmp.Or(m.Commit, "unknown"),
	}, ", ")
}

func machine() Machine {
	m := Machine{CPU: "unknown processor", Processors: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	info, _ := os.ReadFile("/proc/cpuinfo") // absent on other systems
	for line := range strings.Lines(string(info)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	if out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/nats-io/nats-server/v2").Output(); err == nil {
		m.Server = strings.TrimSpace(string(out))
	}
	if out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	return m
}

// Result is a figure of a benchmark, of several runs.
type Result struct {
	Name   string    `json:"name"`
	Figure string    `json:"figure"`
	Median float64   `json:"median"`
	Least  float64   `json:"least"`
	Most   float64   `json:"most"`
	Runs   []float64 `json:"runs"`
}

// figure is a number of one run.
type figure struct {
	name, unit string
	value      float64
}

// parse reads what the benchmarks print: a name, the number of iterations, and
// pairs of a value and its unit.
func parse(out string) (figures []figure) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 { // the number of processors
			name = name[:i]
		}
		for pair := range slices.Chunk(fields[2:], 2) {
			value, err := strconv.ParseFloat(pair[0], 64)
			if err == nil && len(pair) == 2 {
				figures = append(figures, figure{name, pair[1], value})
			}
		}
	}
	return figures
}

// medians puts the runs of each figure together, in the order in which they came first.
func medians(figures []figure) []Result {
	// A run brings all figures of a benchmark, so in the order of their first runs those are together.
	var results []Result
	for _, f := range figures {
		i := slices.IndexFunc(results, func(r Result) bool { return r.Name == f.name && r.Figure == f.unit })
		if i < 0 {
			i = len(results)
			results = append(results, Result{Name: f.name, Figure: f.unit})
		}
		results[i].Runs = append(results[i].Runs, f.value)
	}
	for i := range results {
		sorted := slices.Sorted(slices.Values(results[i].Runs))
		n := len(sorted)
		results[i].Median = (sorted[(n-1)/2] + sorted[n/2]) / 2
		results[i].Least, results[i].Most = sorted[0], sorted[n-1]
	}
	return results
}
