// Command bench runs the benchmarks of package integration several times, and prints the
// median of each figure as a table, and as JSON where it is told a file.
//
//	go run ./integration/bench                      # all, five times: about half an hour
//	go run ./integration/bench -only Drain -count 9
//	go run ./integration/bench -json bench.json
//
// Each benchmark runs the bare JetStream loop beside ours, against one server process;
// the ratio is what to look at, for machines differ and are noisy.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// suite is benchmarks that are run for as many iterations each.
type suite struct{ bench, times string }

// suites are in the order of a job's life.
var suites = []suite{
	{"^BenchmarkPut$/^goroutines=(1|16)$", "20000x"},
	{"^BenchmarkPutMany$", "50000x"},
	{"^BenchmarkIdle$", "5000x"},
	{"^BenchmarkDrain$", "50000x"},
	{"^BenchmarkPutAndDrain$", "50000x"},
	{"^BenchmarkTasks$", "20000x"},
	{"^BenchmarkDispatchers$", "50000x"},
	{"^BenchmarkBacklog$", "2000x"},
	{"^BenchmarkSparse$", "300x"},
	{"^BenchmarkLateness$", "5000x"},
	{"^BenchmarkQuota$", "2000x"},
	{"^BenchmarkParallel$", "2000x"},
	{"^BenchmarkBroadcast$", "100x"},
}

func main() {
	only := flag.String("only", "", "run those whose name matches this regular expression")
	count := flag.Int("count", 5, "how often each is run")
	file := flag.String("json", "", "file to write the results to")
	flag.Parse()
	if err := run(*only, *count, *file); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(only string, count int, file string) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	report := Report{Machine: machine(), Count: count, Began: time.Now().UTC().Truncate(time.Second)}
	fmt.Println(report.Machine)
	for _, s := range suites {
		if !chosen.MatchString(s.bench) {
			continue
		}
		out, err := s.run(count)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", s.bench, err, out)
		}
		results := medians(parse(out))
		report.Results = append(report.Results, results...)
		show(results)
	}
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

func (s suite) run(count int) (string, error) {
	cmd := exec.Command("go", "test", "./integration", "-run", "^$", "-bench", s.bench,
		"-benchtime", s.times, "-count", fmt.Sprint(count), "-timeout", "2h")
	out, err := cmd.Output()
	return string(out), err
}

func show(results []Result) {
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.AppendHeader(table.Row{"benchmark", "figure", "median", "least", "most"})
	right := func(n int) table.ColumnConfig {
		return table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight}
	}
	t.SetColumnConfigs([]table.ColumnConfig{right(3), right(4), right(5)})
	last := ""
	for _, r := range results {
		name := cmp.Or(map[bool]string{true: " "}[r.Name == last], r.Name)
		last = r.Name
		t.AppendRow(table.Row{name, r.Figure, short(r.Median), short(r.Least), short(r.Most)})
	}
	t.Render()
	fmt.Println()
}

// short writes a figure with three digits that count.
func short(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}
