package job

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What is written by hand is, to the byte, what the msgpack package writes.
func TestByHand(t *testing.T) {
	check := func(what string, byHand []byte, err error, v any) {
		t.Helper()
		want, wantErr := encode(v)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(byHand, want) {
			t.Fatalf("%s %+v: %v\n%x, want\n%x, %v", what, v, err, byHand, want, wantErr)
		}
	}
	for seed := range uint64(2_000) {
		g := generator{rand.New(rand.NewPCG(seed, 0))}
		var spec Spec
		g.fill(reflect.ValueOf(&spec).Elem(), 0)
		data, err := appendSpec(nil, &spec)
		check("spec", data, err, spec)
		var record Record
		g.fill(reflect.ValueOf(&record).Elem(), 0)
		data, err = appendRecord(nil, &record)
		check("record", data, err, record)
	}
}

// generator fills values with what is there often, seldom or at the edges.
type generator struct{ *rand.Rand }

func (g generator) fill(v reflect.Value, depth int) {
	if g.IntN(3) == 0 || depth > 6 {
		return
	}
	numbers := []int64{0, 1, -1, 31, 32, -32, -33, 127, 128, -128, -129, 255, 256, 65535, 65536, math.MaxInt32, math.MaxUint32, math.MaxUint32 + 1, math.MinInt16 - 1, math.MinInt32 - 1, math.MaxInt64, math.MinInt64}
	lengths := []int{0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536}
	length := func() int { return lengths[min(g.IntN(len(lengths)), g.IntN(len(lengths)))] }
	if _, ok := v.Interface().(time.Time); ok {
		times := []time.Time{{}, time.Unix(0, 0), time.Unix(0, 1), time.Unix(1_700_000_000, 123), time.Unix(1<<32, 0), time.Unix(1<<34, 5), time.Unix(-5, 7)}
		v.Set(reflect.ValueOf(times[g.IntN(len(times))].UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8: // a priority
		v.SetInt(int64(g.IntN(4)) - 1)
	case reflect.Int, reflect.Int64:
		v.SetInt(numbers[g.IntN(len(numbers))])
	case reflect.Uint64:
		v.SetUint(uint64(numbers[g.IntN(len(numbers))]))
	case reflect.Float64:
		v.SetFloat(g.Float64())
	case reflect.String:
		v.SetString(strings.Repeat("x", length()))
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(g.Uint64() & 0xff)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(make([]byte, length()))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), g.IntN(3)*g.IntN(12), 32))
		for i := range v.Len() {
			g.fill(v.Index(i), depth+2)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a": "b"}))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		g.fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				g.fill(v.Field(i), depth+1)
			}
		}
	}
}

// What is read by hand means what the msgpack package reads, and most bodies are.
func TestScanSpec(t *testing.T) {
	scanned := 0
	for seed := range uint64(2_000) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		var spec Spec
		g.fill(reflect.ValueOf(&spec).Elem(), 0)
		spec.Retry, spec.Callbacks, spec.Parts, spec.Trace = Retry{}, nil, nil, nil
		body, err := appendSpec(nil, &spec)
		if err != nil {
			continue
		}
		if sameScan(t, body) {
			scanned++
		}
	}
	if scanned < 200 {
		t.Errorf("%d bodies of 2,000 were read by hand", scanned)
	}
}

// What is out of the ordinary is left to the msgpack package.
func TestScanSpecLeaves(t *testing.T) {
	const usual = "\x82\xa1v\x01\xa4task\xa1a"
	if !scanSpec([]byte(usual), new(Spec)) {
		t.Fatal("the usual body is not read by hand")
	}
	for name, body := range map[string]string{
		"a key twice":         "\x83\xa1v\x01\xa4task\xa1a\xa4task\xa1b",
		"an unknown key":      "\x83\xa1v\x01\xa4task\xa1a\xa1x\x01",
		"bytes too many":      usual + "\x00",
		"cut off":             usual[:len(usual)-1],
		"a number for text":   "\x82\xa1v\x01\xa4task\x01",
		"a part of a value":   "\x82\xa1v\x01\xa3arg\x82\xa3enc\xa4json\xa3enc\xa4json",
		"a list":              "\x92\x01\xa1a",
		"a nonce of 15 bytes": "\x82\xa1v\x01\xa5nonce\xc4\x0f123456789012345",
		"nothing":             "",
	} {
		if scanSpec([]byte(body), new(Spec)) {
			t.Errorf("%s: read by hand", name)
		}
	}
}

// sameScan checks a body that can be read by hand, and reports whether it can.
func sameScan(t *testing.T, body []byte) bool {
	t.Helper()
	var byHand, want Spec
	if !scanSpec(body, &byHand) {
		return false
	}
	if err := unpack(body, &want, strict); err != nil {
		t.Fatalf("%x is read by hand, and not by the msgpack package: %v", body, err)
	}
	want.At, want.Begin, want.Deadline = want.At.UTC(), want.Begin.UTC(), want.Deadline.UTC()
	if diff := cmp.Diff(want, byHand); diff != "" {
		t.Fatalf("%x (-msgpack +by hand):\n%s", body, diff)
	}
	return true
}

// FuzzScanSpec: no body is read by hand that the msgpack package refuses, or reads
// as something else.
func FuzzScanSpec(f *testing.F) {
	for seed := range uint64(50) {
		g := generator{rand.New(rand.NewPCG(seed, 2))}
		var spec Spec
		g.fill(reflect.ValueOf(&spec).Elem(), 0)
		if body, err := appendSpec(nil, &spec); err == nil && len(body) < 2000 {
			f.Add(body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameScan(t, body) })
}
