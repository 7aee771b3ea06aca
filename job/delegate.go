package job

import "errors"

// Delegate makes an error by which a handler hands its job on: the call is put as
// a job of its own, and its outcome is that of the handler's job, which waits for
// it and holds no place and no slot meanwhile. It is no failure, unless the call cannot
// be put: then the job fails with [KindInvalid]. Only the error that [Handler.Perform]
// returns is looked at, which may wrap it.
// asyncnats.Task.HandleCall makes it of a typed call.
func Delegate(c Call) error { return &delegation{c} }

type delegation struct{ call Call }

// Error implements error.
func (d *delegation) Error() string { return "delegated to " + d.call.Task }

// Delegated returns the call that an error made by [Delegate] hands a job on to.
func Delegated(err error) (c Call, ok bool) {
	d, ok := errors.AsType[*delegation](err)
	if !ok {
		return Call{}, false
	}
	return d.call, true
}
