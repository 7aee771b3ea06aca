package job_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
)

type picture struct {
	Name   string            `json:"name"`
	Width  int               `json:"width,omitempty"`
	Data   []byte            `json:"data"`
	Taken  time.Time         `json:"taken"`
	Tags   map[string]string `json:"tags"`
	Frames []frame           `json:"frames"`
	Next   *picture          `json:"next"`
	Secret string            `json:"-"`
	NoTag  bool
}

type frame struct {
	Delay time.Duration `json:"delay"`
	Ratio float64       `json:"ratio"`
}

func sample() picture {
	return picture{
		Name: "größe.png", Width: 1 << 40, Data: []byte{0, 1, 0xff}, Taken: put,
		Tags:   map[string]string{"b": "2", "a": "1"},
		Frames: []frame{{Delay: time.Second, Ratio: 0.25}, {Delay: -1, Ratio: math.MaxFloat64}},
		Next:   &picture{Name: "second", NoTag: true, Taken: put},
	}
}

func TestValueRoundTrip(t *testing.T) {
	for _, encoding := range []job.Encoding{job.MsgPack, job.JSON} {
		for name, v := range map[string]any{
			"struct": sample(), "text": "hello", "empty text": "", "number": 7, "negative": -1 << 62, "largest": uint64(math.MaxUint64),
			"float": 0.1, "true": true, "false": false, "list": []int{1, 2, 3}, "empty list": []int{}, "bytes": []byte{1, 2},
			"map": map[string]int{"a": 1}, "map by number": map[int]string{-3: "x"}, "time": put, "duration": time.Minute, "array": [2]string{"a", "b"},
		} {
			value, err := job.Encode(v, encoding)
			if err != nil {
				t.Fatalf("%s in %q: %v", name, encoding, err)
			}
			if value.Encoding != encoding || value.IsNone() {
				t.Errorf("%s in %q: %v", name, encoding, value)
			}
			checkDecodes(t, name, value, v)
		}
	}
}

// checkDecodes decodes a value into a new variable of the type of want.
func checkDecodes(t *testing.T, row string, value job.Value, want any) {
	t.Helper()
	got := reflect.New(reflect.TypeOf(want))
	if err := value.Decode(got.Interface()); err != nil {
		t.Errorf("%s in %q: %v", row, value.Encoding, err)
		return
	}
	if diff := cmp.Diff(want, got.Elem().Interface()); diff != "" {
		t.Errorf("%s in %q (-want +got):\n%s", row, value.Encoding, diff)
	}
}

// TestValueNamesFieldsByJSONTags proves that both encodings mean the same.
func TestValueNamesFieldsByJSONTags(t *testing.T) {
	packed, err := job.Encode(sample(), job.MsgPack)
	if err != nil {
		t.Fatal(err)
	}
	var read map[string]any
	if err := msgpack.Unmarshal(packed.Data, &read); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"name": true, "width": true, "frames": true, "NoTag": true, "Name": false, "-": false, "Secret": false} {
		if _, ok := read[key]; ok != want {
			t.Errorf("key %q is there: %t, want %t", key, ok, want)
		}
	}
	if next := read["next"].(map[string]any); next["width"] != nil {
		t.Error("omitempty is not heeded")
	}
	again, err := job.Encode(sample(), job.MsgPack)
	if err != nil || string(again.Data) != string(packed.Data) {
		t.Error("the same value is encoded in two ways")
	}
}

func TestNoneValue(t *testing.T) {
	for _, none := range []job.Value{{}, {Encoding: job.JSON}, {Data: []byte{}}, {Encoding: "unknown"}} {
		if !none.IsNone() {
			t.Errorf("%v is not none", none)
		}
		kept := 7
		if err := none.Decode(&kept); err != nil || kept != 7 {
			t.Errorf("%v: decoded %d, %v; want the variable as it was", none, kept, err)
		}
		if text, err := none.AsJSON(); string(text) != "null" || err != nil {
			t.Errorf("%v as JSON: %s, %v", none, text, err)
		}
	}
}

func TestValueAsJSON(t *testing.T) {
	type any2 = map[any]any
	rows := map[string]struct {
		v    any
		want string
	}{
		"struct":        {frame{Delay: time.Second, Ratio: 0.5}, `{"delay":1000000000,"ratio":0.5}`},
		"text":          {"hello", `"hello"`},
		"nil":           {nil, `null`},
		"largest":       {uint64(math.MaxUint64), `18446744073709551615`},
		"smallest":      {int64(math.MinInt64), `-9223372036854775808`},
		"small":         {-1, `-1`},
		"binary":        {[]byte{0, 1, 0xff}, `"AAH/"`},
		"time":          {put, `"2026-03-04T05:06:07.89Z"`},
		"list":          {[]any{1, "a", []byte("b"), nil, true}, `[1,"a","Yg==",null,true]`},
		"nested":        {any2{"a": []any{any2{"b": any2{}}}}, `{"a":[{"b":{}}]}`},
		"number keys":   {any2{1: "a"}, `{"1":"a"}`},
		"negative keys": {any2{-200: "a"}, `{"-200":"a"}`},
		"float keys":    {any2{1.5: "a"}, `{"1.5":"a"}`},
		"bool keys":     {any2{true: "a"}, `{"true":"a"}`},
		"nil keys":      {any2{nil: "a"}, `{"null":"a"}`},
		"time keys":     {any2{put: "a"}, `{"2026-03-04T05:06:07.89Z":"a"}`},
		"nested keys":   {any2{"x": any2{int64(1): any2{uint8(2): 3}}}, `{"x":{"1":{"2":3}}}`},
		"invalid UTF-8": {"a\xff", `"a\ufffd"`},
	}
	for name, row := range rows {
		value, err := job.Encode(row.v, job.MsgPack)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := value.AsJSON()
		if err != nil || !sameJSON(t, string(text), row.want) {
			t.Errorf("%s: %s, %v; want %s", name, text, err, row.want)
		}
	}
	for name, row := range map[string]struct{ data, want string }{
		"binary key":      {"\x81\xc4\x01A\x01", `{"QQ==":1}`},
		"list as key":     {"\x81\x92\x01\x02\x03", `{"[1,2]":3}`},
		"map as key":      {"\x81\x81\xa1a\x01\x03", `{"{\"a\":1}":3}`},
		"several sizes":   {"\x94\xcd\x01\x00\xd1\xff\x00\xca\x3f\x80\x00\x00\xd9\x01z", `[256,-256,1,"z"]`},
		"list of 16 bits": {"\xdc\x00\x01\x05", `[5]`},
		"map of 32 bits":  {"\xdf\x00\x00\x00\x01\xa1k\x05", `{"k":5}`},
	} {
		text, err := job.Value{Data: []byte(row.data)}.AsJSON()
		if err != nil || string(text) != row.want {
			t.Errorf("%s: %s, %v; want %s", name, text, err, row.want)
		}
	}
	if text, err := jsonArg(` {"a": 1} `).AsJSON(); string(text) != ` {"a": 1} ` || err != nil {
		t.Errorf("JSON as JSON: %s, %v; want it as it is", text, err)
	}
}

func TestValueInvalid(t *testing.T) {
	deep := strings.Repeat("\x91", 20_000) + "\xc0"
	for name, row := range map[string]struct {
		value        job.Value
		json, decode string // parts of the errors of AsJSON and of Decode into a map
	}{
		"not JSON":          {jsonArg(`{"a"`), "marked JSON and is not", "unexpected end"},
		"two JSON values":   {jsonArg(`{}{}`), "marked JSON and is not", "after top-level value"},
		"truncated":         {job.Value{Data: []byte("\x82\xa1a\x01")}, "cut off", "cut off"},
		"trailing":          {job.Value{Data: []byte("\x80\x01")}, "1 bytes too many", "1 bytes too many"},
		"unknown code":      {job.Value{Data: []byte("\xc1")}, "begins with c1", "begins with c1"},
		"unknown extension": {job.Value{Data: []byte("\x81\xa1a\xd4\x05\x00")}, "ext", "ext"},
		"huge list":         {job.Value{Data: []byte("\xdd\xff\xff\xff\xff")}, "cut off", "cut off"},
		"huge map":          {job.Value{Data: []byte("\xdf\xff\xff\xff\xff")}, "cut off", "cut off"},
		"huge binary":       {job.Value{Data: []byte("\xc6\xff\xff\xff\xff")}, "cut off", "cut off"},
		"many huge lists":   {job.Value{Data: []byte(strings.Repeat("\xdd\x00\x01\x00\x00", 1<<17))}, "cut off", "cut off"},
		"deep":              {job.Value{Data: []byte(deep)}, "nested deeper than 10000", "nested deeper than 10000"},
		"not a number":      {job.Value{Data: []byte("\x81\xa1a\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00")}, "unsupported value", ""},
		"keys alike":        {job.Value{Data: []byte("\x82\x01\xa1a\xa11\xa1b")}, `two keys that JSON shows as "1"`, "decode"},
		"not a map":         {job.Value{Data: []byte("\x01")}, "", "decode into *map[string]interface {}"},
	} {
		_, err := row.value.AsJSON()
		checkError(t, name+" as JSON", err, row.json)
		into := map[string]any{}
		checkError(t, name+" decoded", row.value.Decode(&into), row.decode)
	}
	unknown := job.Value{Encoding: "yaml", Data: []byte("a: 1")}
	checkError(t, "unknown encoding", unknown.Decode(new(int)), `unknown encoding "yaml"`)
	_, err := unknown.AsJSON()
	checkError(t, "unknown encoding as JSON", err, `unknown encoding "yaml"`)
	_, err = job.Encode(1, "yaml")
	checkError(t, "encode in an unknown encoding", err, `unknown encoding "yaml"`)
	for _, encoding := range []job.Encoding{job.MsgPack, job.JSON} {
		_, err := job.Encode(func() {}, encoding)
		checkError(t, "encode a function", err, "encode func()")
	}
}

// TestDecodeNeverPanics decodes what the msgpack package itself answers with
// a panic.
func TestDecodeNeverPanics(t *testing.T) {
	var anyKeys map[any]any
	checkError(t, "list as key", job.Value{Data: []byte("\x81\x90\x01")}.Decode(&anyKeys), "does not fit")
	var pic picture
	checkError(t, "nil for a time", job.Value{Data: []byte("\x81\xa5taken\xc0")}.Decode(&pic), "a nil for a time")
	checkError(t, "no pointer", job.Value{Data: []byte("\x01")}.Decode(7), "non-pointer")
	checkError(t, "nil", job.Value{Data: []byte("\x01")}.Decode(nil), "decode")
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		t.Fatalf("not JSON: %s or %s", a, b)
	}
	return cmp.Equal(x, y)
}
