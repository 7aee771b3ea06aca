package job

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vmihailenco/msgpack/v5"
)

// ID names a job within its queue: 1 to 128 letters, digits, '-', '_', '/' or
// '='. It may be used again once the job is completed.
type ID string

// NewID returns an ID that nobody else has: a version 7 UUID, so that IDs sort
// by the time they were made.
func NewID() ID {
	return ID(uuid.Must(uuid.NewV7()).String())
}

// ParseID checks an ID chosen by a caller. The error is a [*NameError].
func ParseID(s string) (ID, error) {
	if err := idRule.check(s); err != nil {
		return "", err
	}
	return ID(s), nil
}

// String returns the ID as text.
func (id ID) String() string { return string(id) }

// Nonce is a job's identity beside its ID: 16 bytes drawn by the put, copied
// by every retry and never used again. It tells one use of an ID from another.
type Nonce [16]byte

// NewNonce draws a nonce.
func NewNonce() Nonce {
	var n Nonce
	rand.Read(n[:]) // never fails: crypto/rand ends the program instead
	return n
}

// NonceAt is the nonce of a job whose body brought none (a JSON body published
// by hand): made of where and when the server stored it, which no other
// message of the same queue shares.
func NonceAt(sequence uint64, stored time.Time) Nonce {
	var n Nonce
	binary.BigEndian.PutUint64(n[:8], uint64(stored.UnixNano()))
	binary.BigEndian.PutUint64(n[8:], sequence)
	return n
}

// Next is the nonce of the job that is put again from what was kept of job n
// under that revision: the beginning of the SHA-256 of both, the revision as 64
// bits, big-endian.
func (n Nonce) Next(revision uint64) Nonce {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(n[:], revision))
	return Nonce(sum[:len(n)])
}

// IsZero reports whether n is the absent nonce.
func (n Nonce) IsZero() bool { return n == Nonce{} }

// String returns the nonce in hexadecimal.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// EncodeMsgpack writes the nonce as 16 bytes.
func (n Nonce) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeBytes(n[:]) }

// DecodeMsgpack reads what EncodeMsgpack writes.
func (n *Nonce) DecodeMsgpack(d *msgpack.Decoder) error {
	data, err := d.DecodeBytes()
	if err != nil {
		return err
	}
	if len(data) != len(n) {
		return fmt.Errorf("nonce of %d bytes: want %d", len(data), len(n))
	}
	copy(n[:], data)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (n *Nonce) UnmarshalText(text []byte) error {
	var read Nonce
	if len(text) != 2*len(read) {
		return fmt.Errorf("nonce of %d characters: want %d hexadecimal digits", len(text), 2*len(read))
	}
	if _, err := hex.Decode(read[:], text); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	*n = read
	return nil
}

// UniqueID returns the ID of the job of a task that is unique by a key: the task
// with '=' for its dots, '/', and the key or, where that cannot be part of an ID
// or is long, "/" and half its SHA-256 in hexadecimal. Of a task with a long name
// it is "/" and half the SHA-256 of the task, a zero byte and the key.
func UniqueID(task, key string) ID {
	prefix := strings.ReplaceAll(task, ".", "=") + "/"
	if id, err := ParseID(prefix + key); err == nil && key != "" && len(key) <= sha256.Size && !strings.Contains(key, "/") {
		return id
	}
	if id, err := ParseID(prefix + "/" + digest(key)); err == nil {
		return id
	}
	return ID("/" + digest(task+"\x00"+key))
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:sha256.Size/2])
}
