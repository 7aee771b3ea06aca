package dispatcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const (
	// ServiceName is what the NATS micro service of every dispatcher is called.
	ServiceName = "asyncnats"
	// serviceVersion is that of the questions and answers, as docs/monitoring.md
	// describes them.
	serviceVersion = "0.1.0"
)

// Codes of errors that the service answers with, as those of HTTP.
const (
	CodeBadQuery  = "400" // an [ErrQuery]
	CodeForgotten = "404" // an [ErrForgotten]
	CodeTooLarge  = "413" // the answer is larger than the server takes
)

// answers are the service's endpoints: each is what it is called, and the method
// that answers.
var answers = []struct {
	verb   string
	answer func(*Dispatcher, Query) (any, error)
}{
	{"status", func(d *Dispatcher, q Query) (any, error) { return d.Status(), q.only() }},
	{"jobs", func(d *Dispatcher, q Query) (any, error) { return d.Jobs(q) }},
	{"job", func(d *Dispatcher, q Query) (any, error) { return d.Job(q) }},
	{"jobstats", func(d *Dispatcher, q Query) (any, error) { return d.JobStats(q) }},
	{"poll", func(d *Dispatcher, q Query) (any, error) { return d.Poll(q) }},
	{"polls", func(d *Dispatcher, q Query) (any, error) { return d.Polls(q) }},
}

// answer has the dispatcher answer as a NATS micro service until stop is called.
// It answers from memory, in goroutines of its own. Where the service cannot be
// set up that is logged, and jobs are performed all the same.
func (s *site) answer() (stop func()) {
	host, _ := os.Hostname()
	service, err := micro.AddService(s.d.nc, micro.Config{
		Name: ServiceName, Version: serviceVersion, Description: "asyncnats dispatcher",
		Metadata: map[string]string{
			"uuid": s.d.UUID(), "host": host, "pid": strconv.Itoa(os.Getpid()), "namespace": s.namespace.Name(),
		},
	})
	if err != nil {
		s.d.log.Error("nobody can ask this dispatcher what it does", "err", err)
		return func() {}
	}
	for _, each := range answers {
		handler := micro.HandlerFunc(func(r micro.Request) { s.d.reply(r, each.answer) })
		subject := s.namespace.ToDispatcher(s.d.UUID(), each.verb)
		if err := service.AddEndpoint(each.verb, handler, micro.WithEndpointSubject(subject)); err != nil {
			s.d.log.Error("nobody can ask this dispatcher for its "+each.verb, "err", err)
		}
	}
	return func() {
		if err := service.Stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			s.d.log.Debug("service not stopped", "err", err)
		}
	}
}

// reply answers a request.
func (d *Dispatcher) reply(r micro.Request, answer func(*Dispatcher, Query) (any, error)) {
	data, code, err := d.compose(r.Data(), answer)
	if err == nil {
		err = r.Respond(data)
	} else {
		err = r.Error(code, err.Error(), nil)
	}
	if err != nil {
		d.log.Debug("question not answered", "err", err) // the asker does not wait for ever
	}
}

func (d *Dispatcher) compose(request []byte, answer func(*Dispatcher, Query) (any, error)) (data []byte, code string, err error) {
	q, err := parseQuery(request)
	if err != nil {
		return nil, CodeBadQuery, err
	}
	shown, err := answer(d, q)
	switch {
	case errors.Is(err, ErrForgotten):
		return nil, CodeForgotten, err
	case err != nil:
		return nil, CodeBadQuery, err
	}
	if data, err = json.Marshal(shown); err != nil {
		return nil, CodeBadQuery, err
	}
	if most := d.nc.MaxPayload(); int64(len(data)) > most {
		return nil, CodeTooLarge, fmt.Errorf("the answer has %d bytes, and the server takes %d: ask for less, by queue, agent or count", len(data), most)
	}
	return data, "", nil
}

// parseQuery reads a request: nothing, or a Query as a JSON object.
func parseQuery(request []byte) (q Query, err error) {
	if len(bytes.TrimSpace(request)) == 0 {
		return Query{}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(request))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil {
		return Query{}, fmt.Errorf(`%w: %w: send nothing, or a JSON object like {"queue":"media","since":"1h30m"}`, ErrQuery, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Query{}, fmt.Errorf("%w: more text after the JSON object", ErrQuery)
	}
	return q, nil
}
