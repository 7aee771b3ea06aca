package job

import (
	"fmt"
	"regexp"
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
	pattern *regexp.Regexp
	text    string
}

var (
	wordPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

	namespaceRule = rule{
		"namespace", regexp.MustCompile(`^[a-z0-9_-]{1,32}$`),
		"1 to 32 lower-case letters, digits, '-' or '_'",
	}
	queueRule = rule{"queue", wordPattern, "1 to 64 letters, digits, '-' or '_'"}
	agentRule = rule{"agent", wordPattern, "1 to 64 letters, digits, '-' or '_'"}
	quotaRule = rule{"quota", wordPattern, "1 to 64 letters, digits, '-' or '_'"}
	taskRule  = rule{
		"task", regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`),
		"1 to 128 letters, digits, '-' or '_', in parts joined by single dots, like image.thumbnail",
	}
	idRule = rule{
		"job ID", regexp.MustCompile(`^[A-Za-z0-9_/=-]{1,128}$`),
		"1 to 128 letters, digits, '-', '_', '/' or '='",
	}
)

func (r rule) check(name string, longest int) error {
	if len(name) > longest || !r.pattern.MatchString(name) {
		return &NameError{What: r.what, Name: name, Rule: r.text}
	}
	return nil
}

// CheckNamespace reports whether name may be a namespace. The error is a
// [*NameError].
func CheckNamespace(name string) error { return namespaceRule.check(name, 32) }

// CheckQueue reports whether name may be a queue's. The error is a
// [*NameError].
func CheckQueue(name string) error { return queueRule.check(name, 64) }

// CheckAgent reports whether name may be an agent's. The error is a
// [*NameError].
func CheckAgent(name string) error { return agentRule.check(name, 64) }

// CheckTask reports whether name may be a task's. The error is a
// [*NameError].
func CheckTask(name string) error { return taskRule.check(name, 128) }

// CheckQuota reports whether name may be a quota's. The error is a
// [*NameError].
func CheckQuota(name string) error { return quotaRule.check(name, 64) }
