package asyncnats

import (
	"errors"

	"github.com/asyncnats/asyncnats/internal/roster"
	"github.com/asyncnats/asyncnats/quotas"
	"github.com/asyncnats/asyncnats/stream"
)

// Errors that a caller may want to tell apart, with errors.Is.
var (
	// ErrNoQueue: there is no queue of that name.
	ErrNoQueue = stream.ErrNoQueue
	// ErrNoJob: there is neither a pending job nor a record of that ID.
	ErrNoJob = stream.ErrNoJob
	// ErrExists: a job with the chosen ID is not completed yet.
	ErrExists = stream.ErrExists
	// ErrNoRecurring: there is no recurring job of that name.
	ErrNoRecurring = stream.ErrNoRecurring
	// ErrAssigned: a dispatcher was given the job already.
	ErrAssigned = stream.ErrAssigned
	// ErrNoParts: the job is no parallel or serial.
	ErrNoParts = stream.ErrNoParts
	// ErrNotKept: the job keeps no result, and takes callbacks only when it is put.
	ErrNotKept = stream.ErrNotKept
	// ErrCompleted: the job is over.
	ErrCompleted = stream.ErrCompleted
	// ErrUnknownQuota: there is no quota of that name. The error is a
	// [*quotas.UnknownError].
	ErrUnknownQuota = quotas.ErrUnknown
	// ErrQuotaExists: there is a quota of that name.
	ErrQuotaExists = quotas.ErrExists
	// ErrNoDispatcher: no dispatcher of that UUID is registered.
	ErrNoDispatcher = roster.ErrNoDispatcher
	// ErrDispatcherActive: the dispatcher is alive.
	ErrDispatcherActive = roster.ErrActive
	// ErrNoAgent: the dispatcher has no agent of that name in the queue.
	ErrNoAgent = roster.ErrNoAgent
	// ErrAgentExists: the dispatcher has an agent of that name in the queue.
	ErrAgentExists = roster.ErrAgentExists
	// ErrAgentBusy: the agent performs jobs.
	ErrAgentBusy = errors.New("agent is busy")
	// ErrNoSelf: a context is not that of a job's handler.
	ErrNoSelf = errors.New("no job is performed under this context")
	// ErrNotRunning: nobody answers what a job was asked.
	ErrNotRunning = stream.ErrNotRunning
	// ErrTooLarge: a job is larger than the server takes.
	ErrTooLarge = stream.ErrTooLarge
	// ErrServer: the server cannot hold queues.
	ErrServer = stream.ErrServer
	// ErrPermission: the server does not let this connection do that.
	ErrPermission = stream.ErrPermission
	// ErrUnanswered: the server was not reached in time. What was asked may
	// have happened.
	ErrUnanswered = stream.ErrUnanswered
	// ErrOutcomeNotKept: the job is over, and its outcome is not kept any
	// more, or never was.
	ErrOutcomeNotKept = errors.New("outcome was not kept")
)
