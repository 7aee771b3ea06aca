package job

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Priority says before which other jobs of its queue a job is taken. The zero
// Priority is Normal.
//
// Where an agent has to choose it takes jobs of a higher priority first,
// whatever their tasks. So that the others do not starve, every tenth job that
// it takes is of one that was passed over. Slots of a quota are given in the
// order of the queue, whatever the priority. zc.async had no priorities
// (FEATURES 112).
type Priority int8

// The priorities, the lowest first.
const (
	Low    Priority = -1
	Normal Priority = 0
	High   Priority = 1
)

// Check reports a priority that there is not.
func (p Priority) Check() error {
	if p < Low || p > High {
		return fmt.Errorf("unknown priority %d: must be Low, Normal or High", int8(p))
	}
	return nil
}

// String returns "high", "normal" or "low".
func (p Priority) String() string {
	switch p {
	case Low:
		return "low"
	case Normal:
		return "normal"
	case High:
		return "high"
	}
	return fmt.Sprintf("priority(%d)", int8(p))
}

// ParsePriority reads what String writes, and takes no text for Normal.
func ParsePriority(s string) (Priority, error) {
	switch s {
	case "high":
		return High, nil
	case "", "normal":
		return Normal, nil
	case "low":
		return Low, nil
	}
	return Normal, fmt.Errorf("unknown priority %q: must be high, normal or low", s)
}

// MarshalText implements [encoding.TextMarshaler].
func (p Priority) MarshalText() ([]byte, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	return []byte(p.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Priority) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePriority(string(text))
	return err
}

// EncodeMsgpack writes the priority as text.
func (p Priority) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := p.Check(); err != nil {
		return err
	}
	return e.EncodeString(p.String())
}

// DecodeMsgpack reads what EncodeMsgpack writes.
func (p *Priority) DecodeMsgpack(d *msgpack.Decoder) error {
	text, err := d.DecodeString()
	if err != nil {
		return err
	}
	return p.UnmarshalText([]byte(text))
}
