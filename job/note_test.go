package job_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/asyncnats/asyncnats/job"
)

// notes are the annotations of the golden files.
var notes = map[string]job.Note{
	"note": {
		Version: 1, Nonce: nonce, Value: job.Value{Data: []byte{0x83, 0xa4, 'd', 'o', 'n', 'e', 3, 0xa5, 't', 'o', 't', 'a', 'l', 10, 0xa4, 't', 'e', 'x', 't', 0xa0}},
		By: first.Dispatcher, At: put,
	},
	"note-minimal": {Version: 1, Nonce: nonce},
}

func TestGoldenNotes(t *testing.T) {
	for name, note := range notes {
		t.Run(name, func(t *testing.T) {
			note.At = note.At.In(time.FixedZone("somewhere", 3*60*60))
			data, err := job.EncodeNote(note)
			if err != nil {
				t.Fatal(err)
			}
			got, err := job.DecodeNote(undump(t, golden(t, name+".hex", annotate(t, data))))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(notes[name], got); diff != "" {
				t.Errorf("decoded from the golden file (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeNoteRefused(t *testing.T) {
	whole, err := job.EncodeNote(notes["note"])
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := job.DecodeNote(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were taken for an annotation", n, len(whole))
		}
	}
	for name, row := range map[string]struct{ data, want string }{
		"JSON":           {"{}", "no msgpack map"},
		"no version":     {"\x80", "annotation has version 0, this program reads version 1"},
		"newer version":  {"\x81\xa1v\x02", "annotation has version 2"},
		"nil time":       {"\x82\xa1v\x01\xa2at\xc0", "a nil for a time"},
		"trailing bytes": {string(whole) + "\xc0", "1 bytes too many"},
	} {
		_, err := job.DecodeNote([]byte(row.data))
		checkError(t, name, err, row.want)
	}
	// Keys of a later release are skipped.
	if got, err := job.DecodeNote([]byte("\x82\xa1v\x01\xa3new\x81\xa1a\x92\xc0\x01")); err != nil || got.Version != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
