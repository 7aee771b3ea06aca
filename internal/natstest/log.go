package natstest

import (
	"os"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// logger passes the server's log to the test's as far as NATSTEST_LOG asks for it. It implements server.Logger.
type logger struct {
	level string

	mu sync.Mutex
	tb testing.TB // nil once closed: the log of a test that has ended must not be written
}

func newLogger(tb testing.TB) *logger { return &logger{tb: tb, level: os.Getenv("NATSTEST_LOG")} }

func (l *logger) attach(ns *server.Server) {
	trace := l.level == "trace"
	ns.SetLogger(l, trace || l.level == "debug", trace)
}

func (l *logger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tb = nil
}

func (l *logger) logf(level, format string, args []any) {
	if l.level == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tb != nil {
		l.tb.Logf("server ["+level+"] "+format, args...)
	}
}

// Fatalf fails the test, whatever the level. The server goes on: it says so where it cannot start.
func (l *logger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tb != nil {
		l.tb.Errorf("natstest: server: "+format, args...)
	}
}

func (l *logger) Errorf(format string, args ...any)  { l.logf("error", format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.logf("warn", format, args) }
func (l *logger) Noticef(format string, args ...any) { l.logf("notice", format, args) }
func (l *logger) Debugf(format string, args ...any)  { l.logf("debug", format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.logf("trace", format, args) }
