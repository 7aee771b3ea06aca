// Package asyncnats puts jobs on queues in NATS JetStream and returns their
// outcomes. It is what producers import; package dispatcher performs the jobs.
//
// A [Task] is a named function with an argument and a result type, shared by
// those who put its jobs and those who perform them:
//
//	var Thumbnail = asyncnats.Define[Image, URL]("image.thumbnail")
//
// A [Call] is a task with its argument and options: a value, not yet queued.
// [Put] makes a [Job] of it, which is durable once Put has returned:
//
//	client, err := asyncnats.Connect(ctx, nc, asyncnats.Config{})
//	media := client.Queue("media")
//	thumb, err := asyncnats.Put(ctx, media, Thumbnail.Call(Image{"cat.png"}))
//	url, err := thumb.Wait(ctx)
//
// The process that performs it brings the function:
//
//	d, err := dispatcher.New(nc, dispatcher.Config{
//		Queues:   []string{"media"},
//		Handlers: []job.Handler{Thumbnail.Handle(thumbnail)},
//	})
//	err = d.Run(ctx)
//
// In a handler [Self] is the job that is performed, [Report] says how far it is, and
// [Answer] answers what others [Ask] it. Whoever has a job's handle may set and read
// its annotations: [Job.Annotate].
//
// # Compositions
//
// [Parallel], [Serial] and [Then] make one call of several, nested at will; a handler
// that [Task.HandleCall] makes returns a call in place of a result. What waits for other
// jobs holds no place in an agent and no slot of a quota. [Call.OnSuccess],
// [Call.OnFailure] and [Call.OnDone] say what is put when a job has its outcome, which
// that takes; types are checked when the program is compiled.
//
//	thumbs := asyncnats.Parallel(Thumbnail.Call(a), Thumbnail.Call(b))
//	album, err := asyncnats.Put(ctx, media, asyncnats.Then(thumbs, Album).OnFailure(Page))
//
// # Guarantees
//
// A job whose Put returned without error is performed at least once, or ends
// in a Failure that says why not. Exactly one outcome is recorded. A task whose
// Retry is Never is performed at most once. Callbacks start at least once after the
// outcome, and change nothing of it. A composition has one outcome, and each of its
// parts one, wherever a process dies.
//
// # Limits
//
// Exactly-once execution is not promised: a worker may die between its work
// and the record of it. Order is that of puts within one task; there is none
// across tasks. docs/design.md says more.
package asyncnats
