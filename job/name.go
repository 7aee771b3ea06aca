package job

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// DefaultQueue is the queue used where none is named. zc.async calls its
// primary queue the empty string, which no subject can hold.
const DefaultQueue = "default"

// NameError says that a name cannot be used, and what the rule is.
type NameError struct {
	What string // what is being named: "queue", "task", …
	Name string // the refused name
	Rule string // the rule it breaks, as a sentence part: "1 to 64 letters, …"
}

// Error implements error.
func (e *NameError) Error() string {
	return fmt.Sprintf("illegal %s name %q: must be %s", e.What, e.Name, e.Rule)
}

// A rule is one kind of name: names become subject tokens, consumer names and
// KV keys, so the legal characters are those that all three accept.
type rule struct {
	what    string
	longest int
	extra   string // what it may contain beside letters and digits
	lower   bool   // without upper-case letters
	dotted  bool   // in parts joined by single dots
	text    string
}

var (
	namespaceRule = rule{
		what: "namespace", longest: 32, extra: "-_", lower: true,
		text: "1 to 32 lower-case letters, digits, '-' or '_'",
	}
	queueRule = word("queue")
	agentRule = word("agent")
	quotaRule = word("quota")
	cronRule  = word("recurring job")
	noteRule  = word("annotation")
	askRule   = word("question")
	taskRule  = rule{
		what: "task", longest: 128, extra: "-_", dotted: true,
		text: "1 to 128 letters, digits, '-' or '_', in parts joined by single dots, like image.thumbnail",
	}
	idRule = rule{
		what: "job ID", longest: 128, extra: "-_/=",
		text: "1 to 128 letters, digits, '-', '_', '/' or '='",
	}
)

func word(what string) rule {
	return rule{what: what, longest: 64, extra: "-_", text: "1 to 64 letters, digits, '-' or '_'"}
}

// check is called for every delivery, where a regular expression would be felt.
func (r rule) check(name string) error {
	if name == "" || len(name) > r.longest || !r.legal(name) {
		return &NameError{What: r.what, Name: name, Rule: r.text}
	}
	return nil
}

func (r rule) legal(name string) bool {
	part := 0 // length of the part so far
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', 'A' <= c && c <= 'Z' && !r.lower, strings.IndexByte(r.extra, c) >= 0:
			part++
		case c == '.' && r.dotted && part > 0:
			part = 0
		default:
			return false
		}
	}
	return part > 0
}

// CheckNamespace reports whether name may be a namespace. The error is a
// [*NameError].
func CheckNamespace(name string) error { return namespaceRule.check(name) }

// CheckQueue reports whether name may be a queue's. The error is a
// [*NameError].
func CheckQueue(name string) error { return queueRule.check(name) }

// CheckAgent reports whether name may be an agent's. The error is a
// [*NameError].
func CheckAgent(name string) error { return agentRule.check(name) }

// CheckRecurring reports whether name may be a recurring job's. The error is a
// [*NameError].
func CheckRecurring(name string) error { return cronRule.check(name) }

// CheckAnnotation reports whether name may be an annotation's. The error is a
// [*NameError].
func CheckAnnotation(name string) error { return noteRule.check(name) }

// CheckQuestion reports whether name may be that of what a job answers. The error
// is a [*NameError].
func CheckQuestion(name string) error { return askRule.check(name) }

// CheckDispatcher reports whether name may be a dispatcher's: a UUID as text, in lower
// case. The error is a [*NameError].
func CheckDispatcher(name string) error {
	if id, err := uuid.Parse(name); err != nil || id.String() != name {
		return &NameError{What: "dispatcher", Name: name, Rule: "a UUID in lower case, with hyphens"}
	}
	return nil
}

// CheckTask reports whether name may be a task's. The error is a
// [*NameError].
func CheckTask(name string) error { return taskRule.check(name) }

// CheckQuota reports whether name may be a quota's. The error is a
// [*NameError].
func CheckQuota(name string) error { return quotaRule.check(name) }
