package job

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// RecordVersion is the version of the record that this code writes and reads.
const RecordVersion = 1

// Record is what is kept of a job after it began to matter. It is written by
// compare-and-set only, and names nonce and attempt (rule R2 of
// docs/design.md), so that of two workers who both believe to have the job one
// wins and the other learns it.
type Record struct {
	Version int    `msgpack:"v" json:"v"`
	Nonce   Nonce  `msgpack:"nonce" json:"nonce"`
	Task    string `msgpack:"task" json:"task"`
	// Quotas names the quotas that the job needed a slot in, sorted.
	Quotas   []string `msgpack:"quotas,omitempty" json:"quotas,omitempty"`
	Priority Priority `msgpack:"priority,omitempty" json:"priority,omitempty"`
	// To is the UUID of the one dispatcher that might perform the job.
	To    string `msgpack:"to,omitempty" json:"to,omitempty"`
	State State  `msgpack:"state" json:"state"`

	// Attempt is the attempt that wrote the record.
	Attempt Attempt `msgpack:"attempt" json:"attempt"`
	// Tally counts how the attempts ended so far.
	Tally
	// Message tells which of the job's messages goes on: the one whose
	// [Spec.Attempt] it is. One with a lower number was left behind by a retry.
	Message int `msgpack:"message,omitempty" json:"message,omitempty"`
	// Due is when a retry is due, in state Retrying; zero where the job is to
	// run again at once.
	Due time.Time `msgpack:"due,omitempty" json:"due,omitzero"`
	// Past holds the Failures of attempts that were tried again, the last
	// [MaxPast] in order, without their stacks.
	Past []Failure `msgpack:"past,omitempty" json:"past,omitempty"`
	// Callbacks are those that were added after the job was put.
	Callbacks []Callback `msgpack:"callbacks,omitempty" json:"-"`
	// Called are the callbacks that were put, in order.
	Called []Called `msgpack:"called,omitempty" json:"called,omitempty"`
	// Parts is what the job waits for, or has waited for.
	Parts *Parts `msgpack:"parts,omitempty" json:"parts,omitempty"`
	// Parent is the job for which this one was put; nil for none.
	Parent *Parent `msgpack:"parent,omitempty" json:"parent,omitempty"`
	// Outcome is set in states Callbacks and Completed.
	Outcome *Outcome `msgpack:"outcome,omitempty" json:"outcome,omitempty"`

	By      string    `msgpack:"by,omitempty" json:"by,omitempty"`
	Put     time.Time `msgpack:"put,omitempty" json:"put,omitzero"`
	Started time.Time `msgpack:"started,omitempty" json:"started,omitzero"`
	Ended   time.Time `msgpack:"ended,omitempty" json:"ended,omitzero"`
}

// EndedAs reports whether the job ended with a Failure of that kind.
func (r Record) EndedAs(kind Kind) bool {
	return r.State.Ended() && r.Outcome != nil && !r.Outcome.Succeeded() && r.Outcome.Failure.Kind == kind
}

// Stopped reports whether the job was ended by somebody who did not perform it:
// it was cancelled, its deadline passed, or its dispatcher did not come back.
func (r Record) Stopped() bool {
	return r.Attempt.Number == 0 && (r.EndedAs(KindCancelled) || r.EndedAs(KindExpired) || r.EndedAs(KindAbsent))
}

// MaxPast is how many Failures of past attempts a record keeps.
const MaxPast = 10

// Failed adds the Failure of an attempt that is tried again to Past.
func (r *Record) Failed(f Failure) {
	f.Stack = ""
	r.Past = append(slices.Clone(r.Past[max(0, len(r.Past)+1-MaxPast):]), f)
}

// Attempt is one try at performing a job: the right in whose name a worker
// writes about it.
type Attempt struct {
	// Number counts from 1.
	Number int `msgpack:"n" json:"number"`
	// Token tells two attempts of the same number apart.
	Token Token `msgpack:"token" json:"token"`
	// Dispatcher is the UUID of the dispatcher, Agent the name of its agent.
	Dispatcher string `msgpack:"dispatcher" json:"dispatcher"`
	Agent      string `msgpack:"agent" json:"agent"`
}

// Same reports whether a and b are one attempt.
func (a Attempt) Same(b Attempt) bool { return a.Number == b.Number && a.Token == b.Token }

// Token is drawn for each attempt. JSON shows it in hexadecimal, for it is more
// than a number in JavaScript can hold.
type Token uint64

// MarshalText implements [encoding.TextMarshaler].
func (t Token) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(t)), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *Token) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	*t = Token(n)
	return err
}

// EncodeMsgpack writes the token as a number.
func (t Token) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeUint(uint64(t)) }

// DecodeMsgpack reads what EncodeMsgpack writes.
func (t *Token) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := d.DecodeUint64()
	*t = Token(n)
	return err
}

// Outcome is how a job ended: with a result, or with a Failure. Exactly one is
// ever recorded per job.
type Outcome struct {
	Result  Value    `msgpack:"result,omitempty" json:"-"`
	Failure *Failure `msgpack:"failure,omitempty" json:"failure,omitempty"`
}

// Succeeded reports whether the outcome is a result.
func (o Outcome) Succeeded() bool { return o.Failure == nil }
