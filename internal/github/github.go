// Package github registers runners with GitHub and asks what it knows of them,
// over its REST API.
//
// An Account is one credential at one GitHub: github.com, a GitHub Enterprise
// Server or Tasuki's emulator. Its credential is a personal access token or the
// key of a GitHub App. A Client is one scope of an account: a repository, an
// organisation or an enterprise. Both store nothing but what they may forget:
// tokens until they expire, the ids of runner groups and installations, where a
// job was found, the quota that GitHub told last.
//
// It never repeats a call by itself, with one exception: a call that GitHub
// refused with 401 is sent once more if there is another token to send.
// Whoever calls knows whether trying again makes sense, and an error says when
// (RetryAfter). While GitHub wants to be left alone, or has failed several
// times in a row, a gate is shut: calls fail at once with a LimitError and
// nothing is sent. Scopes that share a token share its gate.
//
// What GitHub has answered is taken for an answer only if it is one: an empty
// reply, or a page of a proxy, is an error and never "no runners". A 404 about
// one runner counts as "GitHub does not know it" only while GitHub still lets
// us see the scope, since that is also its word for a token that lost its
// rights.
package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/secret"
)

// callTimeout bounds one request with its reply.
const callTimeout = 30 * time.Second

// Options configure an Account.
type Options struct {
	// URL is what a person calls GitHub: https://github.com, the address of a
	// GitHub Enterprise Server, or of an emulator. Empty: https://github.com.
	// Plain http is for this very machine only.
	URL string
	// Scope is "owner/repository", "organisation" or "enterprises/name". New
	// wants one; an Account is asked for each by itself.
	Scope string
	// Token gives a personal access token, or any other that GitHub takes. It is
	// asked again after a minute, so that a new one is picked up, and when GitHub
	// refuses the one before. Nil, and no App: no token, as an emulator may allow.
	Token func(context.Context) (secret.String, error)
	// App is a GitHub App, instead of Token.
	App *App
	// HTTP carries the requests; nil: http.DefaultTransport. See NewHTTP.
	HTTP http.RoundTripper
	// Observe hears of each request that was sent to GitHub's API; nil: nobody
	// does. It may be called at the same time.
	Observe func(Call)
	// UserAgent names us to GitHub; empty: "tasuki".
	UserAgent string
	Log       *slog.Logger     // nil: slog.Default
	Now       func() time.Time // nil: time.Now
	// Random gives values in [0, 1) that spread out when hosts return after a
	// limit; nil: math/rand/v2.
	Random func() float64
}

// Account is one credential at one GitHub. Its methods may be called at the
// same time.
type Account struct {
	opt  Options
	base *url.URL
	log  *slog.Logger
	now  func() time.Time

	mu         sync.Mutex
	identities map[string]*identity // by owner for an App, "" for a token
}

// NewAccount checks the options and sends nothing.
func NewAccount(opt Options) (*Account, error) {
	base, err := apiURL(opt.URL)
	if err != nil {
		return nil, err
	}
	if opt.App != nil && (opt.Token != nil || opt.App.ID == "" || opt.App.Key == nil) {
		return nil, errors.New("cannot use a GitHub App without its id and key, or beside a token")
	}
	if opt.HTTP == nil {
		opt.HTTP = http.DefaultTransport
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Random == nil {
		opt.Random = rand.Float64
	}
	if opt.Observe != nil {
		opt.HTTP = &observed{next: opt.HTTP, base: base, tell: opt.Observe, now: opt.Now}
	}
	opt.UserAgent = cmp.Or(opt.UserAgent, "tasuki")
	return &Account{opt: opt, base: base, log: opt.Log, now: opt.Now, identities: map[string]*identity{}}, nil
}

// Client is one scope of an Account. Its methods may be called at the same
// time; each request ends after 30 s. Errors: runner.ErrDenied where our
// credential or its rights do not suffice, with the permission that does; an
// error with a method RetryAfter() time.Duration where GitHub wants to be left
// alone.
type Client struct {
	account *Account
	api     *github.Client
	id      *identity
	scope   scope
	log     *slog.Logger
	now     func() time.Time

	mu     sync.Mutex
	groups map[string]int64 // id by name in lower case
	found  map[string]place // where a runner's job is, by the runner's name
	saw    time.Time        // when GitHub let us see the scope's runners last
}

// New returns the client of the one scope that the options name. It sends
// nothing.
func New(opt Options) (*Client, error) {
	a, err := NewAccount(opt)
	if err != nil {
		return nil, err
	}
	return a.Scope(opt.Scope)
}

// Scope returns the client of a scope; it sends nothing. Clients of one
// account share its tokens and limits.
func (a *Account) Scope(name string) (*Client, error) {
	s, err := parseScope(name)
	if err != nil {
		return nil, err
	}
	id := a.identityOf(s)
	return &Client{
		account: a, api: a.client(id), id: id, scope: s, log: a.log, now: a.now,
		groups: map[string]int64{}, found: map[string]place{},
	}, nil
}

// client returns a go-github client that speaks as an identity; nil: as nobody.
func (a *Account) client(id *identity) *github.Client {
	api := github.NewClient(&http.Client{Transport: &transport{next: a.opt.HTTP, id: id, scheme: a.base.Scheme, host: a.base.Host}})
	api.BaseURL, api.UserAgent = a.base, a.opt.UserAgent
	api.DisableRateLimitCheck = true // the gate does that, with our clock
	return api
}

// apiURL returns the root of the REST API, ending in a slash. Source:
// docs.github.com, "REST API" of GitHub.com, of GHE.com and of Enterprise Server.
func apiURL(address string) (*url.URL, error) {
	if address == "" {
		address = "https://github.com"
	}
	u, err := url.Parse(strings.TrimRight(address, "/"))
	if err != nil || u.Host == "" || u.Path != "" || u.User != nil || u.RawQuery != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("cannot use %q as GitHub's address: write it as https://github.com, without a path", address)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("cannot use %q as GitHub's address: over plain http the token could be read on its way; write https", address)
	}
	switch host := strings.ToLower(u.Host); {
	case host == "github.com" || host == "www.github.com" || host == "api.github.com":
		u.Host, u.Path = "api.github.com", "/"
	case strings.HasSuffix(host, ".ghe.com"):
		u.Host, u.Path = "api."+strings.TrimPrefix(host, "api."), "/"
	default:
		u.Path = "/api/v3/"
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// scope is where runners register, as the REST API's paths begin.
type scope struct {
	path  string // "repos/o/r", "orgs/o", "enterprises/e"
	name  string // as people write it
	needs string // the permission that a token must have
}

func (s scope) repository() bool { return strings.HasPrefix(s.path, "repos/") }

func parseScope(name string) (scope, error) {
	first, second, two := strings.Cut(name, "/")
	switch {
	case first == "" || strings.ContainsAny(name, " ?#%:") || two && (second == "" || strings.Contains(second, "/")):
		return scope{}, fmt.Errorf("cannot use %q as a scope: write owner/repository, organisation or enterprises/name", name)
	case !two:
		return scope{"orgs/" + name, name,
			"it needs the organisation permission Self-hosted runners: read and write (a classic token: admin:org)"}, nil
	case first == "enterprises":
		return scope{name, name, "it needs to be a classic token with manage_runners:enterprise"}, nil
	}
	return scope{"repos/" + name, name,
		"it needs the repository permission Administration: read and write (a classic token: repo)"}, nil
}

// owner is whose scope it is: the user, organisation or enterprise, in lower case.
func (s scope) owner() string {
	parts := strings.Split(strings.ToLower(s.path), "/")
	return parts[1]
}

func (s scope) enterprise() bool { return strings.HasPrefix(s.path, "enterprises/") }

// call sends one request below the scope and decodes the reply into v; path
// begins with a slash. The error is go-github's own, or a LimitError while the
// gate is shut.
func (c *Client) call(ctx context.Context, method, path string, body, v any) (*github.Response, error) {
	return c.id.send(ctx, c.api, request{method, c.scope.path + path, body}, v)
}
