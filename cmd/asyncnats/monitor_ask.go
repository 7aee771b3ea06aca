package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/asyncnats/asyncnats/dispatcher"
)

// quiet is how long after one answer another is waited for.
const quiet = 300 * time.Millisecond

// respondent is a dispatcher that can be asked.
type respondent struct {
	UUID, Host, PID string
	subjects        map[string]string // by endpoint
}

// reply is a dispatcher's answer.
type reply[T any] struct {
	from   respondent
	answer T
	data   json.RawMessage
}

// discover finds the dispatchers of a namespace, or the one that is meant, sorted
// by UUID: they are NATS micro services.
func discover(ctx context.Context, nc *nats.Conn, namespace string, only whom) ([]respondent, error) {
	subject, err := micro.ControlSubject(micro.InfoVerb, dispatcher.ServiceName, "")
	if err != nil {
		return nil, err
	}
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("look for dispatchers: %w", err)
	}
	defer sub.Unsubscribe()
	if err := nc.PublishRequest(subject, inbox, nil); err != nil {
		return nil, fmt.Errorf("look for dispatchers: %w", err)
	}
	var found []respondent
	for first := true; ; first = false {
		msg, err := nextAnswer(ctx, sub, first)
		if err != nil && first && ctx.Err() != nil {
			return nil, &exitError{exitNotFound, fmt.Errorf("dispatchers are there and do not answer: %w", ctx.Err())}
		}
		if err != nil || msg.Header.Get("Status") == "503" {
			break
		}
		if r, ok := readInfo(msg.Data, namespace); ok && strings.HasPrefix(r.UUID, string(only)) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b respondent) int { return cmp.Compare(a.UUID, b.UUID) })
	switch {
	case only == "":
	case len(found) == 0:
		return nil, &exitError{exitNotFound, fmt.Errorf("no dispatcher %s answers in namespace %s (asyncnats monitor status shows those that do)", only, namespace)}
	case len(found) > 1:
		return nil, usagef("dispatcher %s: may be %s or %s: give more of its UUID", only, found[0].UUID, found[1].UUID)
	}
	return found, nil
}

// nextAnswer waits for an answer: for the first as long as ctx allows.
func nextAnswer(ctx context.Context, sub *nats.Subscription, first bool) (*nats.Msg, error) {
	if first {
		return sub.NextMsgWithContext(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// readInfo reads what a micro service says of itself. ok is false where it is not
// a dispatcher of the namespace.
func readInfo(data []byte, namespace string) (r respondent, ok bool) {
	var info micro.Info
	if json.Unmarshal(data, &info) != nil || info.Metadata["namespace"] != namespace {
		return respondent{}, false
	}
	r = respondent{UUID: info.Metadata["uuid"], Host: info.Metadata["host"], PID: info.Metadata["pid"], subjects: make(map[string]string)}
	for _, endpoint := range info.Endpoints {
		r.subjects[endpoint.Name] = endpoint.Subject
	}
	return r, true
}

// askAll asks dispatchers at the same time.
func askAll[T any](ctx context.Context, nc *nats.Conn, them []respondent, verb string, q dispatcher.Query) (replies []reply[T], err error) {
	answers := make([]*reply[T], len(them))
	errs := make([]error, len(them))
	var all sync.WaitGroup
	for i, each := range them {
		all.Go(func() { answers[i], errs[i] = ask[T](ctx, nc, each, verb, q) })
	}
	all.Wait()
	for _, answer := range answers {
		if answer != nil {
			replies = append(replies, *answer)
		}
	}
	return replies, verdict(len(replies), slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
}

func ask[T any](ctx context.Context, nc *nats.Conn, who respondent, verb string, q dispatcher.Query) (*reply[T], error) {
	request, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	msg, err := nc.RequestWithContext(ctx, who.subjects[verb], request)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, nil // it stopped a moment ago
	case err != nil:
		return nil, fmt.Errorf("dispatcher %s does not answer: %w", who.UUID, err)
	}
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
		return nil, fmt.Errorf("dispatcher %s: %w", who.UUID, &refusal{code, msg.Header.Get(micro.ErrorHeader)})
	}
	r := reply[T]{from: who, data: msg.Data}
	if err := json.Unmarshal(msg.Data, &r.answer); err != nil {
		return nil, fmt.Errorf("dispatcher %s: answer cannot be read: %w", who.UUID, err)
	}
	return &r, nil
}
