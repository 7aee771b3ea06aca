package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"

	"github.com/asyncnats/asyncnats"
	"github.com/asyncnats/asyncnats/job"
)

const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitJobFailed   = 3
	exitNotFound    = 4
	exitUnreachable = 5
)

const exitCodes = `
Exit codes:
  0  done
  1  not done: the message says why
  2  wrong usage
  3  the job failed (put --wait, job wait, job watch)
  4  no such queue, quota, job, recurring job, dispatcher or agent; or nobody answers
  5  the server is not there, or cannot be used: too old, without JetStream, refuses this user
`

// exitError is an error with the exit code that it calls for.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

// usage marks an error as wrong usage.
func usage(err error) error { return &exitError{exitUsage, err} }

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// misread says how to use the subcommand that the arguments were meant for.
func misread(err error) error {
	command := "asyncnats"
	if parse, ok := errors.AsType[*kong.ParseError](err); ok && parse.Context.Selected() != nil {
		command = parse.Context.Selected().FullPath()
	}
	return usagef("%w: see %s --help", err, command)
}

// code returns the exit code that an error calls for.
func code(err error) int {
	if err == nil {
		return exitOK
	}
	if marked, ok := errors.AsType[*exitError](err); ok {
		return marked.code
	}
	if _, failed := errors.AsType[*job.Failure](err); failed {
		return exitJobFailed
	}
	if _, illegal := errors.AsType[*job.NameError](err); illegal {
		return exitUsage
	}
	for _, known := range []struct {
		err  error
		code int
	}{
		{asyncnats.ErrNoQueue, exitNotFound},
		{asyncnats.ErrUnknownQuota, exitNotFound},
		{asyncnats.ErrNoJob, exitNotFound},
		{asyncnats.ErrNoDispatcher, exitNotFound},
		{asyncnats.ErrNoAgent, exitNotFound},
		{asyncnats.ErrNoRecurring, exitNotFound},
		{asyncnats.ErrOutcomeNotKept, exitNotFound},
		{asyncnats.ErrNotRunning, exitNotFound},
		{asyncnats.ErrServer, exitUnreachable},
		{asyncnats.ErrPermission, exitUnreachable},
		{asyncnats.ErrUnanswered, exitUnreachable},
		{nats.ErrConnectionClosed, exitUnreachable},
	} {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return exitFailed
}

// report prints an error, if there is one, and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, context.Canceled) && code(err) == exitFailed {
		fmt.Fprintln(w, "asyncnats: interrupted")
		return exitFailed
	}
	text := strings.TrimPrefix(err.Error(), "asyncnats: ")
	if _, failed := errors.AsType[*job.Failure](err); !failed {
		text = strings.ReplaceAll(text, "\n", "; ")
	}
	fmt.Fprintln(w, "asyncnats: "+text)
	return code(err)
}
