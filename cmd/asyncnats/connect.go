package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/asyncnats/asyncnats"
)

// dialTimeout bounds the connection to each server that is tried.
const dialTimeout = 3 * time.Second

// connection is the flags that say which server and which namespace. Those
// that are given go before what a context says.
type connection struct {
	URL       string `name:"server" short:"s" env:"NATS_URL" placeholder:"URL" help:"URLs of servers, joined by commas; nats://127.0.0.1:4222 if nothing else is said."`
	User      string `env:"NATS_USER" placeholder:"NAME" help:"User, or token where no password is given."`
	Password  string `env:"NATS_PASSWORD" placeholder:"TEXT" help:"Password."`
	Creds     string `env:"NATS_CREDS" placeholder:"FILE" help:"Credentials file."`
	NKey      string `name:"nkey" env:"NATS_NKEY" placeholder:"FILE" help:"NKey seed file."`
	TLSCert   string `name:"tlscert" env:"NATS_CERT" placeholder:"FILE" help:"TLS certificate."`
	TLSKey    string `name:"tlskey" env:"NATS_KEY" placeholder:"FILE" help:"Key of the TLS certificate."`
	TLSCA     string `name:"tlsca" env:"NATS_CA" placeholder:"FILE" help:"TLS certificate authority."`
	Context   string `env:"NATS_CONTEXT" placeholder:"NAME" help:"Context of the nats command; the selected one if none is given."`
	Domain    string `aliases:"js-domain" env:"ASYNCNATS_DOMAIN" placeholder:"NAME" help:"JetStream domain."`
	Namespace string `env:"ASYNCNATS_NAMESPACE" default:"async" help:"System of queues within the account."`
}

// patience is the flag of the subcommands that only ask the server something.
type patience struct {
	Timeout time.Duration `env:"NATS_TIMEOUT" default:"5s" help:"How long the server may take to answer."`
}

func (p patience) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.Timeout)
}

// on connects, and calls do with a queue.
func (p patience) on(ctx context.Context, a *app, sub, queue string, do func(context.Context, *asyncnats.Queue) error) error {
	ctx, cancel := p.bound(ctx)
	defer cancel()
	client, disconnect, err := a.client(ctx, sub)
	if err != nil {
		return err
	}
	defer disconnect()
	return do(ctx, client.Queue(queue))
}

// client connects for a subcommand. Whoever calls it calls disconnect.
func (a *app) client(ctx context.Context, sub string) (client *asyncnats.Client, disconnect func(), err error) {
	// What goes wrong on the connection later shows in the request that needs it.
	quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	nc, domain, err := a.connection.dial(sub, quiet)
	if err != nil {
		return nil, nil, err
	}
	config := asyncnats.Config{Namespace: a.connection.Namespace, Domain: domain}
	if sub != "put" {
		config.Name = nc.Opts.Name // whoever puts nothing needs no UUID file
	}
	client, err = asyncnats.Connect(ctx, nc, config)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return client, nc.Close, nil
}

// dial connects, and returns the JetStream domain to use with it.
func (c *connection) dial(sub string, options ...nats.Option) (nc *nats.Conn, domain string, err error) {
	own, err := c.options()
	if err != nil {
		return nil, "", err
	}
	var tried []string
	all := append([]nats.Option{
		nats.Name("asyncnats CLI " + sub), nats.Timeout(dialTimeout),
		func(o *nats.Options) error { return c.override(o, &tried) },
	}, own...)
	connect := natscontext.Connect
	if c.Context == "" && homeless(os.Getenv, user.Current) {
		connect = withoutContext
	}
	nc, settings, err := connect(c.Context, append(all, options...)...)
	if err != nil && len(tried) == 0 {
		return nil, "", usagef("--context or the selected context of the nats command: %w", err)
	}
	if err != nil {
		return nil, "", &exitError{exitUnreachable, connectError(strings.Join(tried, ", "), err)}
	}
	domain = c.Domain
	if domain == "" {
		domain = settings.JSDomain
	}
	if domain == "" && settings.JSAPIPrefix != "" {
		nc.Close()
		return nil, "", usagef("the nats context sets a JetStream API prefix (%s), which asyncnats cannot use: name the domain instead, with --domain", settings.JSAPIPrefix)
	}
	return nc, domain, nil
}

// homeless reports whether there is no folder that contexts could be selected in, as in
// a container whose user is a number without a name.
func homeless(getenv func(string) string, current func() (*user.User, error)) bool {
	if getenv("XDG_CONFIG_HOME") != "" {
		return false
	}
	_, err := current()
	return err != nil
}

// withoutContext connects as natscontext.Connect does where no context is selected.
func withoutContext(_ string, options ...nats.Option) (*nats.Conn, natscontext.Settings, error) {
	nc, err := nats.Connect("", options...)
	return nc, natscontext.Settings{}, err
}

// environment is the flags as the environment variables that say the same, for
// commands that call this program: without passwords, which are theirs to know.
func (c *connection) environment() (env []string) {
	for name, value := range map[string]string{
		"NATS_URL": c.URL, "NATS_CONTEXT": c.Context, "NATS_CREDS": c.Creds, "NATS_NKEY": c.NKey,
		"NATS_CERT": c.TLSCert, "NATS_KEY": c.TLSKey, "NATS_CA": c.TLSCA,
		"ASYNCNATS_NAMESPACE": c.Namespace, "ASYNCNATS_DOMAIN": c.Domain,
	} {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// override puts the given server in place of the context's, and any given
// identity in place of all that the context says of one. It notes the URLs.
func (c *connection) override(o *nats.Options, tried *[]string) error {
	switch {
	case c.URL != "":
		o.Servers = nil
		for server := range strings.SplitSeq(c.URL, ",") {
			o.Servers = append(o.Servers, strings.TrimSpace(server))
		}
	case len(o.Servers) == 0:
		o.Servers = []string{nats.DefaultURL}
	}
	if c.User != "" || c.Creds != "" || c.NKey != "" {
		o.User, o.Password, o.Token = "", "", ""
		o.UserJWT, o.Nkey, o.SignatureCB = nil, "", nil
	}
	for _, server := range o.Servers {
		*tried = append(*tried, redacted(server))
	}
	return nil
}

// options are the flags that are options of the connection as they are.
func (c *connection) options() ([]nats.Option, error) {
	var options []nats.Option
	switch {
	case c.Creds != "":
		options = append(options, nats.UserCredentials(c.Creds))
	case c.NKey != "":
		nkey, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, usagef("--nkey: %w", err)
		}
		options = append(options, nkey)
	case c.User != "" && c.Password == "":
		options = append(options, nats.Token(c.User))
	case c.User != "":
		options = append(options, nats.UserInfo(c.User, c.Password))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, usagef("--tlscert and --tlskey need each other")
	}
	if c.TLSCert != "" {
		options = append(options, nats.ClientCert(c.TLSCert, c.TLSKey))
	}
	if c.TLSCA != "" {
		options = append(options, nats.RootCAs(c.TLSCA))
	}
	return options, nil
}

// connectError says what was tried and what to do.
func connectError(servers string, err error) error {
	switch {
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("no server answers at %s: start one (asyncnats server) or name another (--server URL, --context NAME)", servers)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return fmt.Errorf("the server at %s refuses this user: give --creds, --nkey or --user, or a --context that has them: %w", servers, err)
	}
	return fmt.Errorf("connect to %s: %w", servers, err)
}

func redacted(server string) string {
	parsed, err := url.Parse(server)
	if err != nil {
		return server
	}
	return parsed.Redacted()
}
