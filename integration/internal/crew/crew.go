// Package crew runs dispatchers inside a test.
package crew

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats/dispatcher"
	"github.com/asyncnats/asyncnats/internal/natstest"
)

// Member is a dispatcher that runs in the process of its test.
type Member struct {
	*dispatcher.Dispatcher
	Wire *natstest.Wire // its connection
	Log  *Log
	Stop func() // stops it, and waits until it has stopped
}

// Hire runs a dispatcher over a wire of its own until the test ends or it is
// stopped. Its log is shown if the test fails.
func Hire(t *testing.T, server *natstest.Server, c dispatcher.Config) *Member {
	t.Helper()
	m := &Member{Log: &Log{}}
	c.Log = slog.New(slog.NewTextHandler(m.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if c.UUID == uuid.Nil {
		c.UUID = uuid.New()
	}
	nc, wire := server.ConnectWire(t)
	d, err := dispatcher.New(nc, c)
	if err != nil {
		t.Fatal(err)
	}
	m.Dispatcher, m.Wire = d, wire
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	m.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("dispatcher %s: %v", d.UUID(), err)
		}
	})
	t.Cleanup(func() {
		m.Stop()
		if t.Failed() {
			t.Logf("dispatcher %s wrote:\n%s", d.UUID(), m.Log)
		}
	})
	return m
}

// Log is a log that is read while it is written.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns what was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Contains reports whether some line has all the words.
func (l *Log) Contains(words ...string) bool {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}
