package job

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// outcomeWire is an outcome as an argument or a result: what it is in a task's own
// terms, {"result": …} or {"failure": {…}}, whatever the encoding of the result
// was.
type outcomeWire struct {
	Result  msgpack.RawMessage `json:"result,omitempty"`
	Failure *Failure           `json:"failure,omitempty"`
}

// OutcomeValue returns an outcome as the value of an argument, in msgpack: a map with
// either "result" or "failure". A task without result has neither where it succeeded.
// It is an error where the result is not what its encoding says.
func OutcomeValue(o Outcome) (Value, error) {
	wire, err := wireOutcome(o)
	if err != nil {
		return Value{}, err
	}
	return Encode(wire, MsgPack)
}

// OutcomesValue returns outcomes as the value of a result: a list of what
// [OutcomeValue] makes of each.
func OutcomesValue(outcomes []Outcome) (Value, error) {
	list := make([]outcomeWire, len(outcomes))
	for i, o := range outcomes {
		wire, err := wireOutcome(o)
		if err != nil {
			return Value{}, fmt.Errorf("outcome %d: %w", i, err)
		}
		list[i] = wire
	}
	return Encode(list, MsgPack)
}

func wireOutcome(o Outcome) (outcomeWire, error) {
	if !o.Succeeded() {
		return outcomeWire{Failure: o.Failure}, nil
	}
	raw, err := o.Result.AsMsgPack()
	return outcomeWire{Result: raw}, err
}

// bound is the argument of a call that has one, and takes another beside it.
type bound struct {
	With msgpack.RawMessage `json:"with,omitempty"`
	Got  msgpack.RawMessage `json:"got,omitempty"`
}

func bind(with, got Value) (Value, error) {
	var b bound
	var err error
	if b.With, err = with.AsMsgPack(); err != nil {
		return Value{}, err
	}
	if b.Got, err = got.AsMsgPack(); err != nil {
		return Value{}, err
	}
	return Encode(b, MsgPack)
}

// OutcomesByName returns outcomes as the value of a result: a map of what
// [OutcomeValue] makes of each.
func OutcomesByName(names []string, outcomes []Outcome) (Value, error) {
	byName := make(map[string]outcomeWire, len(names))
	for i, name := range names {
		wire, err := wireOutcome(outcomes[i])
		if err != nil {
			return Value{}, fmt.Errorf("outcome of %s: %w", name, err)
		}
		byName[name] = wire
	}
	return Encode(byName, MsgPack)
}
