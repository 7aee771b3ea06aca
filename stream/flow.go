package stream

import (
	"context"
	"fmt"
)

// SetFlow lets at most n jobs of a lane be delivered and not acked at once, -1
// for any number. Setting is idempotent, and costs one request where nothing is
// to be changed.
//
// A process that makes the lane's consumer at the same moment may undo it: of two
// that ask the server for it, the second sets it anew (nats-server 2.15.2,
// addConsumerWithAssignmentAndMode). So who sets a flow sets it again a little later.
//
// It keeps the jobs of a lane whose quota is full from being given out only to
// wait. What a quota allows does not rest on it.
func (q *Queue) SetFlow(ctx context.Context, lane Lane, n int) error {
	ctx, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	consumer, err := q.consumer(ctx, lane)
	if err != nil || consumer.Config.MaxAckPending == n {
		return err
	}
	config := consumer.Config
	config.MaxAckPending = n
	_, err = q.ns.js.UpdateConsumer(ctx, q.names.stream(), config)
	step := fmt.Sprintf("set the flow of lane %s of queue %s", lane.Token(), q.names.queue)
	switch {
	case err == nil:
		return nil
	case unwritten(err):
		return fmt.Errorf("%s: %w (see to the server's disk; if that is well, remove consumer %s of stream %s, which is made again)",
			step, err, config.Durable, q.names.stream())
	}
	return explain(q.conn(), step, err)
}
