package asyncnats_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

// A job.Value in an outcome, a reply or what is bound is what it would be alone,
// however it was encoded, and is passed on as such.
func TestUndecoded(t *testing.T) {
	type all struct {
		List    []asyncnats.Outcome[job.Value]          `json:"list"`
		ByName  map[string]asyncnats.Outcome[job.Value] `json:"by_name"`
		Replies []asyncnats.Reply[job.Value]            `json:"replies"`
		Bound   asyncnats.Bound[job.Value, job.Value]   `json:"bound"`
	}
	type typed struct {
		List    []asyncnats.Outcome[int]             `json:"list"`
		ByName  map[string]asyncnats.Outcome[int]    `json:"by_name"`
		Replies []asyncnats.Reply[int]               `json:"replies"`
		Bound   asyncnats.Bound[int, asyncnats.None] `json:"bound"`
	}
	seven := asyncnats.Outcome[int]{Result: 7}
	failed := asyncnats.Outcome[int]{Failure: &job.Failure{Kind: job.KindError, Message: "m"}}
	want := typed{
		List: []asyncnats.Outcome[int]{seven, failed}, ByName: map[string]asyncnats.Outcome[int]{"a": seven, "b": failed},
		Replies: []asyncnats.Reply[int]{{Dispatcher: "d", Outcome: seven}, {Dispatcher: "e", Outcome: failed}},
		Bound:   asyncnats.Bound[int, asyncnats.None]{With: 8},
	}
	recode := func(from, into any, encoding job.Encoding) {
		t.Helper()
		value, err := job.Encode(from, encoding)
		if err == nil {
			err = value.Decode(into)
		}
		if err != nil {
			t.Fatalf("%q: %v", encoding, err)
		}
	}
	encodings := []job.Encoding{job.MsgPack, job.JSON}
	for _, first := range encodings {
		for _, second := range encodings {
			var undecoded, passedOn all
			var got typed
			recode(want, &undecoded, first)
			recode(undecoded, &passedOn, second)
			recode(passedOn, &got, first)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q, %q (-want +got):\n%s", first, second, diff)
			}
			var n int
			if err := undecoded.ByName["a"].Result.Decode(&n); err != nil || n != 7 {
				t.Errorf("%q: %d, %v", first, n, err)
			}
		}
	}
}
