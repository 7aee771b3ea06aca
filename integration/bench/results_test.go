package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedians(t *testing.T) {
	const out = `goos: linux
cpu: some
BenchmarkDrain/kept-2   	   50000	     29333 bare/s	     17873 jobs/s	         0.6093 ratio
BenchmarkDrain/notKept-2	   50000	         2 ratio
BenchmarkDrain/kept-2   	   50000	     27333 bare/s	     15873 jobs/s	         0.5 ratio
BenchmarkDrain/kept-2   	   50000	     28333 bare/s	     16873 jobs/s	         0.7 ratio
BenchmarkDrain/notKept-2	   50000	         4 ratio
PASS
ok  	github.com/asyncnats/asyncnats/integration	1.5s
`
	want := []Result{
		{"Drain/kept", "bare/s", 28333, 27333, 29333, []float64{29333, 27333, 28333}},
		{"Drain/kept", "jobs/s", 16873, 15873, 17873, []float64{17873, 15873, 16873}},
		{"Drain/kept", "ratio", 0.6093, 0.5, 0.7, []float64{0.6093, 0.5, 0.7}},
		{"Drain/notKept", "ratio", 3, 2, 4, []float64{2, 4}},
	}
	if diff := cmp.Diff(want, medians(parse(out))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
