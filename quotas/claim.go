package quotas

import (
	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
)

// A quota's value is little but claims, and is written and read for every job
// that names it. So they are encoded by hand: the library finds the fields by
// reflection, which took an eighth of what a dispatcher does under one quota.
// The bytes are those that it writes for the struct's tags.

// EncodeMsgpack implements [msgpack.CustomEncoder].
func (c *Claim) EncodeMsgpack(e *msgpack.Encoder) error {
	w := claimWriter{e: e}
	n := 6
	for _, given := range []bool{c.Interrupted, c.Fence != 0, c.Several, c.Passed != 0, c.Reserves} {
		if given {
			n++
		}
	}
	w.do(e.EncodeMapLen(n))
	w.text("id", string(c.ID))
	w.key("nonce")
	w.do(e.EncodeBytes(c.Nonce[:]))
	w.key("token")
	w.do(e.EncodeUint(uint64(c.Token)))
	w.text("dispatcher", c.Dispatcher)
	w.key("seq")
	w.do(e.EncodeUint64(c.Sequence))
	w.flag("interrupted", c.Interrupted)
	w.key("since")
	w.do(e.EncodeTime(c.Since))
	if c.Fence != 0 {
		w.key("fence")
		w.do(e.EncodeUint64(c.Fence))
	}
	w.flag("several", c.Several)
	if c.Passed != 0 {
		w.key("passed")
		w.do(e.EncodeInt(int64(c.Passed)))
	}
	w.flag("reserves", c.Reserves)
	return w.err
}

// claimWriter writes a map field by field, until one fails.
type claimWriter struct {
	e   *msgpack.Encoder
	err error
}

func (w *claimWriter) do(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *claimWriter) key(name string) { w.do(w.e.EncodeString(name)) }

func (w *claimWriter) text(name, value string) {
	w.key(name)
	w.do(w.e.EncodeString(value))
}

// flag writes a flag that is up.
func (w *claimWriter) flag(name string, up bool) {
	if up {
		w.key(name)
		w.do(w.e.EncodeBool(true))
	}
}

// DecodeMsgpack implements [msgpack.CustomDecoder].
func (c *Claim) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := d.DecodeMapLen()
	if err != nil {
		return err
	}
	*c = Claim{}
	for range n {
		name, err := d.DecodeString()
		if err != nil {
			return err
		}
		if err := c.decode(name, d); err != nil {
			return err
		}
	}
	return nil
}

func (c *Claim) decode(name string, d *msgpack.Decoder) (err error) {
	switch name {
	case "id":
		var id string
		id, err = d.DecodeString()
		c.ID = job.ID(id)
	case "nonce":
		err = c.Nonce.DecodeMsgpack(d)
	case "token":
		err = c.Token.DecodeMsgpack(d)
	case "dispatcher":
		c.Dispatcher, err = d.DecodeString()
	case "seq":
		c.Sequence, err = d.DecodeUint64()
	case "interrupted":
		c.Interrupted, err = d.DecodeBool()
	case "since":
		c.Since, err = d.DecodeTime()
	case "fence":
		c.Fence, err = d.DecodeUint64()
	case "several":
		c.Several, err = d.DecodeBool()
	case "passed":
		c.Passed, err = d.DecodeInt()
	case "reserves":
		c.Reserves, err = d.DecodeBool()
	default:
		err = d.Skip()
	}
	return err
}
