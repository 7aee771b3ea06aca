package quotas

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/kv"
)

// A quota's value has a version: 2 where it has a period, for a program that does
// not know periods must not take it for a limit on how many run at once; else 1,
// as it was before there were any.
const (
	versionSlots = 1
	versionRate  = 2
)

// errGrant: a grant is not of the form that it should have.
var errGrant = errors.New("a grant is not a list of four")

// wire is a quota's value: a msgpack map.
type wire struct {
	Version int `msgpack:"v"`
	Slots
}

var codec = kv.Codec[Slots]{
	Encode: func(s Slots) ([]byte, error) {
		version := versionSlots
		if s.limitsRate() {
			version = versionRate
		}
		data, err := msgpack.Marshal(wire{Version: version, Slots: s})
		if err != nil {
			return nil, fmt.Errorf("encode quota: %w", err)
		}
		return data, nil
	},
	Decode: func(data []byte) (Slots, error) {
		var read wire
		if err := msgpack.Unmarshal(data, &read); err != nil {
			return Slots{}, fmt.Errorf("quota cannot be read: %w", err)
		}
		switch {
		case read.Version != versionSlots && read.Version != versionRate:
			return Slots{}, fmt.Errorf("quota has version %d, this program reads versions %d and %d: use the same release everywhere", read.Version, versionSlots, versionRate)
		case read.Size < 0:
			return Slots{}, errors.New("quota cannot be read: its size is negative")
		case (read.Version == versionRate) != (read.Period > 0):
			return Slots{}, fmt.Errorf("quota cannot be read: it has version %d and period %v", read.Version, read.Period)
		case read.Period == 0 && len(read.Grants) > 0:
			return Slots{}, errors.New("quota cannot be read: it has grants and no period")
		case slices.ContainsFunc(read.Grants, func(g Grant) bool { return g.N < 1 || g.First > g.Last }):
			return Slots{}, errors.New("quota cannot be read: a grant of nothing")
		}
		return read.Slots, nil
	},
}
