package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Change is what a watch yields: an entry that was written, or the key of one
// that was deleted or expired, or (once, with neither) word that everything
// that existed when the watch began has been yielded.
type Change[T any] struct {
	Entry   Entry[T]
	Deleted bool
	// Current marks the end of what existed when the watch began. Entry is
	// empty then.
	Current bool
}

// Watch yields the entries whose key matches pattern (NATS wildcards), then
// the changes to them, in order, until ctx ends. Of changes to one key that
// follow each other closely, or happen while the connection is away, only the
// last is sure to be yielded. It survives reconnects. A value that cannot be
// decoded is yielded as an error beside its key, and the watch goes on; an
// error without a key ends it.
func (b *Bucket[T]) Watch(ctx context.Context, pattern string) iter.Seq2[Change[T], error] {
	return func(yield func(Change[T], error) bool) {
		watcher, err := b.store.Watch(ctx, pattern)
		if err != nil {
			if ctx.Err() == nil {
				yield(Change[T]{}, fmt.Errorf("watch %s of %s: %w", pattern, b.name, err))
			}
			return
		}
		defer stop(watcher)
		for {
			select {
			case <-ctx.Done():
				return
			case found, open := <-watcher.Updates():
				if !open {
					if ctx.Err() == nil {
						yield(Change[T]{}, fmt.Errorf("watch %s of %s: connection closed", pattern, b.name))
					}
					return
				}
				if !yield(b.change(found)) {
					return
				}
			}
		}
	}
}

// stop ends a watcher. It takes what is still on its way, for whose sake
// the watcher's goroutine would wait for ever.
func stop(watcher jetstream.KeyWatcher) {
	// Stopping fails where the connection is closed, and the watcher with it;
	// if that was while the watcher was made, its channel is never closed.
	var patience <-chan time.Time
	if err := watcher.Stop(); err != nil {
		patience = time.After(time.Second)
	}
	go func() {
		for {
			select {
			case _, open := <-watcher.Updates():
				if !open {
					return
				}
			case <-patience:
				return
			}
		}
	}()
}

func (b *Bucket[T]) change(found jetstream.KeyValueEntry) (Change[T], error) {
	if found == nil {
		return Change[T]{Current: true}, nil
	}
	if found.Operation() != jetstream.KeyValuePut {
		return Change[T]{Deleted: true, Entry: Entry[T]{
			Key: found.Key(), Revision: found.Revision(), Written: found.Created(),
		}}, nil
	}
	entry, err := b.entry(found.Key(), found.Value(), found.Revision(), found.Created())
	entry.Key = found.Key()
	return Change[T]{Entry: entry}, err
}

// List returns the entries whose key matches pattern (NATS wildcards), oldest
// write first. Values that cannot be decoded are left out and reported in the
// error, joined.
func (b *Bucket[T]) List(ctx context.Context, pattern string) ([]Entry[T], error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var entries []Entry[T]
	var errs []error
	for change, err := range b.Watch(ctx, pattern) {
		switch {
		case err != nil:
			errs = append(errs, err)
		case change.Current:
			return entries, errors.Join(errs...)
		case !change.Deleted:
			entries = append(entries, change.Entry)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("list %s of %s: %w", pattern, b.name, context.Cause(ctx)))
	}
	return nil, errors.Join(errs...)
}
