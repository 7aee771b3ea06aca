package job

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// MaxTrace is how many bytes a job's trace context and baggage may have together,
// names included. They are part of the job's body, which lies in the queue as
// long as the job does.
const MaxTrace = 8192

// traceKeys are the keys of [Spec.Trace]: the headers of W3C Trace Context and
// W3C Baggage.
var traceKeys = []string{"traceparent", "tracestate", "baggage"}

// propagator writes and reads the trace and the baggage of a context. It is one of
// our own, so that what a job carries does not depend on what the program has set
// up for its HTTP requests.
var propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})

// TraceOf returns the trace and the baggage of ctx as a job carries them from its
// put to its handler ([Spec.Trace]); nil, at no cost, where ctx has neither.
func TraceOf(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsValid() && baggage.FromContext(ctx).Len() == 0 {
		return nil
	}
	carried := make(propagation.MapCarrier, len(traceKeys))
	propagator.Inject(ctx, carried)
	return carried
}

// WithTrace returns ctx with the trace and the baggage that a job carries: spans
// that are begun under it continue the trace of the put. Dispatchers call it for
// handlers. What cannot be read is left out, as W3C has it; nothing that carried
// says nothing of is taken from ctx.
func WithTrace(ctx context.Context, carried map[string]string) context.Context {
	if len(carried) == 0 {
		return ctx
	}
	return propagator.Extract(ctx, propagation.MapCarrier(carried))
}

// checkTrace reports a key that is none of the three, and too many bytes.
func checkTrace(carried map[string]string) error {
	size := 0
	for _, key := range slices.Sorted(maps.Keys(carried)) {
		if !slices.Contains(traceKeys, key) {
			return fmt.Errorf("unknown key %q in trace: must be one of %q", key, traceKeys)
		}
		size += len(key) + len(carried[key])
	}
	if size > MaxTrace {
		return fmt.Errorf("trace context and baggage of %d bytes: must have %d at most: carry less baggage", size, MaxTrace)
	}
	return nil
}
