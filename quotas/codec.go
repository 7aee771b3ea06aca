package quotas

import (
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/kv"
)

// version is the version of the value that this code writes and reads.
const version = 1

// wire is a quota's value: a msgpack map.
type wire struct {
	Version int `msgpack:"v"`
	Slots
}

var codec = kv.Codec[Slots]{
	Encode: func(s Slots) ([]byte, error) {
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
		if read.Version != version {
			return Slots{}, fmt.Errorf("quota has version %d, this program reads version %d: use the same release everywhere", read.Version, version)
		}
		if read.Size < 0 {
			return Slots{}, errors.New("quota cannot be read: its size is negative")
		}
		return read.Slots, nil
	},
}
