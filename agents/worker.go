package agents

import (
	"time"

	"github.com/asyncnats/asyncnats/stream"
)

// restingWorkers is how many workers without a job an agent keeps at least, where it has
// had as many; it keeps no more than perform a job.
const restingWorkers = 4

// worker is a goroutine that performs one job after another. A new one for each job
// would grow its stack anew for each, which takes a tenth of the time that a
// job without work takes.
type worker chan *stream.Lease

// start gives a job a worker, and its place.
func (r *Runner) start(lease *stream.Lease) {
	r.running++
	if n := len(r.idle); n > 0 {
		w := r.idle[n-1]
		r.idle = r.idle[:n-1]
		w <- lease
		return
	}
	w := make(worker, 1)
	w <- lease
	go r.serve(w)
}

// serve performs the jobs that a worker is given until the runner is over.
func (r *Runner) serve(w worker) {
	for {
		select {
		case lease, more := <-w:
			if !more {
				return
			}
			r.serveOne(lease, w)
		case <-r.over:
			return
		}
	}
}

// serveOne performs a job, and gives back its place and the worker. The place comes
// back also where the handler ends its goroutine (runtime.Goexit), and the worker with it.
func (r *Runner) serveOne(lease *stream.Lease, w worker) {
	began, whole := time.Now(), false
	defer func() {
		took := time.Since(began)
		r.box.Post(func() {
			r.ran(took)
			if whole {
				r.rest(w)
			}
		})
	}()
	r.perform(lease)
	whole = true
}

// rest keeps a worker for another job, or ends it.
func (r *Runner) rest(w worker) {
	r.idle = append(r.idle, w)
	for n := len(r.idle); n > max(restingWorkers, r.running); n-- {
		close(r.idle[n-1])
		r.idle = r.idle[:n-1]
	}
}
