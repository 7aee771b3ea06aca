// Package instance tells who this process is: the UUID that it has across
// restarts, in a file.
package instance

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// Variable is the environment variable that names the file (zc.async's
// ZC_ASYNC_UUID, FEATURES 8).
const Variable = "ASYNCNATS_UUID"

// DefaultFile is the file where the variable is not set.
const DefaultFile = "uuid.txt"

// UUID reads the instance's UUID from the file that the environment names, or
// makes the file.
func UUID() (uuid.UUID, error) {
	file := os.Getenv(Variable)
	if file == "" {
		file = DefaultFile
	}
	return FromFile(file)
}

// FromFile reads a UUID from the first line of a file. A file that does not
// exist is made, with a new UUID and an explanation.
func FromFile(file string) (uuid.UUID, error) {
	id, err := read(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	// Two processes may be here at once; one of them makes the file.
	if err := create(file); err != nil && !errors.Is(err, fs.ErrExist) {
		return uuid.Nil, fmt.Errorf("cannot make the file of this instance's UUID: %w: make it by hand, or name another in %s", err, Variable)
	}
	if id, err = read(file); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w, though something has its name: if that is a link, make the file that it points to, or remove it", err)
	}
	return id, err
}

func read(file string) (uuid.UUID, error) {
	f, err := os.Open(file)
	if err != nil {
		return uuid.Nil, fmt.Errorf("cannot read this instance's UUID: %w", err)
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil && line == "" {
		return uuid.Nil, fmt.Errorf("cannot read this instance's UUID: %s is empty: delete it, and a new one is made", file)
	}
	id, err := uuid.Parse(strings.TrimSpace(line))
	if err != nil || id == uuid.Nil {
		return uuid.Nil, fmt.Errorf("cannot read this instance's UUID: the first line of %s is %q, want a UUID: correct it, or delete the file, and a new one is made",
			file, strings.TrimSpace(line))
	}
	return id, nil
}

const explanation = `%s

This file is the identity of one asyncnats instance: its first line is the UUID
of the dispatcher that runs with it, and is noted on the jobs that it puts. It
outlives restarts. Give every process that runs at the same time a file of its
own (%s names it), and keep it out of container images: of two processes
with the same UUID only one performs jobs. Delete it for a new identity.
`

// create makes the file whole or not at all.
func create(file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".uuid-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = fmt.Fprintf(f, explanation, uuid.New(), Variable)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), file)
}
