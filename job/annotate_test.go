package job_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// annotate writes msgpack as a hex dump, a line for each value, with what it
// is beside it.
func annotate(t *testing.T, data []byte) string {
	t.Helper()
	a := annotator{t: t, data: data, reader: bytes.NewReader(data)}
	a.decoder = msgpack.NewDecoder(a.reader)
	for a.reader.Len() > 0 {
		a.value(0)
	}
	return a.out.String()
}

type annotator struct {
	t       *testing.T
	data    []byte
	reader  *bytes.Reader
	decoder *msgpack.Decoder
	out     strings.Builder
}

// value writes the value that comes next, and those that it holds.
func (a *annotator) value(depth int) {
	code, err := a.decoder.PeekCode()
	if err != nil {
		a.t.Fatal(err)
	}
	start := len(a.data) - a.reader.Len()
	children := 0
	var comment string
	switch {
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		children, err = a.decoder.DecodeMapLen()
		comment, children = fmt.Sprintf("map of %d", children), 2*children
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		children, err = a.decoder.DecodeArrayLen()
		comment = fmt.Sprintf("list of %d", children)
	default:
		var read any
		read, err = a.decoder.DecodeInterface()
		comment = describe(read)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.line(depth, a.data[start:len(a.data)-a.reader.Len()], comment)
	for range children {
		a.value(depth + 1)
	}
}

// line writes bytes, sixteen on a line, with the comment at the first.
func (a *annotator) line(depth int, data []byte, comment string) {
	const perLine, column = 16, 56
	for i := 0; i < len(data); i += perLine {
		text := strings.Repeat("  ", depth) + fmt.Sprintf("% x", data[i:min(len(data), i+perLine)])
		if i == 0 {
			text = fmt.Sprintf("%-*s # %s", column, text, comment)
		}
		a.out.WriteString(text + "\n")
	}
}

func describe(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []byte:
		if bytes.ContainsFunc(v, unicode.IsControl) {
			return fmt.Sprintf("%d bytes", len(v))
		}
		return fmt.Sprintf("%d bytes: %q", len(v), v)
	case time.Time:
		return "time " + v.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}
