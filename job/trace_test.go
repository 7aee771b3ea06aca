package job_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/asyncnats/asyncnats/job"
)

// traced is a context with the trace and the baggage of spec-trace.
func traced(t *testing.T) context.Context {
	t.Helper()
	state, err := trace.ParseTraceState("vendor=abc")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.Parse("tenant=acme,user=ada")
	if err != nil {
		t.Fatal(err)
	}
	traceID, _ := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	spanID, _ := trace.SpanIDFromHex("b7ad6b7169203331")
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled, TraceState: state})
	return baggage.ContextWithBaggage(trace.ContextWithSpanContext(t.Context(), span), bag)
}

// What a context has is carried, and another context has it then: each of both by
// itself, too.
func TestTrace(t *testing.T) {
	both := traced(t)
	for name, row := range map[string]struct {
		ctx  context.Context
		want []string
	}{
		"both":    {both, []string{"traceparent", "tracestate", "baggage"}},
		"trace":   {trace.ContextWithSpanContext(t.Context(), trace.SpanContextFromContext(both)), []string{"traceparent", "tracestate"}},
		"baggage": {baggage.ContextWithBaggage(t.Context(), baggage.FromContext(both)), []string{"baggage"}},
		"neither": {t.Context(), nil},
	} {
		carried := job.TraceOf(row.ctx)
		if len(carried) != len(row.want) || row.want == nil && carried != nil {
			t.Errorf("%s: %q, want %q", name, carried, row.want)
		}
		for _, key := range row.want {
			if key == "baggage" { // its members have no order
				if len(carried[key]) != len("tenant=acme,user=ada") {
					t.Errorf("%s: %q", name, carried)
				}
			} else if diff := cmp.Diff(specs["spec-trace"].Trace[key], carried[key]); diff != "" {
				t.Errorf("%s, %s: %s", name, key, diff)
			}
		}
		got, before := job.WithTrace(context.Background(), carried), trace.SpanContextFromContext(row.ctx)
		if span := trace.SpanContextFromContext(got); !span.Equal(before.WithRemote(before.IsValid())) {
			t.Errorf("%s: the handler has %v", name, span)
		}
		if bag := baggage.FromContext(got); bag.Len() != baggage.FromContext(row.ctx).Len() || bag.Len() > 0 && bag.Member("tenant").Value() != "acme" {
			t.Errorf("%s: the handler has %q", name, bag)
		}
	}
}

// What cannot be read leaves the context as it is.
func TestTraceThatCannotBeRead(t *testing.T) {
	for _, carried := range []map[string]string{
		nil, {}, {"traceparent": "soon"}, {"traceparent": "00-0-0-0", "tracestate": "a=b"}, {"tracestate": "a=b"}, {"baggage": "=;=,"},
	} {
		if ctx := job.WithTrace(t.Context(), carried); ctx != t.Context() {
			t.Errorf("%q changes the context", carried)
		}
	}
}

// A put under no trace pays nothing for it.
func TestTraceCostsNothing(t *testing.T) {
	ctx := context.WithValue(t.Context(), t, t)
	if n := testing.AllocsPerRun(100, func() { job.WithTrace(ctx, job.TraceOf(ctx)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTraceRefused(t *testing.T) {
	for name, row := range map[string]struct {
		trace map[string]string
		want  string
	}{
		"unknown key": {map[string]string{"traceparent": "", "x-b3": "1"}, `unknown key "x-b3" in trace: must be one of ["traceparent" "tracestate" "baggage"]`},
		"too large":   {map[string]string{"baggage": strings.Repeat("a", job.MaxTrace-len("baggage")+1)}, "trace context and baggage of 8193 bytes: must have 8192 at most: carry less baggage"},
		"whole":       {map[string]string{"baggage": strings.Repeat("a", job.MaxTrace-len("baggage"))}, ""},
	} {
		spec := specs["spec-minimal"]
		spec.Trace = row.trace
		err := spec.Check()
		if row.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		checkError(t, name, err, row.want)
	}
}
