package asyncnats

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/asyncnats/asyncnats/internal/instance"
	"github.com/asyncnats/asyncnats/internal/roster"
)

// InstanceUUID returns the UUID that this process has across restarts: from the
// file that the environment variable ASYNCNATS_UUID names, or ./uuid.txt. A file
// that does not exist is made. A dispatcher that is given no UUID has this one.
func InstanceUUID() (uuid.UUID, error) { return instance.UUID() }

// Dispatcher is a dispatcher as it is registered: where it runs or last ran, which
// queues it serves, and whether it is active, stopped or dead.
type Dispatcher = roster.Entry

// States of a dispatcher.
const (
	DispatcherActive  = roster.Active
	DispatcherStopped = roster.Dormant
	DispatcherDead    = roster.Dead
)

// Dispatchers lists the dispatchers that were ever registered in the namespace and
// not removed, sorted by UUID. It returns [ErrNoQueue] where the namespace has no
// queue.
func (c *Client) Dispatchers(ctx context.Context) (list []Dispatcher, err error) {
	err = c.roster(ctx, func(r *roster.Roster) error {
		list, err = r.List(ctx)
		return err
	})
	return list, err
}

// Dispatcher returns a dispatcher's entry. It returns [ErrNoDispatcher] where there
// is none of that UUID.
func (c *Client) Dispatcher(ctx context.Context, id string) (found Dispatcher, err error) {
	err = c.roster(ctx, func(r *roster.Roster) error {
		found, err = r.Get(ctx, id)
		return err
	})
	return found, err
}

// RemoveDispatcher unregisters a dispatcher that is stopped or dead, with its
// agents in all queues. It returns [ErrDispatcherActive] where it is alive. A
// dispatcher that comes back is registered anew, with the agents of its config.
func (c *Client) RemoveDispatcher(ctx context.Context, id string) error {
	return c.roster(ctx, func(r *roster.Roster) error { return r.Remove(ctx, id) })
}

func (c *Client) roster(ctx context.Context, use func(*roster.Roster) error) error {
	names, err := c.namespace.Queues(ctx)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%w in namespace %s (asyncnats queue add)", ErrNoQueue, c.namespace.Name())
	}
	var found *roster.Roster
	if err == nil {
		found, err = roster.Open(ctx, c.namespace)
	}
	if err == nil {
		err = use(found)
	}
	if err != nil {
		return fmt.Errorf("asyncnats: %w", err)
	}
	return nil
}
