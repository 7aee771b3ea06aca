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
//	async.<queue>.timer.<kind>.<of>.<nonce>  a schedule that the dispatchers act upon
//	async.<queue>.due.<kind>.<of>.<nonce>    the same when it has fired
//	async.<queue>.done.<id>           not stored: an outcome was recorded
//	async.<queue>.ctl.<verb>          not stored: questions to dispatchers
//	async.<queue>.event.<what>        not stored: what happened
//	async.$dispatcher.<uuid>.<verb>   not stored: questions to one dispatcher

// DefaultNamespace is the namespace used where none is named.
const DefaultNamespace = "async"

// Lane is one disjoint part of a queue: the jobs of one task that name the same
// quotas. Lanes can be compared.
type Lane struct {
	Task   string
	quotas string // as in the token
}

// quotaMark stands before each quota's name in a lane's token.
const quotaMark = "=="

// LaneOf returns the lane of the jobs of a task that name these quotas, which
// are sorted.
func LaneOf(task string, quotas []string) Lane {
	lane := Lane{Task: task}
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
// in a KV key alike: the task with '=' for its dots, and each quota after "==".
func (l Lane) Token() string { return strings.ReplaceAll(l.Task, ".", "=") + l.quotas }

// ParseLane reads what Token writes.
func ParseLane(token string) (Lane, error) {
	parts := strings.Split(token, quotaMark)
	lane := LaneOf(strings.ReplaceAll(parts[0], "=", "."), parts[1:])
	err := errors.Join(job.CheckTask(lane.Task), job.CheckQuotas(lane.Task, parts[1:]))
	if strings.Contains(token, ".") || err != nil {
		return Lane{}, fmt.Errorf("illegal lane %q: must be a task with '=' for its dots and each of its quotas after '==', sorted, like image=thumbnail==gpu", token)
	}
	return lane, nil
}

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
	return []string{n.meta(), n.subject("job.*.*"), n.subject("later.*.*"), n.subject("wait.*.*"), n.timers(), n.dues()}
}

func (n names) job(lane Lane, id job.ID) string {
	return n.subject("job", lane.Token(), string(id))
}

func (n names) later(lane Lane, id job.ID) string {
	return n.subject("later", lane.Token(), string(id))
}

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

// anywhere matches every stored subject of an ID.
func (n names) anywhere(id job.ID) string { return n.subject("*", "*", string(id)) }

func (n names) done(id job.ID) string { return n.subject("done", string(id)) }

// quotas is where gates into the queue's quotas talk to each other.
func (n names) quotas() string { return n.subject("ctl.quota") }

// cancel is where it is told that a job was cancelled.
func (n names) cancel() string { return n.subject("ctl.cancel") }

func (n names) who() string { return n.subject("ctl.who") }

// record is the key of a job's record.
func (n names) record(id job.ID) string { return n.queue + "." + string(id) }

// records matches the keys of all records of the queue.
func (n names) records() string { return n.queue + ".*" }

func (n names) laneKey(lane Lane) string { return "lane." + n.queue + "." + lane.Token() }

func (n names) laneKeys() string { return "lane." + n.queue + ".*" }

// ofQueue matches the keys of everything that the dispatchers' bucket holds of
// the queue: lane.<queue>.…, pause.<queue>.… and, from package agents,
// agent.<queue>.… and installed.<queue>.….
func (n names) ofQueue() string { return "*." + n.queue + ".>" }

// pause is the key of a pause: of a task, written as in a lane, or of the queue.
func (n names) pause(task string) string {
	if task == "" {
		return "pause." + n.queue + "." + wholeQueue
	}
	return "pause." + n.queue + "." + LaneOf(task, nil).Token()
}

// wholeQueue stands for all tasks; no task is written like that.
const wholeQueue = "="

func (n names) pauses() string { return "pause." + n.queue + ".*" }

// pausedTask reads what pause writes.
func (n names) pausedTask(key string) string {
	token := strings.TrimPrefix(key, "pause."+n.queue+".")
	if token == wholeQueue {
		return ""
	}
	return strings.ReplaceAll(token, "=", ".")
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

// quotasBucket is the bucket whose keys package quotas makes.
func quotasBucket(namespace string) string { return streamPrefix(namespace) + "QUOTAS" }

// dispatchersBucket is the bucket that packages agents and roster make keys of,
// too.
func dispatchersBucket(namespace string) string { return streamPrefix(namespace) + "DISPATCHERS" }
