package stream

import (
	"sync"

	"github.com/asyncnats/asyncnats/kv"
)

// lateBucket is a bucket that is opened when it is first used: a namespace of an
// earlier release may have none.
type lateBucket[T any] struct {
	mu     sync.Mutex
	bucket *kv.Bucket[T]
}

func (l *lateBucket[T]) set(bucket *kv.Bucket[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket = bucket
}

// opened returns nil where the bucket was not opened yet.
func (l *lateBucket[T]) opened() *kv.Bucket[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bucket
}
