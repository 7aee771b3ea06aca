package integration

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// command is one command of the NATS client protocol, as client or server
// write it.
type command struct {
	raw            []byte
	verb           string
	subject, reply string // of messages
	payload        []byte // of messages, without headers
}

// nextCommand reads the command that b begins with. ok is false where it is not
// whole yet.
func nextCommand(b []byte) (c command, ok bool) {
	line, _, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok {
		return command{}, false
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return command{raw: b[:len(line)+2]}, true
	}
	c.verb = strings.ToUpper(fields[0])
	args := fields[1:]
	sizes := map[string]int{"PUB": 1, "MSG": 1, "HPUB": 2, "HMSG": 2}[c.verb] // how many arguments are sizes
	if sizes == 0 {
		c.raw = b[:len(line)+2]
		return c, true
	}
	headers := 0
	if sizes == 2 {
		headers, _ = strconv.Atoi(args[len(args)-2])
	}
	size, _ := strconv.Atoi(args[len(args)-1])
	begin := len(line) + 2
	end := begin + size + 2
	if len(b) < end {
		return command{}, false
	}
	args = args[:len(args)-sizes]
	c.subject = args[0]
	if strings.HasSuffix(c.verb, "MSG") {
		args = slices.Delete(args, 1, 2) // the number of the subscription
	}
	if len(args) > 1 {
		c.reply = args[1]
	}
	c.raw, c.payload = b[:end], b[begin+headers:end-2]
	return c, true
}

// Commands are found whatever pieces a stream comes in, and what looks like a
// command in a payload is none.
func TestNextCommand(t *testing.T) {
	text := "CONNECT {\"verbose\":false}\r\nPING\r\n" +
		"PUB a.b 15\r\nPUB x 1\r\n+ACK\r\n\r\n" +
		"PUB a.b c.d 4\r\n+ACK\r\n" +
		"HPUB $KV.X.k in.1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n" +
		"MSG a.b 9 2\r\nhi\r\n" +
		"MSG a.b 9 $JS.ACK.1 2\r\nhi\r\n" +
		"HMSG a.b 9 $JS.ACK.1 12 12\r\nNATS/1.0\r\n\r\n\r\n" +
		"PONG\r\n"
	want := []string{
		"CONNECT   ", "PING   ", "PUB a.b  PUB x 1\r\n+ACK\r\n", "PUB a.b c.d +ACK", "HPUB $KV.X.k in.1 hi",
		"MSG a.b  hi", "MSG a.b $JS.ACK.1 hi", "HMSG a.b $JS.ACK.1 ", "PONG   ",
	}
	for size := 1; size <= len(text); size++ {
		var got []string
		var pending, passed []byte
		for piece := range slices.Chunk([]byte(text), size) {
			pending = append(pending, piece...)
			for {
				c, ok := nextCommand(pending)
				if !ok {
					break
				}
				got = append(got, strings.Join([]string{c.verb, c.subject, c.reply, string(c.payload)}, " "))
				passed = append(passed, c.raw...)
				pending = pending[len(c.raw):]
			}
		}
		if !slices.Equal(got, want) || string(passed) != text {
			t.Fatalf("in pieces of %d: got %q, want %q", size, got, want)
		}
	}
}
