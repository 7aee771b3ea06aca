package job

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Bits of parts are as docs/protocol.md says: part 0 is the lowest of the first byte.
func TestPartsBits(t *testing.T) {
	p := Parts{Form: FormParallel, Count: 11}
	for _, row := range []struct {
		done        []int
		fresh       []int
		bits        []byte
		first, left int
	}{
		{nil, nil, nil, 0, 11},
		{[]int{0}, []int{0}, []byte{1, 0}, 1, 10},
		{[]int{10, 8, 0}, []int{10, 8}, []byte{1, 5}, 1, 8},
		{[]int{-1, 11, 99}, nil, []byte{1, 5}, 1, 8},
		{[]int{1, 2, 3, 4, 5, 6, 7}, []int{1, 2, 3, 4, 5, 6, 7}, []byte{255, 5}, 9, 1},
		{[]int{9, 9}, []int{9}, []byte{255, 7}, 11, 0},
	} {
		before := slices.Clone(p.Done)
		after, fresh := p.SetDone(row.done...)
		if !slices.Equal(before, p.Done) {
			t.Error("the parts before were changed")
		}
		if !slices.Equal(fresh, row.fresh) || !slices.Equal(after.Done, row.bits) {
			t.Errorf("%v: fresh %v, bits %v, want %v, %v", row.done, fresh, after.Done, row.fresh, row.bits)
		}
		if after.First() != row.first || len(after.Undone(11)) != row.left || after.Completed() != 11-row.left || after.AllDone() != (row.left == 0) {
			t.Errorf("%v: first %d, undone %v, completed %d, all %t", row.done, after.First(), after.Undone(11), after.Completed(), after.AllDone())
		}
		p = after
	}
}

// Whatever is set, in whatever order, is set, and nothing else is.
func TestPartsBitsAtRandom(t *testing.T) {
	for range 300 {
		p := Parts{Form: FormParallel, Count: rand.IntN(40)}
		set := make(map[int]bool)
		for range rand.IntN(60) {
			some := []int{rand.IntN(50) - 5, rand.IntN(50) - 5}
			var fresh []int
			p, fresh = p.SetDone(some...)
			for _, i := range fresh {
				if set[i] || i < 0 || i >= p.Count {
					t.Fatalf("%d is fresh", i)
				}
				set[i] = true
			}
			if rand.IntN(5) == 0 {
				p = p.Grow(Chunk{Name: "x", Count: rand.IntN(3) + 1})
			}
		}
		for i := -1; i < p.Count+10; i++ {
			if i >= 0 && p.IsDone(i) != set[i] {
				t.Fatalf("part %d is done: %t", i, p.IsDone(i))
			}
		}
		if p.Completed() != len(set) || p.AllDone() != (len(set) == p.Count) || len(p.Undone(p.Count)) != p.Count-len(set) {
			t.Fatalf("%d of %d: %d, %t, %v", len(set), p.Count, p.Completed(), p.AllDone(), p.Undone(p.Count))
		}
	}
}

// Of a parallel those parts are over that were put or may have been, and were not looked
// after.
func TestUndoneOfParallel(t *testing.T) {
	p, _ := Parts{Form: FormParallel, Count: 20, Put: 6}.SetDone(1, 3, 7)
	for name, row := range map[string]struct {
		atOnce, stopped int
		want            []int
	}{
		"all":                 {4, 0, []int{0, 2, 4, 5, 6, 8, 9}},
		"some were stopped":   {4, 5, []int{5, 6, 8, 9}},
		"all were":            {4, 10, nil},
		"more than there are": {100, 17, []int{17, 18, 19}},
	} {
		if p.Stopped = row.stopped; !slices.Equal(p.Undone(row.atOnce), row.want) {
			t.Errorf("%s: %v", name, p.Undone(row.atOnce))
		}
	}
}

func TestPartsOfSequence(t *testing.T) {
	for _, form := range []Form{FormSerial, FormThen, FormDelegate} {
		p := Parts{Form: form, Count: 2}
		if !p.Sequential() || !slices.Equal(p.Undone(2), []int{0}) {
			t.Errorf("%s: %v", form, p.Undone(2))
		}
		p, _ = p.SetDone(0, 1)
		if p.Undone(2) != nil || p.First() != 2 {
			t.Errorf("%s: %v", form, p.Undone(2))
		}
	}
}

func TestPartsGrow(t *testing.T) {
	p := Parts{Form: FormSerial, Count: 1, Chunks: []Chunk{{Name: "0", Count: 1}}}
	grown := p.Grow(Chunk{"n-1-x", 2, true}, Chunk{"n-1-y", 3, true})
	if p.Count != 1 || len(p.Chunks) != 1 || grown.Count != 6 || len(grown.Chunks) != 3 {
		t.Errorf("%+v, %+v", p, grown)
	}
	for prefix, want := range map[string]bool{"n-1-": true, "n-": true, "n-2-": false, "0": false, "n-1-z": false} {
		if grown.Added(prefix) != want {
			t.Errorf("added %q: %t", prefix, !want)
		}
	}
	if all, _ := grown.SetDone(0, 5); all.Completed() != 2 {
		t.Error("parts that were added cannot be set")
	}
}

func TestPartsCheck(t *testing.T) {
	call := Call{Task: "a.b"}
	for name, row := range map[string]struct {
		parts Parts
		want  string
	}{
		"parallel":            {Parts{Form: FormParallel, Count: 1, Calls: []Call{call}}, ""},
		"empty":               {Parts{Form: FormSerial}, ""},
		"in chunks":           {Parts{Form: FormThen, Count: 3, Calls: []Call{call}, Chunks: []Chunk{{Name: "1", Count: 2}}}, ""},
		"form":                {Parts{Form: "both"}, `unknown composition "both"`},
		"too few":             {Parts{Form: FormParallel, Count: 2, Calls: []Call{call}}, "composition of 2 parts has 1"},
		"empty chunk":         {Parts{Form: FormParallel, Chunks: []Chunk{{Name: "1"}}}, `chunk "1" of 0 parts`},
		"nameless chunk":      {Parts{Form: FormParallel, Count: 1, Chunks: []Chunk{{Count: 1}}}, `chunk "" of 1 parts`},
		"too many":            {Parts{Form: FormParallel, Count: MaxParts + 1, Chunks: []Chunk{{Name: "1", Count: MaxParts}, {Name: "2", Count: 1}}}, "must be 4194304 at most"},
		"as many as can be":   {Parts{Form: FormParallel, Count: MaxParts, Chunks: []Chunk{{Name: "1", Count: MaxParts - 1}, {Name: "2", Count: 1}}}, ""},
		"a chunk of too many": {Parts{Form: FormParallel, Count: 1, Calls: []Call{call}, Chunks: []Chunk{{Name: "1", Count: math.MaxInt}, {Name: "2", Count: math.MaxInt}, {Name: "3", Count: 2}}}, `chunk "1" of 9223372036854775807 parts`},
		"nothing then":        {Parts{Form: FormThen}, "composition then has no part"},
		"to nobody":           {Parts{Form: FormDelegate}, "composition delegate has no part"},
		"illegal part":        {Parts{Form: FormSerial, Count: 2, Calls: []Call{call, {Task: "a b"}}}, "part 1: call of a b"},
	} {
		if err := row.parts.Check(); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

func TestCallCheck(t *testing.T) {
	call := Call{Task: "a.b"}
	with := func(change func(*Call)) Call { c := call; change(&c); return c }
	for name, row := range map[string]struct {
		call Call
		want string
	}{
		"task":            {call, ""},
		"queue":           {with(func(c *Call) { c.Queue = "a.b" }), "queue"},
		"delay":           {with(func(c *Call) { c.Delay = -1 }), "must not be negative"},
		"within":          {with(func(c *Call) { c.Within = -1 }), "must not be negative"},
		"within ages":     {with(func(c *Call) { c.Within = math.MaxInt64 }), "a job that is not to expire has no deadline"},
		"ages later":      {with(func(c *Call) { c.Delay = math.MaxInt64 }), "100 years at most"},
		"together":        {with(func(c *Call) { c.Delay, c.Within = MaxDelay, 1 }), "100 years at most"},
		"the latest":      {with(func(c *Call) { c.Delay, c.Within = MaxDelay-time.Hour, time.Hour }), ""},
		"begins too late": {with(func(c *Call) { c.Begin = time.Date(2250, 1, 1, 0, 0, 0, 0, time.UTC) }), "begin 2250-01-01T00:00:00Z: must lie between"},
		"begins late":     {with(func(c *Call) { c.Begin, c.Within = time.Date(2249, 12, 31, 0, 0, 0, 0, time.UTC), 24*time.Hour }), "deadline 2250"},
		"quotas":          {with(func(c *Call) { c.Quotas = []string{"b", "a"} }), "must be sorted"},
		"callback":        {with(func(c *Call) { c.Callbacks = []Callback{{On: "never", Call: call}} }), `is put on "never"`},
		"deep":            {with(func(c *Call) { c.Callbacks = []Callback{{On: OnAny, Call: Call{}}} }), "callback on any"},
		"of composition":  {with(func(c *Call) { c.Callbacks = []Callback{{On: OnAny, Call: Call{Parts: &Parts{Form: FormSerial}}}} }), "cannot be a callback"},
		"name":            {with(func(c *Call) { c.Parts = &Parts{Form: FormSerial} }), `composition serial is called "a.b"`},
		"arg":             {Call{Task: "serial", Arg: Value{Data: []byte{1}}, Parts: &Parts{Form: FormSerial}}, "no argument"},
		"composition":     {Call{Task: "serial", Parts: &Parts{Form: FormSerial}}, ""},
	} {
		if err := row.call.Check(); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

// What a call says of times counts from when it is put.
func TestCallSpec(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, row := range map[string]struct {
		call            Call
		begin, deadline time.Time
	}{
		"at once":        {Call{}, time.Time{}, time.Time{}},
		"within":         {Call{Within: time.Minute}, time.Time{}, now.Add(time.Minute)},
		"delay":          {Call{Delay: time.Hour, Within: time.Minute}, now.Add(time.Hour), now.Add(61 * time.Minute)},
		"later":          {Call{Begin: now.Add(time.Hour), Within: time.Minute}, now.Add(time.Hour), now.Add(61 * time.Minute)},
		"begin is past":  {Call{Begin: now.Add(-time.Hour), Within: time.Minute}, now.Add(-time.Hour), now.Add(time.Minute)},
		"delay is later": {Call{Begin: now.Add(time.Minute), Delay: time.Hour}, now.Add(time.Hour), time.Time{}},
	} {
		spec := row.call.Spec(now)
		if !spec.Begin.Equal(row.begin) || !spec.Deadline.Equal(row.deadline) {
			t.Errorf("%s: begin %v, deadline %v", name, spec.Begin, spec.Deadline)
		}
	}
}

func TestCallbackTakes(t *testing.T) {
	good, bad := Outcome{}, Outcome{Failure: &Failure{}}
	for on, want := range map[On][2]bool{OnSuccess: {true, false}, OnFailure: {false, true}, OnAny: {true, true}} {
		if c := (Callback{On: on}); c.Takes(good) != want[0] || c.Takes(bad) != want[1] {
			t.Errorf("%s: %t, %t", on, c.Takes(good), c.Takes(bad))
		}
	}
}

func must(t *testing.T, v any, e Encoding) Value {
	t.Helper()
	value, err := Encode(v, e)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func decoded[T any](t *testing.T, v Value) (into T) {
	t.Helper()
	if err := v.Decode(&into); err != nil {
		t.Fatal(err)
	}
	return into
}

type testOutcome[R any] struct {
	Result  R        `json:"result"`
	Failure *Failure `json:"failure"`
}

// An outcome is the same argument whatever the encoding of the result was, numbers
// included.
func TestOutcomeValue(t *testing.T) {
	type result struct {
		N    int64          `json:"n"`
		U    uint64         `json:"u"`
		F    float64        `json:"f"`
		List []any          `json:"list"`
		Map  map[string]int `json:"map"`
	}
	want := result{1<<53 + 1, math.MaxUint64, 2.5, []any{"x", nil, true}, map[string]int{"a": -1}}
	for _, encoding := range []Encoding{MsgPack, JSON} {
		value, err := OutcomeValue(Outcome{Result: must(t, want, encoding)})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(testOutcome[result]{Result: want}, decoded[testOutcome[result]](t, value)); diff != "" {
			t.Errorf("%q: %s", encoding, diff)
		}
	}
	value, err := OutcomeValue(Outcome{Failure: &Failure{Kind: KindPanic, Message: "m"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := decoded[testOutcome[int]](t, value); got.Failure == nil || got.Failure.Kind != KindPanic || got.Failure.Message != "m" {
		t.Errorf("%+v", got)
	}
	value, err = OutcomeValue(Outcome{})
	if got := decoded[testOutcome[int]](t, value); err != nil || got != (testOutcome[int]{}) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, broken := range map[string]Value{
		"JSON": {Encoding: JSON, Data: []byte("{")}, "msgpack": {Data: []byte{0x92, 1}}, "two": {Data: nil, Encoding: JSON},
	} {
		if _, err := OutcomeValue(Outcome{Result: broken}); (err == nil) != broken.IsNone() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOutcomesValue(t *testing.T) {
	value, err := OutcomesValue([]Outcome{{Result: must(t, 1, MsgPack)}, {Failure: &Failure{Kind: KindError}}, {Result: must(t, 2, JSON)}, {}})
	if err != nil {
		t.Fatal(err)
	}
	got := decoded[[]testOutcome[int]](t, value)
	if len(got) != 4 || got[0].Result != 1 || got[1].Failure.Kind != KindError || got[2].Result != 2 || got[3] != (testOutcome[int]{}) {
		t.Errorf("%+v", got)
	}
	if value, err = OutcomesValue(nil); err != nil || len(decoded[[]int](t, value)) != 0 {
		t.Errorf("none: %v, %v", value, err)
	}
	if _, err = OutcomesValue([]Outcome{{}, {Result: Value{Encoding: JSON, Data: []byte("x")}}}); err == nil || !strings.Contains(err.Error(), "outcome 1") {
		t.Errorf("got %v", err)
	}
}

// What a call takes is its argument or, where it has one, beside that.
func TestTake(t *testing.T) {
	type boundTo struct {
		With string `json:"with"`
		Got  int    `json:"got"`
	}
	for _, with := range []Encoding{MsgPack, JSON} {
		for _, got := range []Encoding{MsgPack, JSON} {
			call, err := Call{Arg: must(t, "w", with)}.Take(must(t, 7, got))
			if err != nil || decoded[boundTo](t, call.Arg) != (boundTo{"w", 7}) {
				t.Errorf("%q, %q: %v, %v", with, got, call.Arg, err)
			}
		}
	}
	call, err := Call{Arg: must(t, "w", MsgPack)}.Take(Value{})
	if err != nil || decoded[boundTo](t, call.Arg) != (boundTo{With: "w"}) {
		t.Errorf("nothing: %v, %v", call.Arg, err)
	}
	taken := must(t, 7, JSON)
	if call, err = (Call{}).Take(taken); err != nil || call.Arg.Encoding != JSON || string(call.Arg.Data) != "7" {
		t.Errorf("without an argument: %v, %v", call.Arg, err)
	}
	if _, err = (Call{Arg: taken}).Take(Value{Encoding: JSON, Data: []byte("x")}); err == nil {
		t.Error("takes what is broken")
	}
}

func TestCallbackWith(t *testing.T) {
	result := must(t, 7, MsgPack)
	failure := Outcome{Failure: &Failure{Kind: KindTimeout, Message: "m"}}
	call, err := Callback{On: OnSuccess}.With(Outcome{Result: result})
	if err != nil || string(call.Arg.Data) != string(result.Data) {
		t.Errorf("%v, %v", call, err)
	}
	call, err = Callback{On: OnFailure}.With(failure)
	if got := decoded[Failure](t, call.Arg); err != nil || got.Kind != KindTimeout {
		t.Errorf("%+v, %v", got, err)
	}
	call, err = Callback{On: OnAny}.With(failure)
	if got := decoded[testOutcome[int]](t, call.Arg); err != nil || got.Failure.Message != "m" {
		t.Errorf("%+v, %v", got, err)
	}
}

// What an attempt does has the names that the next attempt gives it, in order.
func TestDeed(t *testing.T) {
	if _, ok := Deed(t.Context()); ok {
		t.Error("outside of a handler")
	}
	nonce := Nonce{1}
	names := func() (names []string) {
		ctx := NewContext(t.Context(), Info{Nonce: nonce})
		for range 3 {
			name, ok := Deed(ctx)
			if !ok {
				t.Error("in a handler")
			}
			names = append(names, name)
		}
		return names
	}
	first := names()
	if !slices.Equal(first, names()) || first[0] == first[1] || first[1] == first[2] || !strings.HasPrefix(first[0], nonce.String()) {
		t.Errorf("got %q", first)
	}
}

func TestDelegated(t *testing.T) {
	if _, ok := Delegated(errors.New("x")); ok {
		t.Error("another error delegates")
	}
	if _, ok := Delegated(nil); ok {
		t.Error("no error delegates")
	}
	delegation := Delegate(Call{Task: "a"})
	for _, err := range []error{delegation, fmt.Errorf("deep down: %w", delegation), Verdict(fmt.Errorf("deep down: %w", delegation))} {
		if c, ok := Delegated(err); !ok || c.Task != "a" {
			t.Errorf("%v, %t", c, ok)
		}
	}
}

// IDs and nonces of parts, callbacks and delegated calls differ from each other, and
// follow from the job's nonce alone.
func TestDerivedNonces(t *testing.T) {
	n := Nonce{1, 2}
	seen := map[Nonce]string{n: "job"}
	for name, nonce := range map[string]Nonce{
		"part 0": Parts{Base: n}.PartNonce(0), "part 1": Parts{Base: n}.PartNonce(1), "part 256": Parts{Base: n}.PartNonce(256),
		"callback 0": n.CallbackNonce(0), "callback 1": n.CallbackNonce(1), "delegate 0": n.DelegateBase(0), "delegate 1": n.DelegateBase(1),
		"other": Parts{Base: Nonce{1}}.PartNonce(0),
	} {
		if other, twice := seen[nonce]; twice {
			t.Errorf("%s and %s are one", name, other)
		}
		seen[nonce] = name
	}
	for _, id := range []ID{(Parts{Base: n}).PartID(1 << 20), n.CallbackID(1 << 20)} {
		if _, err := ParseID(string(id)); err != nil {
			t.Error(err)
		}
	}
}
