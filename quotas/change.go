package quotas

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/asyncnats/asyncnats/job"
	"github.com/asyncnats/asyncnats/kv"
)

// An administrator changes a quota by compare-and-set, as everybody does. But where
// jobs start and end all the time, and the administrator is far away, there is always
// a write of the keeper's between the reading and the write that rests on it. So whoever
// was refused asks the keeper, as a gate does, and once in a term: one of an older
// release does not know how a setting is changed, and another may be dead. Who gets no
// answer goes on by compare-and-set, and ends the term by that, so that what was asked
// for is either done by then or never will be.

// change changes a quota, and gives slots that became free to waiters in the same
// write. A quota without a value is a removed one.
func (s *Set) change(ctx context.Context, verb, name string, f func(*Slots) error) error {
	step := fmt.Sprintf("%s quota %s", verb, name)
	if err := job.CheckQuota(name); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	var asked plea
	for refused := false; ; refused = true {
		now, revision, stored, err := s.read(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		if len(asked.ops) > 0 && done(asked.ops, now) {
			return nil
		}
		next := now.clone()
		next.expire(stored)
		if err := f(&next); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		if refused && now.Keeper != "" && now.Term != asked.term {
			var yes bool
			if asked, yes = s.ask(ctx, name, now, revision, wishes(now, next)); yes {
				return nil
			}
		}
		next.serve(revision)
		if len(asked.ops) > 0 && next.Term == asked.term {
			next.Term++
		}
		revision, err = s.write(ctx, name, next, revision)
		if errors.Is(err, kv.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		s.tell(name, next, revision)
		return nil
	}
}

// plea is what a keeper was asked for and has not done.
type plea struct {
	term uint64 // in which it is not asked again; 0 for none
	ops  []op   // that it may do yet
}

// wishes lists what makes of a quota another that has another setting, or fewer
// claims.
func wishes(was, be Slots) (ops []op) {
	if a, b := was.setting(), be.setting(); a != b {
		ops = append(ops, op{Kind: opSet, Was: &a, Be: &b})
	}
	left := make(map[job.Nonce]bool)
	for _, c := range slices.Concat(be.Holders, be.Waiters) {
		left[c.Nonce] = true
	}
	for _, c := range slices.Concat(was.Holders, was.Waiters) {
		if !left[c.Nonce] {
			ops = append(ops, op{Kind: opLeave, Claim: Claim{Nonce: c.Nonce, Token: c.Token}})
		}
	}
	return ops
}

// done reports whether nothing is left to do, whoever did it.
func done(ops []op, now Slots) bool {
	now = now.clone()
	return !slices.ContainsFunc(ops, func(o op) bool {
		if o.Kind == opSet {
			return now.setting() != *o.Be
		}
		return now.do(o, 0)
	})
}

// ask has the keeper do something, and reports whether that is done.
func (s *Set) ask(ctx context.Context, name string, now Slots, revision uint64, ops []op) (asked plea, yes bool) {
	asked = plea{term: now.Term, ops: ops}
	data, err := msgpack.Marshal(request{Quota: name, Term: now.Term, Revision: revision, Ops: ops})
	if err != nil {
		return asked, false
	}
	ctx, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	answer, err := s.conn.RequestWithContext(ctx, s.subjectOf(now.Keeper), data)
	if err != nil {
		return asked, false
	}
	var told news
	if msgpack.Unmarshal(answer.Data, &told) != nil || told.Revision == 0 {
		return plea{}, false // its term is over
	}
	if now, err = codec.Decode(told.Value); err != nil || done(ops, now) {
		return plea{}, err == nil
	}
	asked.ops = nil
	for _, o := range ops {
		if now.do(o, told.Revision) {
			return asked, false // it does not know how
		}
	}
	return plea{}, false // somebody else has changed it
}

// tell tells all gates. One that is not reached reads the quota from time to
// time.
func (s *Set) tell(name string, now Slots, revision uint64) {
	value, err := codec.Encode(now)
	if err != nil {
		return
	}
	if data, err := msgpack.Marshal(news{Quota: name, Revision: revision, Value: value}); err == nil {
		_ = s.conn.Publish(s.subject, data)
	}
}
