package job_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/asyncnats/asyncnats/job"
)

// seed adds the bytes of the golden files of that pattern.
func seed(f *testing.F, pattern string) {
	f.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(names) == 0 {
		f.Fatalf("no golden files %s: %v", pattern, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if strings.HasSuffix(name, ".hex") {
			var digits strings.Builder
			for line := range strings.Lines(string(data)) {
				line, _, _ = strings.Cut(line, "#")
				digits.WriteString(strings.Join(strings.Fields(line), ""))
			}
			if data, err = hex.DecodeString(digits.String()); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(data)
	}
}

// FuzzDecodeSpec: whatever the body, there is a nonce, and what is decoded
// means the same when it is encoded and decoded again.
func FuzzDecodeSpec(f *testing.F) {
	seed(f, "spec-*")
	f.Add([]byte(`{"arg":[1,{"a":null}],"retry":{"never":true},"keep":"none"}`))
	f.Add([]byte(`{"trace":{"baggage":"a=b;c","traceparent":"00"}}`))
	f.Add([]byte(`{"callbacks":[{"on":"any","call":{"task":"a.b","arg":[],"delay":"1s","within":"1m","callbacks":[{"on":"failure","call":{"task":"c"}}]}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, lane := range []struct {
			task     string
			quotas   []string
			priority job.Priority
		}{{"text.shout", nil, job.Normal}, {"parallel", nil, job.Normal}, {"image.thumbnail", nil, job.Normal}, {"image.thumbnail", []string{"db", "gpu"}, job.Normal}, {"image.thumbnail", []string{"gpu"}, job.High}} {
			spec, err := job.DecodeSpec(body, lane.task, lane.quotas, lane.priority, other)
			if spec.Nonce.IsZero() {
				t.Fatalf("no nonce; err %v", err)
			}
			if err != nil {
				continue
			}
			data, err := job.EncodeSpec(spec)
			if err != nil {
				t.Fatalf("%#v cannot be encoded: %v", spec, err)
			}
			again, err := job.DecodeSpec(data, lane.task, lane.quotas, lane.priority, job.Nonce{})
			if err != nil {
				t.Fatalf("%#v cannot be decoded: %v", spec, err)
			}
			if diff := cmp.Diff(spec, again, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("decoded again (-first +second):\n%s", diff)
			}
		}
	})
}

// FuzzDecodeRecord: what is decoded means the same when it is encoded and
// decoded again.
func FuzzDecodeRecord(f *testing.F) {
	seed(f, "record-*.hex")
	f.Fuzz(func(t *testing.T, data []byte) {
		record, err := job.DecodeRecord(data)
		if err != nil {
			return
		}
		data, err = job.EncodeRecord(record)
		if err != nil {
			t.Fatalf("%#v cannot be encoded: %v", record, err)
		}
		again, err := job.DecodeRecord(data)
		if err != nil {
			t.Fatalf("%#v cannot be decoded: %v", record, err)
		}
		if diff := cmp.Diff(record, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("decoded again (-first +second):\n%s", diff)
		}
	})
}

// FuzzDecodeCalls: what is decoded is legal, and means the same when it is encoded and
// decoded again.
func FuzzDecodeCalls(f *testing.F) {
	seed(f, "calls*.hex")
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		calls, err := job.DecodeCalls(data)
		if err != nil {
			return
		}
		for _, call := range calls {
			if err := call.Check(); err != nil {
				t.Fatalf("reads an illegal call: %v", err)
			}
		}
		if data, err = job.EncodeCalls(calls); err != nil {
			t.Fatalf("%#v cannot be encoded: %v", calls, err)
		}
		again, err := job.DecodeCalls(data)
		if err != nil {
			t.Fatalf("%#v cannot be decoded: %v", calls, err)
		}
		if diff := cmp.Diff(calls, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("decoded again (-first +second):\n%s", diff)
		}
	})
}

// FuzzDecodeDead: what is decoded means the same when it is encoded and decoded
// again, however small it is made.
func FuzzDecodeDead(f *testing.F) {
	seed(f, "dead*.hex")
	f.Fuzz(func(t *testing.T, data []byte) {
		entry, err := job.DecodeDead(data)
		if err != nil {
			return
		}
		for ok := true; ok; entry, ok = entry.Smaller() {
			data, err := job.EncodeDead(entry)
			if err != nil {
				t.Fatalf("%#v cannot be encoded: %v", entry, err)
			}
			again, err := job.DecodeDead(data)
			if err != nil {
				t.Fatalf("%#v cannot be decoded: %v", entry, err)
			}
			if diff := cmp.Diff(entry, again, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("decoded again (-first +second):\n%s", diff)
			}
		}
	})
}

// FuzzDecodeNote: what is decoded means the same when it is encoded and decoded
// again.
func FuzzDecodeNote(f *testing.F) {
	seed(f, "note*.hex")
	f.Fuzz(func(t *testing.T, data []byte) {
		note, err := job.DecodeNote(data)
		if err != nil {
			return
		}
		data, err = job.EncodeNote(note)
		if err != nil {
			t.Fatalf("%#v cannot be encoded: %v", note, err)
		}
		again, err := job.DecodeNote(data)
		if err != nil {
			t.Fatalf("%#v cannot be decoded: %v", note, err)
		}
		if diff := cmp.Diff(note, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("decoded again (-first +second):\n%s", diff)
		}
	})
}

// FuzzValueAsJSON: whatever the value, AsJSON returns JSON or an error, and
// decoding it into variables of several types does not panic.
func FuzzValueAsJSON(f *testing.F) {
	for _, v := range []any{sample(), []any{1, "a", []byte("b"), nil, 2.5, put}, map[int]any{1: map[bool]int{true: 1}}, "a"} {
		for _, encoding := range []job.Encoding{job.MsgPack, job.JSON} {
			value, err := job.Encode(v, encoding)
			if err != nil && encoding == job.MsgPack {
				f.Fatal(err)
			}
			f.Add(encoding == job.JSON, value.Data)
		}
	}
	f.Fuzz(func(t *testing.T, isJSON bool, data []byte) {
		value := job.Value{Data: data}
		if isJSON {
			value.Encoding = job.JSON
		}
		text, err := value.AsJSON()
		if err == nil && !json.Valid(text) {
			t.Errorf("not JSON: %q", text)
		}
		if extended(data) {
			return
		}
		var pic picture
		var anything any
		var named map[string]any
		var numbered map[any][]any
		for _, into := range []any{&pic, &anything, &named, &numbered, new(int), new([]string)} {
			_ = value.Decode(into)
		}
	})
}

// extended reports whether data may hold an extension. One in place of a map
// may hide a length that is not true, which the msgpack package believes.
func extended(data []byte) bool { return bytes.ContainsAny(data, "\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8") }

// FuzzParseKeep: what is parsed and is shown is parsed to the same again.
func FuzzParseKeep(f *testing.F) {
	for _, text := range []string{"", "default", "none", "1s", "1h30m", "1.5ms", "-1s", "0", "2562047h47m16.854775807s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keep, err := job.ParseKeep(text)
		if err != nil {
			return
		}
		if err := keep.Check(); err != nil {
			t.Errorf("ParseKeep(%q) = %d: %v", text, keep, err)
		}
		if again, err := job.ParseKeep(keep.String()); again != keep || err != nil {
			t.Errorf("ParseKeep(%q) = %d, %v; want %d", keep, again, err, keep)
		}
	})
}

// FuzzParseID: a legal ID is one token of a subject and shown as it was.
func FuzzParseID(f *testing.F) {
	for _, text := range []string{"", "a", "my-1", "tenant/42=x", "a.b", "a\n", "*", "größe"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := job.ParseID(text)
		if err != nil {
			if id != "" {
				t.Errorf("ParseID(%q) = %q with error %v", text, id, err)
			}
			return
		}
		if id.String() != text || len(text) == 0 || len(text) > 128 || strings.ContainsAny(text, ".*> \t\r\n") {
			t.Errorf("ParseID(%q) = %q", text, id)
		}
	})
}
