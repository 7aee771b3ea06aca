package roster

import (
	"strings"
	"testing"
)

func TestTakes(t *testing.T) {
	for _, row := range []struct {
		filter      string // space separated
		takes, not  string
		description string
	}{
		{"", "a a.b a.b.c", "", "no filter takes all"},
		{"image.thumb", "image.thumb", "image image.thumb.x image.thum video.thumb", "a task"},
		{"image.*", "image.thumb image.crop", "image image.thumb.x video.thumb", "any one part"},
		{"*.thumb", "image.thumb video.thumb", "thumb image.x.thumb", "any one part at the beginning"},
		{"image.>", "image.thumb image.thumb.x", "image video.thumb", "any number of parts, at least one"},
		{">", "a a.b", "", "everything"},
		{"image.thumb audio.*", "image.thumb audio.cut", "image.crop audio", "a list"},
		{"*.x.>", "a.x.b a.x.b.c", "a.x a.y.b", "both wildcards"},
	} {
		t.Run(row.description, func(t *testing.T) {
			agent := Agent{Name: "a", Filter: strings.Fields(row.filter)}
			if err := agent.Check(); err != nil {
				t.Fatal(err)
			}
			for _, task := range strings.Fields(row.takes) {
				if !agent.Takes(task) {
					t.Errorf("filter %q does not take %s", row.filter, task)
				}
			}
			for _, task := range strings.Fields(row.not) {
				if agent.Takes(task) {
					t.Errorf("filter %q takes %s", row.filter, task)
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for name, row := range map[string]struct {
		agent Agent
		want  string // empty for a legal agent
	}{
		"main":              {Main(), ""},
		"all fields":        {Agent{Name: "a-1", Queue: "q", Size: 100, Filter: []string{"*", "a.>", "a.*.b"}}, ""},
		"no name":           {Agent{}, `illegal agent name ""`},
		"name with a dot":   {Agent{Name: "a.b"}, `illegal agent name "a.b"`},
		"illegal queue":     {Agent{Name: "a", Queue: "a b"}, `illegal queue name "a b"`},
		"negative size":     {Agent{Name: "a", Size: -1}, "size -1 is negative"},
		"empty pattern":     {Agent{Name: "a", Filter: []string{""}}, `illegal filter ""`},
		"tail in the midst": {Agent{Name: "a", Filter: []string{"a.>.b"}}, `illegal filter "a.>.b"`},
		"part of a part":    {Agent{Name: "a", Filter: []string{"a.b*"}}, `illegal filter "a.b*"`},
		"empty part":        {Agent{Name: "a", Filter: []string{"a..b"}}, `illegal filter "a..b"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := row.agent.Check()
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	if main := Main(); main.Name != "main" || main.Places() != 3 || !main.Takes("any.task") || !main.Serves("any") {
		t.Errorf("got %+v", main)
	}
	if size := (Agent{Name: "a"}).Places(); size != DefaultSize {
		t.Errorf("size 0 means %d", size)
	}
	if only := (Agent{Name: "a", Queue: "q"}); !only.Serves("q") || only.Serves("r") {
		t.Error("an agent of a queue serves that one alone")
	}
}
