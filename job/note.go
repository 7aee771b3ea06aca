package job

import (
	"fmt"
	"time"
)

// NoteVersion is the version of [Note] that this code writes and reads.
const NoteVersion = 1

// Note is an annotation of a job, as it is stored under the job's ID and the
// annotation's name.
type Note struct {
	Version int `msgpack:"v"`
	// Nonce is that of the job that was annotated, so that a later one of the same
	// ID does not take it for its own.
	Nonce Nonce `msgpack:"nonce"`
	Value Value `msgpack:"value,omitempty"`
	// By is who set it: the UUID of the dispatcher that performs the job, or of the
	// one that performs another, or a client's name.
	By string `msgpack:"by,omitempty"`
	// At is when it was set, by the clock of whoever set it.
	At time.Time `msgpack:"at,omitempty"`
}

// EncodeNote writes an annotation.
func EncodeNote(n Note) ([]byte, error) {
	n.At = n.At.UTC()
	data, err := encode(n)
	if err != nil {
		return nil, fmt.Errorf("encode annotation: %w", err)
	}
	return data, nil
}

// DecodeNote reads an annotation. Keys that this version does not know are
// skipped, as those of a record are.
func DecodeNote(data []byte) (Note, error) {
	if !isMap(data) {
		return Note{}, fmt.Errorf("annotation cannot be read: it is no msgpack map, but %.40q", data)
	}
	var n Note
	if err := unpack(data, &n, lenient); err != nil {
		return Note{}, fmt.Errorf("annotation cannot be read: %w", err)
	}
	if n.Version != NoteVersion {
		return Note{}, fmt.Errorf("annotation has version %d, this program reads version %d", n.Version, NoteVersion)
	}
	n.At = n.At.UTC()
	return n, nil
}
