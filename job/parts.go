package job

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// Form is how the parts of a composition follow each other, and what becomes of
// their outcomes.
type Form string

const (
	// FormParallel: parts begin at once. The result is the list of their outcomes, in
	// order; a part that failed is one of them.
	FormParallel Form = "parallel"
	// FormSerial: parts begin one after another, whether they succeed or not. The
	// result is as for FormParallel.
	FormSerial Form = "serial"
	// FormThen: parts begin one after another, and each takes the result of the one
	// before. The outcome is that of the last or, where one fails, its Failure.
	FormThen Form = "then"
	// FormBroadcast: one call, which each of several dispatchers performs; so there
	// are as many parts. The result is a map of their outcomes, by dispatcher.
	FormBroadcast Form = "broadcast"
	// FormDelegate: one part, whose outcome is that of the job.
	FormDelegate Form = "delegate"
)

// Parts is what a job consists of that waits for other jobs, and how far they
// have come. That of a composition travels in its message, and then in its
// record, where it is changed by compare-and-set only.
type Parts struct {
	Form Form `msgpack:"form" json:"form"`
	// Count is how many parts there are.
	Count int `msgpack:"count" json:"count"`
	// Calls are the first parts. The others are stored beside the job, in Chunks. The
	// record of a composition has no Calls: they are in its message.
	Calls  []Call  `msgpack:"calls,omitempty" json:"-"`
	Chunks []Chunk `msgpack:"chunks,omitempty" json:"-"`
	// Queues are those, other than the job's own, that parts are put on.
	Queues []string `msgpack:"queues,omitempty" json:"queues,omitempty"`
	// Beside says that chunks are stored beside the job: of its own parts, or of
	// theirs.
	Beside bool `msgpack:"beside,omitempty" json:"beside,omitempty"`
	// To are the dispatchers that perform a broadcast, by UUID: part i is that of the
	// ith.
	To []string `msgpack:"to,omitempty" json:"to,omitempty"`
	// Addressed says that To is known: it is when a broadcast is put, or begins as a
	// part.
	Addressed bool `msgpack:"addressed,omitempty" json:"addressed,omitempty"`
	// At is the job beside which the chunks are stored; empty is the job itself.
	At ID `msgpack:"at,omitempty" json:"at,omitempty"`
	// Base is what the IDs and nonces of the parts are made of: the nonce of a
	// composition, [Nonce.DelegateBase] of another job.
	Base Nonce `msgpack:"base,omitempty" json:"base"`
	// Put is how many parts of a parallel were put; all before it, in order.
	Put int `msgpack:"put,omitempty" json:"put,omitempty"`
	// Stopped is how many parts of a parallel that is over were looked after, which were
	// not completed; all before it, in order.
	Stopped int `msgpack:"stopped,omitempty" json:"-"`
	// Done has a bit for each part that is completed: part 0 is the lowest of the
	// first byte. It may be shorter than Count says.
	Done []byte `msgpack:"done,omitempty" json:"-"`
}

// Chunk is some parts in a row, stored as one message.
type Chunk struct {
	// Name tells it from others of the same job.
	Name  string `msgpack:"name"`
	Count int    `msgpack:"count"`
	// Added says that the parts were added later, and so are stored beside the job
	// itself.
	Added bool `msgpack:"added,omitempty"`
}

// MaxParts is how many parts a composition may have: a bit for each takes half of
// the 1 MB that a record may have where the server is not configured otherwise.
const MaxParts = 1 << 22

// Check reports what is wrong with parts that come from elsewhere.
func (p Parts) Check() error {
	switch p.Form {
	case FormParallel, FormSerial, FormThen, FormDelegate:
	case FormBroadcast:
		return p.checkBroadcast()
	default:
		return fmt.Errorf("unknown composition %q: must be %s, %s or %s", p.Form, FormParallel, FormSerial, FormThen)
	}
	if p.Count > MaxParts {
		return fmt.Errorf("composition of %d parts: must be %d at most, of which some may be compositions themselves", p.Count, MaxParts)
	}
	stored := len(p.Calls)
	for _, chunk := range p.Chunks {
		if chunk.Count <= 0 || chunk.Count > MaxParts || chunk.Name == "" {
			return fmt.Errorf("composition has a chunk %q of %d parts: must have a name, and 1 to %d", chunk.Name, chunk.Count, MaxParts)
		}
		stored += chunk.Count
	}
	if stored != p.Count {
		return fmt.Errorf("composition of %d parts has %d", p.Count, stored)
	}
	if p.Count == 0 && (p.Form == FormThen || p.Form == FormDelegate) {
		return fmt.Errorf("composition %s has no part: its outcome is that of its last", p.Form)
	}
	for i, call := range p.Calls {
		if err := call.Check(); err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
	}
	return nil
}

func (p Parts) checkBroadcast() error {
	if len(p.Calls) != 1 || len(p.Chunks) > 0 || p.Count != len(p.To) {
		return fmt.Errorf("broadcast of %d calls to %d dispatchers has %d parts: must be one call, and a part for each dispatcher", len(p.Calls), len(p.To), p.Count)
	}
	if p.Calls[0].Parts != nil {
		return fmt.Errorf("broadcast of a %s: must be of a task, which may return a composition", p.Calls[0].Task)
	}
	if p.Calls[0].Queue != "" {
		return fmt.Errorf("broadcast of a call for queue %s: name the queue at the broadcast", p.Calls[0].Queue)
	}
	return p.Calls[0].Check()
}

// Address returns the parts of a broadcast to these dispatchers.
func (p Parts) Address(to []string) Parts {
	p.To, p.Count, p.Addressed = to, len(to), true
	return p
}

// Sequential reports whether a part begins only when the one before is completed.
func (p Parts) Sequential() bool { return p.Form != FormParallel && p.Form != FormBroadcast }

// PartID is the ID of a part: of Base and its number, from 0 on.
func (p Parts) PartID(i int) ID { return ID("part/" + p.Base.String() + "/" + strconv.Itoa(i)) }

// PartNonce is the nonce of a part: the beginning of the SHA-256 of Base and the
// number, as 64 bits, big-endian.
func (p Parts) PartNonce(i int) Nonce { return p.Base.derive("part", i) }

// derive makes a nonce of n, what it is for, and a number.
func (n Nonce) derive(what string, i int) Nonce {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(append(n[:], what...), uint64(i)))
	return Nonce(sum[:len(n)])
}

// CallbackID is the ID of the callback of that number of job n.
func (n Nonce) CallbackID(i int) ID { return ID("callback/" + n.String() + "/" + strconv.Itoa(i)) }

// CallbackNonce is its nonce: see [Parts.PartNonce].
func (n Nonce) CallbackNonce(i int) Nonce { return n.derive("callback", i) }

// DelegateBase is what the ID and nonce of the call that an attempt at job n
// returned are made of.
func (n Nonce) DelegateBase(token Token) Nonce { return n.derive("delegate", int(token)) }

// CopyID is the ID of a copy of broadcast n that is put for a dispatcher later.
func (n Nonce) CopyID(dispatcher string) ID { return ID("copy/" + n.String() + "/" + dispatcher) }

// CopyNonce is its nonce.
func (n Nonce) CopyNonce(dispatcher string) Nonce { return n.derive("copy "+dispatcher, 0) }

// IsDone reports whether a part is completed.
func (p Parts) IsDone(i int) bool {
	return i/8 < len(p.Done) && p.Done[i/8]&(1<<(i%8)) != 0
}

// SetDone returns the parts with some more completed. fresh says which were not
// yet. Numbers that no part has are passed over.
func (p Parts) SetDone(parts ...int) (after Parts, fresh []int) {
	for _, i := range parts {
		if i < 0 || i >= p.Count || p.IsDone(i) {
			continue
		}
		if fresh == nil {
			done := make([]byte, (p.Count+7)/8)
			copy(done, p.Done)
			p.Done = done
		}
		p.Done[i/8] |= 1 << (i % 8)
		fresh = append(fresh, i)
	}
	return p, fresh
}

// Completed is how many parts are.
func (p Parts) Completed() int {
	n := 0
	for _, b := range p.Done {
		n += bits.OnesCount8(b)
	}
	return n
}

// AllDone reports whether all parts are completed.
func (p Parts) AllDone() bool { return p.Completed() == p.Count }

// First is the first part that is not completed; Count where all are.
func (p Parts) First() int {
	for i := range p.Count {
		if !p.IsDone(i) {
			return i
		}
	}
	return p.Count
}

// Begun is how many parts may have been put, all before it, where whoever puts those of
// a parallel puts up to that many at once.
func (p Parts) Begun(atOnce int) int {
	if p.Sequential() {
		return min(p.First()+1, p.Count)
	}
	return min(p.Put+atOnce, p.Count)
}

// Undone lists the parts that may have been put, are not completed, and were not
// stopped; see [Parts.Begun].
func (p Parts) Undone(atOnce int) []int {
	var undone []int
	for i := p.Stopped; i < p.Begun(atOnce); i++ {
		if !p.IsDone(i) {
			undone = append(undone, i)
		}
	}
	return undone
}

// Grow returns the parts with more of them, in chunks.
func (p Parts) Grow(more ...Chunk) Parts {
	p.Chunks = slices.Concat(p.Chunks, more)
	for _, chunk := range more {
		p.Count += chunk.Count
	}
	return p
}

// Added reports whether chunks were added whose names begin like that.
func (p Parts) Added(prefix string) bool {
	return slices.ContainsFunc(p.Chunks, func(c Chunk) bool { return c.Added && strings.HasPrefix(c.Name, prefix) })
}

// QueuesOf returns queues with those that calls name, each once.
func QueuesOf(queues []string, calls []Call) []string {
	for _, call := range calls {
		if call.Queue != "" && !slices.Contains(queues, call.Queue) {
			queues = append(slices.Clone(queues), call.Queue)
		}
	}
	return queues
}

// Called is a callback of a job that was put, as the job's record has it.
type Called struct {
	On    On     `msgpack:"on" json:"on"`
	Queue string `msgpack:"queue,omitempty" json:"queue,omitempty"` // empty: the job's own
	ID    ID     `msgpack:"id" json:"id"`
	Task  string `msgpack:"task" json:"task"`
}

// Parent says for which other job a job was put.
type Parent struct {
	Queue string `msgpack:"queue" json:"queue"`
	ID    ID     `msgpack:"id" json:"id"`
	Nonce Nonce  `msgpack:"nonce" json:"nonce"`
	// Callback says that the job is a callback of the other; else it is a part of
	// it, for which the other waits.
	Callback bool `msgpack:"callback,omitempty" json:"callback,omitempty"`
	// Number is which of them it is, from 0 on.
	Number int `msgpack:"number,omitempty" json:"number"`
}

// Waits reports whether the other job waits for this one. It may be nil.
func (p *Parent) Waits() bool { return p != nil && !p.Callback }
