package job_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/asyncnats/asyncnats/job"
)

func TestContext(t *testing.T) {
	if info, ok := job.FromContext(context.Background()); ok || !reflect.DeepEqual(info, job.Info{}) {
		t.Errorf("outside of a handler: %v, %t", info, ok)
	}
	want := job.Info{ID: "my-1", Queue: "default", Task: "text.shout", Attempt: 2, Dispatcher: "d", Agent: "main"}
	ctx := job.NewContext(context.Background(), want)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if info, ok := job.FromContext(ctx); !ok || !reflect.DeepEqual(info, want) {
		t.Errorf("in a handler: %v, %t; want %v", info, ok, want)
	}
}

func TestAttemptSame(t *testing.T) {
	one := job.Attempt{Number: 1, Token: 7, Dispatcher: "d", Agent: "a"}
	for name, row := range map[string]struct {
		other job.Attempt
		want  bool
	}{
		"itself":          {one, true},
		"told by another": {job.Attempt{Number: 1, Token: 7}, true},
		"other number":    {job.Attempt{Number: 2, Token: 7, Dispatcher: "d", Agent: "a"}, false},
		"other token":     {job.Attempt{Number: 1, Token: 8, Dispatcher: "d", Agent: "a"}, false},
	} {
		if got := one.Same(row.other); got != row.want {
			t.Errorf("%s: %t, want %t", name, got, row.want)
		}
	}
}
