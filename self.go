package asyncnats

import (
	"context"
	"fmt"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/stream"
)

// Self returns the handle of the job that is performed under ctx, the context of
// its handler. All methods of the handle work, and its queue takes more jobs, whose
// By is the dispatcher's UUID:
//
//	self, err := asyncnats.Self(ctx)
//	next, err := asyncnats.Put(ctx, self.Queue(), Resize.Call(part))
//
// job.FromContext says which attempt it is, and where it runs. In the handler of a
// callback Self is the callback, not the job that it follows.
//
// It asks nothing of the server. It returns [ErrNoSelf] where ctx is not the
// context of a handler, or one derived from it. zc.async: getJob, getQueue
// (FEATURES 193–195).
func Self(ctx context.Context) (*Job[job.Value], error) {
	self, ok := stream.FromContext(ctx)
	if !ok {
		return nil, fmt.Errorf("asyncnats: %w: call this in a handler, with the context that it was given", ErrNoSelf)
	}
	client := &Client{namespace: self.Queue.Namespace(), name: self.Dispatcher, queues: make(map[string]*Queue)}
	q := client.Queue(self.Queue.Name())
	q.opened = self.Queue
	return newJob[job.Value](q, self.ID, self.Nonce), nil
}
