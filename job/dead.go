package job

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// DeadVersion is the version of [Dead] that this code writes and reads.
const DeadVersion = 1

// Dead is what is kept of a job that failed, beside its record, for people: to
// look at, and to put the job again.
type Dead struct {
	Version int
	// Body is the body of the job's message, as the last attempt was given it.
	Body []byte
	// Record is the job's record, as it was completed.
	Record Record
	// Cut lists what was left out since the entry was too large for the server,
	// in this order: [CutStack], [CutPast], [CutArg].
	Cut []string
}

// Parts of [Dead] that may be left out.
const (
	// CutStack: the stack of the Failure.
	CutStack = "stack"
	// CutPast: the Failures of earlier attempts.
	CutPast = "past"
	// CutArg: the argument. The job cannot be put again.
	CutArg = "arg"
)

// Smaller leaves out one more part: the stack of the Failure first, then the
// Failures of earlier attempts, then the argument. ok is false where nothing is
// left that can be spared.
func (d Dead) Smaller() (smaller Dead, ok bool) {
	for _, part := range []string{CutStack, CutPast, CutArg} {
		if slices.Contains(d.Cut, part) || !d.has(part) {
			continue
		}
		d.Cut = append(slices.Clone(d.Cut), part)
		switch part {
		case CutStack:
			failure := *d.Record.Outcome.Failure
			failure.Stack = ""
			d.Record.Outcome = &Outcome{Failure: &failure}
		case CutPast:
			d.Record.Past = nil
		case CutArg:
			d.Body = d.withoutArg()
		}
		return d, true
	}
	return d, false
}

func (d Dead) has(part string) bool {
	switch part {
	case CutStack:
		return d.Record.Outcome != nil && d.Record.Outcome.Failure != nil && d.Record.Outcome.Failure.Stack != ""
	case CutPast:
		return len(d.Record.Past) > 0
	}
	return len(d.Body) > 0
}

// withoutArg is the body without its argument; nothing, where it cannot be read.
func (d Dead) withoutArg() []byte {
	spec, err := d.Spec()
	if err != nil {
		return nil
	}
	spec.Arg = Value{}
	body, err := EncodeSpec(spec)
	if err != nil {
		return nil
	}
	return body
}

// Spec decodes the body. The argument is absent where Cut says so.
func (d Dead) Spec() (Spec, error) {
	return DecodeSpec(d.Body, d.Record.Task, d.Record.Quotas, d.Record.Priority, d.Record.Nonce)
}

// Anew returns the job as it is to be put again: with its argument, quotas and
// policies, without times, for no other job, and with no attempt behind it. Its nonce follows from
// that of the job and the revision of the entry, so that two who put it again,
// or one who does it twice, put one job. (Who put it, and when, is the caller's
// to say.)
//
// It is an error where the argument was left out, and where the body cannot be
// read.
func (d Dead) Anew(revision uint64) (Spec, error) {
	if slices.Contains(d.Cut, CutArg) {
		return Spec{}, errors.New("its argument was too large to be kept: put it anew")
	}
	spec, err := d.Spec()
	if err != nil {
		return Spec{}, fmt.Errorf("put it anew: %w", err)
	}
	spec.Nonce, spec.Again = d.Record.Nonce.Next(revision), true
	spec.Begin, spec.Deadline, spec.Attempt = time.Time{}, time.Time{}, 0
	spec.By, spec.At, spec.Parent = "", time.Time{}, nil
	return spec, nil
}

// deadWire is Dead as it is stored.
type deadWire struct {
	Version int                `msgpack:"v"`
	Body    []byte             `msgpack:"body,omitempty"`
	Record  msgpack.RawMessage `msgpack:"record,omitempty"`
	Cut     []string           `msgpack:"cut,omitempty"`
}

// EncodeDead writes what is kept of a job that failed.
func EncodeDead(d Dead) ([]byte, error) {
	record, err := EncodeRecord(d.Record)
	if err != nil {
		return nil, fmt.Errorf("encode dead job: %w", err)
	}
	data, err := encode(deadWire{d.Version, d.Body, record, d.Cut})
	if err != nil {
		return nil, fmt.Errorf("encode dead job: %w", err)
	}
	return data, nil
}

// DecodeDead reads what is kept of a job that failed. Keys that this version
// does not know are skipped, as those of a record are.
func DecodeDead(data []byte) (Dead, error) {
	if !isMap(data) {
		return Dead{}, fmt.Errorf("dead job cannot be read: it is no msgpack map, but %.40q", data)
	}
	var wire deadWire
	if err := unpack(data, &wire, lenient); err != nil {
		return Dead{}, fmt.Errorf("dead job cannot be read: %w", err)
	}
	if wire.Version != DeadVersion {
		return Dead{}, fmt.Errorf("dead job has version %d, this program reads version %d", wire.Version, DeadVersion)
	}
	record, err := DecodeRecord(wire.Record)
	if err != nil {
		return Dead{}, fmt.Errorf("dead job: %w", err)
	}
	return Dead{Version: wire.Version, Body: wire.Body, Record: record, Cut: wire.Cut}, nil
}
