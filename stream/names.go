package stream

import (
	"errors"
	"fmt"
	"strings"

	"github.com/asyncnats/asyncnats/job"
)

// Every name on the server is made and read in this file.
//
//	async.<queue>.meta                the first message: what this queue is
//	async.<queue>.job.<lane>.<id>     a pending job
//	async.<queue>.later.<lane>.<id>   a schedule that will become that job
//	async.<queue>.wait.<lane>.<id>    a job that waits for other jobs
//	async.<queue>.parts.<id>.<nonce>.<chunk>  parts of a job that waits, not put yet
//	async.<queue>.timer.<kind>.<of>.<nonce>  a schedule that the dispatchers act upon
//	async.<queue>.due.<kind>.<of>.<nonce>    the same when it has fired
//	async.<queue>.done.<id>           not stored: an outcome was recorded
//	async.<queue>.ctl.<verb>          not stored: questions to dispatchers
//	async.<queue>.ctl.ask.<id>.<name> not stored: questions to a job's handler
//	async.<queue>.event.<what>        not stored: what happened
//	async.$dispatcher.<uuid>.<verb>   not stored: questions to one dispatcher

// DefaultNamespace is the namespace used where none is named.
const DefaultNamespace = "async"

// Lane is one disjoint part of a queue: the jobs of one task and one priority
// that name the same quotas. Lanes can be compared.
type Lane struct {
	Task     string
	Priority job.Priority
	// To is the one dispatcher that takes jobs from the lane; empty for any.
	To     string
	quotas string // as in the token
}

const (
	// quotaMark stands before each quota's name in a lane's token.
	quotaMark = "=="
	// priorityMark stands before a priority that is not normal.
	priorityMark = "==="
	// toMark stands before the UUID of the one dispatcher that takes from the lane.
	toMark = "===="
)

// LaneOf returns the lane of the jobs of a task and a priority that name these
// quotas, which are sorted.
func LaneOf(task string, quotas []string, priority job.Priority) Lane {
	lane := Lane{Task: task, Priority: priority}
	for _, name := range quotas {
		lane.quotas += quotaMark + name
	}
	return lane
}

// Quotas lists the quotas that the lane's jobs name, sorted; nil for none.
func (l Lane) Quotas() []string {
	if l.quotas == "" {
		return nil
	}
	return strings.Split(l.quotas, quotaMark)[1:]
}

// Token is the lane as one token, legal in a subject, in a consumer name and
// in a KV key alike: the task with '=' for its dots, each quota after "==", and
// a priority that is not normal after "===", and the dispatcher that alone takes
// from it after "====".
func (l Lane) Token() string {
	token := taskToken(l.Task) + l.quotas
	if l.Priority != job.Normal {
		token += priorityMark + l.Priority.String()
	}
	if l.To != "" {
		token += toMark + l.To
	}
	return token
}

// ParseLane reads what Token writes, and nothing else.
func ParseLane(token string) (Lane, error) {
	shared, to, addressed := strings.Cut(token, toMark)
	names, priority, _ := strings.Cut(shared, priorityMark)
	parts := strings.Split(names, quotaMark)
	level, err := job.ParsePriority(priority)
	lane := LaneOf(taskOf(parts[0]), parts[1:], level)
	if lane.To = to; addressed {
		err = errors.Join(err, job.CheckDispatcher(to))
	}
	err = errors.Join(err, job.CheckTask(lane.Task), job.CheckQuotas(lane.Task, parts[1:]))
	if err != nil || lane.Token() != token {
		return Lane{}, fmt.Errorf("illegal lane %q: must be a task with '=' for its dots, each of its quotas after '==', sorted, high or low after '===', and a dispatcher's UUID after '====', like image=thumbnail==gpu===high", token)
	}
	return lane, nil
}

// taskToken writes a task with '=' for its dots.
func taskToken(task string) string { return strings.ReplaceAll(task, ".", "=") }

// taskOf reads what taskToken writes.
func taskOf(token string) string { return strings.ReplaceAll(token, "=", ".") }

// names makes the names of one queue.
type names struct {
	namespace, queue string
}

func (n names) subject(parts ...string) string {
	return n.namespace + "." + n.queue + "." + strings.Join(parts, ".")
}

func (n names) stream() string { return streamPrefix(n.namespace) + n.queue }

func (n names) meta() string { return n.subject("meta") }

// stored lists the subjects of the queue's stream.
func (n names) stored() []string {
	return []string{n.meta(), n.subject("job.*.*"), n.subject("later.*.*"), n.waits(), n.chunks(), n.timers(), n.dues()}
}

func (n names) job(lane Lane, id job.ID) string {
	return n.subject("job", lane.Token(), string(id))
}

func (n names) later(lane Lane, id job.ID) string {
	return n.subject("later", lane.Token(), string(id))
}

// wait is the subject of a job that waits for others.
func (n names) wait(lane Lane, id job.ID) string {
	return n.subject("wait", lane.Token(), string(id))
}

// waits matches every job that waits for others.
func (n names) waits() string { return n.subject("wait.*.*") }

// chunk is the subject of some parts of a job. It is as deep as that of a timer.
func (n names) chunk(id job.ID, base job.Nonce, chunk string) string {
	return n.subject("parts", string(id), base.String(), chunk)
}

// chunksOf matches all parts of a job.
func (n names) chunksOf(id job.ID) string { return n.subject("parts", string(id), "*", "*") }

// chunks matches the parts of all jobs.
func (n names) chunks() string { return n.subject("parts.*.*.*") }

// timer is the subject of a timer until it fires. It is deeper than those of
// jobs, so that no wildcard finds it that looks for an ID.
func (n names) timer(t Timer) string { return n.subject("timer", t.token()) }

// due is the subject of a timer that has fired.
func (n names) due(t Timer) string { return n.subject("due", t.token()) }

// eitherWay matches a timer before it fires and after.
func (n names) eitherWay(t Timer) string { return n.subject("*", t.token()) }

func (n names) timers() string { return n.subject("timer.*.*.*") }

func (n names) dues() string { return n.subject("due.*.*.*") }

// dueConsumer is the durable consumer of timers that have fired. No lane is
// called like that.
const dueConsumer = "=due"

// parseDue reads what due writes.
func (n names) parseDue(subject string) (t Timer, err error) {
	rest, ok := strings.CutPrefix(subject, n.subject("due."))
	parts := strings.Split(rest, ".")
	if ok && len(parts) == 3 {
		t.Kind, t.Of = TimerKind(parts[0]), parts[1]
		err = t.Nonce.UnmarshalText([]byte(parts[2]))
	}
	if !ok || len(parts) != 3 || err != nil {
		return Timer{}, fmt.Errorf("subject %q is not that of a timer of queue %s", subject, n.queue)
	}
	return t, nil
}

// lane is the filter of a lane's consumer.
func (n names) lane(lane Lane) string { return n.subject("job", lane.Token(), "*") }

// jobs matches every pending job.
func (n names) jobs() string { return n.subject("job.*.*") }

// laters matches every scheduled job.
func (n names) laters() string { return n.subject("later.*.*") }

// anywhere matches every stored subject of an ID.
func (n names) anywhere(id job.ID) string { return n.subject("*", "*", string(id)) }

func (n names) done(id job.ID) string { return n.subject("done", string(id)) }

// quotas is where gates into the queue's quotas talk to each other.
func (n names) quotas() string { return n.subject("ctl.quota") }

// cancel is where it is told that a job was cancelled.
func (n names) cancel() string { return n.subject("ctl.cancel") }

func (n names) who() string { return n.subject("ctl.who") }

// ask is where the handler of a job is asked something.
func (n names) ask(id job.ID, name string) string { return n.subject("ctl.ask", string(id), name) }

// note is the key of an annotation of a job, "*" for all of them.
func (n names) note(id job.ID, name string) string {
	return n.queue + "." + string(id) + "." + name
}

// notes matches the keys of all annotations of the queue's jobs.
func (n names) notes() string { return n.note("*", "*") }

// noteName reads the name in what note writes.
func noteName(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// record is the key of a job's record.
func (n names) record(id job.ID) string { return n.queue + "." + string(id) }

// records matches the keys of all records of the queue.
func (n names) records() string { return n.queue + ".*" }

// dead is the key of what is kept of a job that failed: its task is written as
// in a lane.
func (n names) dead(task string, id job.ID) string {
	return n.queue + "." + taskToken(task) + "." + string(id)
}

// deadOf matches the keys of what is kept of failed jobs of a task, or of all
// for the empty one.
func (n names) deadOf(task string) string {
	if task == "" {
		task = "*"
	}
	return n.dead(task, "*")
}

// deadJob matches the keys of what is kept of failed jobs of an ID.
func (n names) deadJob(id job.ID) string { return n.dead("*", id) }

// deadID reads the ID in what dead writes.
func (n names) deadID(key string) (job.ID, error) {
	parts := strings.Split(key, ".")
	if len(parts) != 3 || parts[0] != n.queue {
		return "", fmt.Errorf("key %q is not that of a failed job of queue %s", key, n.queue)
	}
	return job.ParseID(parts[2])
}

func (n names) laneKey(lane Lane) string { return "lane." + n.queue + "." + lane.Token() }

func (n names) laneKeys() string { return "lane." + n.queue + ".*" }

// ofQueue matches the keys of everything that the dispatchers' bucket holds of
// the queue: lane.<queue>.…, pause.<queue>.… and, from package agents,
// agent.<queue>.… and installed.<queue>.…, and hears.<queue>.….
func (n names) ofQueue() string { return "*." + n.queue + ".>" }

// pause is the key of a pause: of a task, written as in a lane, or of the queue.
func (n names) pause(task string) string {
	if task == "" {
		return "pause." + n.queue + "." + wholeQueue
	}
	return "pause." + n.queue + "." + taskToken(task)
}

// hearer is the key that says that a dispatcher performs broadcasts.
func (n names) hearer(dispatcher string) string { return "hears." + n.queue + "." + dispatcher }

func (n names) hearers() string { return n.hearer("*") }

// wholeQueue stands for all tasks; no task is written like that.
const wholeQueue = "="

func (n names) pauses() string { return "pause." + n.queue + ".*" }

// pausedTask reads what pause writes.
func (n names) pausedTask(key string) string {
	token := strings.TrimPrefix(key, "pause."+n.queue+".")
	if token == wholeQueue {
		return ""
	}
	return taskOf(token)
}

// parseJob reads the lane and the ID of a stored subject.
func (n names) parseJob(subject string) (Lane, job.ID, error) {
	rest, ok := strings.CutPrefix(subject, n.namespace+"."+n.queue+".")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 3 {
		return Lane{}, "", fmt.Errorf("subject %q is not that of a job in queue %s", subject, n.queue)
	}
	lane, err := ParseLane(parts[1])
	if err != nil {
		return Lane{}, "", err
	}
	id, err := job.ParseID(parts[2])
	return lane, id, err
}

// cron is the key of a recurring job.
func (n names) cron(name string) string { return "cron." + n.queue + "." + name }

// event is where it is told what happened in the queue.
func (n names) event(what string) string { return n.subject("event", what) }

// toDispatcher is where one dispatcher is asked. No queue has a name like that.
func toDispatcher(namespace, dispatcher, verb string) string {
	return namespace + ".$dispatcher." + dispatcher + "." + verb
}

func streamPrefix(namespace string) string { return strings.ToUpper(namespace) + "_" }

func recordsBucket(namespace string) string { return streamPrefix(namespace) + "JOBS" }

// deadBucket is the bucket of what is kept of failed jobs.
func deadBucket(namespace string) string { return streamPrefix(namespace) + "DEAD" }

// notesBucket is the bucket of annotations.
func notesBucket(namespace string) string { return streamPrefix(namespace) + "NOTES" }

// quotasBucket is the bucket whose keys package quotas makes.
func quotasBucket(namespace string) string { return streamPrefix(namespace) + "QUOTAS" }

// dispatchersBucket is the bucket that packages agents and roster make keys of,
// too.
func dispatchersBucket(namespace string) string { return streamPrefix(namespace) + "DISPATCHERS" }
