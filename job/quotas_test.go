package job_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/asyncnats/asyncnats/job"
)

func TestCheckQuotas(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, row := range map[string]struct {
		task   string
		quotas []string
		want   string // empty for legal ones
	}{
		"none":                   {"a", nil, ""},
		"an empty list":          {"a", []string{}, ""},
		"one":                    {"a", []string{"gpu"}, ""},
		"sorted":                 {"a", []string{"A", "Z", "_", "a", "b-1"}, ""},
		"not sorted":             {"a", []string{"gpu", "db"}, `quotas ["gpu" "db"]: must be sorted, and each named once`},
		"twice":                  {"a", []string{"gpu", "gpu"}, "must be sorted, and each named once"},
		"sorted, one of case":    {"a", []string{"a", "B"}, "must be sorted"},
		"an illegal name":        {"a", []string{"db", "g.pu"}, `illegal quota name "g.pu": must be 1 to 64 letters, digits, '-' or '_'`},
		"an empty name":          {"a", []string{""}, `illegal quota name ""`},
		"the mark of a lane":     {"a", []string{"a==b"}, `illegal quota name "a==b"`},
		"a long task alone":      {long(128), nil, ""},
		"as long as it may be":   {long(108), []string{long(64), strings.Repeat("y", 64)}, ""},
		"too long together":      {long(109), []string{long(64), strings.Repeat("y", 64)}, "the names have 241 characters together, must be 240 at most: use shorter ones"},
		"many short ones":        {"a", slices.Sorted(slices.Values(numbers(59))), ""},
		"too many short ones":    {"a", slices.Sorted(slices.Values(numbers(60))), "must be 240 at most"},
		"more wrong than length": {long(128), []string{long(64), long(64)}, "must be sorted"},
	} {
		t.Run(name, func(t *testing.T) {
			checked := job.CheckQuotas(row.task, row.quotas)
			spec := job.Spec{Version: 1, Nonce: nonce, Task: row.task, Quotas: row.quotas}
			for what, err := range map[string]error{"quotas": checked, "spec": spec.Check()} {
				if row.want != "" {
					checkError(t, what, err, row.want)
				} else if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// numbers are names of two characters, with the mark before it of four.
func numbers(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%02d", i))
	}
	return names
}

// A lane's name has room in the server for a task with the longest quotas and a
// priority.
func TestLaneHasRoom(t *testing.T) {
	const most = 255 // characters of a consumer's name
	quotas := []string{strings.Repeat("x", 64), strings.Repeat("y", 64)}
	task := strings.Repeat("t", 240-2*66)
	if job.CheckQuotas(task, quotas) != nil || len(task+"=="+strings.Join(quotas, "==")+"===high") > most {
		t.Error("no room")
	}
}

func TestDecodeQuotas(t *testing.T) {
	for name, row := range map[string]struct {
		body string
		lane []string
		want []string
		says string // of the error
	}{
		"the lane's":            {`{}`, []string{"db", "gpu"}, []string{"db", "gpu"}, ""},
		"repeated":              {`{"quotas":["db","gpu"]}`, []string{"db", "gpu"}, []string{"db", "gpu"}, ""},
		"null is the lane's":    {`{"quotas":null}`, []string{"gpu"}, []string{"gpu"}, ""},
		"none, of none":         {`{"quotas":[]}`, nil, nil, ""},
		"others":                {`{"quotas":["db"]}`, []string{"gpu"}, nil, `body names quotas ["db"] and was published on a lane with quotas ["gpu"]`},
		"fewer":                 {`{"quotas":["db"]}`, []string{"db", "gpu"}, nil, "published on a lane with quotas"},
		"none, where some are":  {`{"quotas":[]}`, []string{"gpu"}, nil, "published on a lane with quotas"},
		"some, where none are":  {`{"quotas":["gpu"]}`, nil, nil, "published on a lane with quotas []"},
		"not sorted":            {`{"quotas":["gpu","db"]}`, []string{"db", "gpu"}, nil, "must be sorted"},
		"an illegal name":       {`{"quotas":["a b"]}`, []string{"a b"}, nil, "illegal quota name"},
		"text":                  {`{"quotas":"gpu"}`, []string{"gpu"}, nil, `"quotas" is of JSON type string: must be a list`},
		"a list of numbers":     {`{"quotas":[1]}`, []string{"gpu"}, nil, "body cannot be read"},
		"a key in other letter": {`{"Quotas":["gpu"]}`, []string{"gpu"}, nil, `unknown key "Quotas"`},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := job.DecodeSpec([]byte(row.body), "text.shout", row.lane, job.Normal, other)
			if row.says != "" {
				checkError(t, "body", err, row.says)
				return
			}
			if err != nil || !slices.Equal(spec.Quotas, row.want) {
				t.Errorf("quotas %q, %v; want %q", spec.Quotas, err, row.want)
			}
		})
	}
	// A body that a program wrote repeats them, always.
	for _, quotas := range [][]string{nil, {"db"}, {"gpu", "x"}} {
		data, err := job.EncodeSpec(job.Spec{Version: 1, Nonce: nonce, Task: "text.shout", Quotas: quotas})
		if err != nil {
			t.Fatal(err)
		}
		_, err = job.DecodeSpec(data, "text.shout", []string{"gpu"}, job.Normal, other)
		checkError(t, fmt.Sprintf("msgpack with quotas %q", quotas), err, "published on a lane with quotas")
	}
}

func TestFence(t *testing.T) {
	info := job.Info{Fences: map[string]uint64{"gpu": 7, "db": 9}}
	for quota, want := range map[string]uint64{"gpu": 7, "db": 9, "other": 0, "": 0} {
		if got := info.Fence(quota); got != want {
			t.Errorf("%q: %d, want %d", quota, got, want)
		}
	}
	if got := (job.Info{}).Fence("gpu"); got != 0 {
		t.Errorf("without quotas: %d", got)
	}
}
