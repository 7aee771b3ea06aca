package quotas

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vmihailenco/msgpack/v5"
)

// go test ./quotas -update writes the golden files anew. A changed one is a
// changed protocol: dispatchers of the old release read the same keys.
var update = flag.Bool("update", false, "write the golden files anew")

var since = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)

// values are those of the golden files.
var values = map[string]Slots{
	"quota": {Size: 2, Fence: 3, Holders: []Claim{}, Waiters: []Claim{}},
	"quota-claims": {
		Size: 2, Fence: 1 << 40,
		Holders: []Claim{
			{ID: "0198c1f0-0000-7000-8000-000000000000", Nonce: nonceOf(1), Token: 0x1122334455667788, Dispatcher: "3f0e5b4e-8a41-4a53-9d3c-7a2f6f0a1b2c", Sequence: 7, Since: since, Fence: 1<<40 - 1},
			{ID: "a", Nonce: nonceOf(2), Token: 1, Dispatcher: "d", Sequence: 9, Interrupted: true, Since: since, Fence: 1 << 40, Several: true},
		},
		Waiters: []Claim{
			{ID: "b/c=d", Nonce: nonceOf(3), Token: 2, Dispatcher: "d", Sequence: 10, Since: since, Several: true, Passed: 8, Reserves: true},
			{ID: "e", Nonce: nonceOf(4), Token: 3, Dispatcher: "d", Sequence: 1 << 40, Since: since},
		},
	},
	"quota-rate": {
		Size: 20, Period: Period(500 * time.Millisecond), Fence: 40,
		Grants: []Grant{{At: since, N: 3, First: 31, Last: 36}, {N: 2, First: 39, Last: 40}},
		Holders: []Claim{
			{ID: "a", Nonce: nonceOf(1), Token: 1, Dispatcher: "d", Sequence: 3, Since: since, Fence: 39},
		},
		Waiters: []Claim{},
	},
	"quota-removed": {Removed: true, Fence: 9, Holders: []Claim{{ID: "a", Nonce: nonceOf(1), Token: 1, Dispatcher: "d", Sequence: 3, Since: since, Fence: 9}}},
}

func TestGolden(t *testing.T) {
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			data, err := codec.Encode(value)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".hex")
			if *update {
				if err := os.WriteFile(path, []byte(hex.Dump(data)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			stored := stored(t, name)
			if diff := cmp.Diff(hex.Dump(stored), hex.Dump(data)); diff != "" {
				t.Errorf("%s (-file +got; go test ./quotas -update writes it anew):\n%s", path, diff)
			}
			got, err := codec.Decode(stored)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(value, got); diff != "" {
				t.Errorf("decoded from the golden file (-want +got):\n%s", diff)
			}
		})
	}
}

// stored reads a golden file, which is in the form of hex.Dump.
func stored(tb testing.TB, name string) []byte {
	tb.Helper()
	dump, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		tb.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(dump)) {
		bytes, _, _ := strings.Cut(line, "|")
		digits.WriteString(strings.Join(strings.Fields(bytes)[min(1, len(strings.Fields(bytes))):], ""))
	}
	data, err := hex.DecodeString(digits.String())
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func packed(tb testing.TB, value any) []byte {
	tb.Helper()
	data, err := msgpack.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

type fields map[string]any

// A value that this release cannot read whole is not used at all.
func TestDecodeRefused(t *testing.T) {
	claims := func(change fields) fields {
		return fields{"v": 1, "size": 1, "holders": []any{change}}
	}
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":            {nil, "quota cannot be read"},
		"nil":                {packed(t, nil), "quota"},
		"text":               {[]byte("size=3"), "quota cannot be read"},
		"JSON":               {[]byte(`{"v":1,"size":1}`), "quota cannot be read"},
		"no version":         {packed(t, fields{"size": 1}), "quota has version 0, this program reads versions 1 and 2"},
		"newer version":      {packed(t, fields{"v": 3, "size": 1}), "quota has version 3, this program reads versions 1 and 2: use the same release everywhere"},
		"newer and strange":  {packed(t, fields{"v": 3, "size": 1, "rate": fields{"n": 1}}), "version 3"},
		"negative size":      {packed(t, fields{"v": 1, "size": -1}), "its size is negative"},
		"rate of version 1":  {packed(t, fields{"v": 1, "size": 1, "period": 1}), "it has version 1 and period 1ns"},
		"slots of version 2": {packed(t, fields{"v": 2, "size": 1}), "it has version 2 and period 0s"},
		"negative period":    {packed(t, fields{"v": 2, "size": 1, "period": -1}), "it has version 2 and period -1ns"},
		"grants, no period":  {packed(t, fields{"v": 1, "size": 1, "grants": []any{[]any{0, 1, 1, 1}}}), "grants and no period"},
		"grant of three":     {packed(t, fields{"v": 2, "size": 1, "period": 1, "grants": []any{[]any{0, 1, 1}}}), "not a list of four"},
		"grant of nothing":   {packed(t, fields{"v": 2, "size": 1, "period": 1, "grants": []any{[]any{0, 0, 1, 1}}}), "a grant of nothing"},
		"grant backwards":    {packed(t, fields{"v": 2, "size": 1, "period": 1, "grants": []any{[]any{0, 1, 2, 1}}}), "a grant of nothing"},
		"size as text":       {packed(t, fields{"v": 1, "size": "1"}), "quota cannot be read"},
		"holders as a map":   {packed(t, fields{"v": 1, "size": 1, "holders": fields{}}), "quota cannot be read"},
		"holder as number":   {packed(t, fields{"v": 1, "size": 1, "holders": []any{7}}), "quota cannot be read"},
		"short nonce":        {packed(t, claims(fields{"nonce": []byte("short")})), "quota cannot be read"},
		"nonce as text":      {packed(t, claims(fields{"nonce": "short"})), "quota cannot be read"},
		"time as a number":   {packed(t, claims(fields{"since": 7})), "quota cannot be read"},
		"interrupted as 7":   {packed(t, claims(fields{"interrupted": 7})), "quota cannot be read"},
		"code without value": {[]byte{0x81, 0xc1}, "quota cannot be read"},
	} {
		if got, err := codec.Decode(row.data); err == nil || !strings.Contains(err.Error(), row.want) || !cmp.Equal(got, Slots{}) {
			t.Errorf("%s: %+v, %v; want an error with %q", name, got, err, row.want)
		}
	}
}

func TestDecodeTruncated(t *testing.T) {
	for name := range values {
		whole := stored(t, name)
		for n := range whole {
			if got, err := codec.Decode(whole[:n]); err == nil {
				t.Errorf("the first %d of %d bytes of %s were read as %+v", n, len(whole), name, got)
			}
		}
	}
}

// FuzzDecode: whatever the value, decoding it is an error or means the same when
// it is encoded and decoded again.
func FuzzDecode(f *testing.F) {
	for name := range values {
		f.Add(stored(f, name))
	}
	f.Add(packed(f, fields{"v": 1, "size": 1, "new": []any{1, "a"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		value, err := codec.Decode(data)
		if err != nil {
			return
		}
		data, err = codec.Encode(value)
		if err != nil {
			t.Fatalf("%+v cannot be encoded: %v", value, err)
		}
		again, err := codec.Decode(data)
		if err != nil {
			t.Fatalf("%+v cannot be decoded: %v", value, err)
		}
		if diff := cmp.Diff(value, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("decoded again (-first +second):\n%s", diff)
		}
	})
}
