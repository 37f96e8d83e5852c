// Package github registers runners with GitHub and asks what it knows of them,
// over its REST API.
//
// A Client speaks for one scope: a repository, an organisation or an
// enterprise, at github.com, a GitHub Enterprise Server or Tasuki's emulator.
// It stores nothing but what it may forget: the ids of runner groups, where it
// found a job, the token for a minute.
//
// It never repeats a call by itself: whoever calls knows whether trying again
// makes sense, and an error says when (RetryAfter). What GitHub has answered is
// taken for an answer only if it is one: an empty reply, or a page of a proxy,
// is an error and never "no runners". A 404 about one runner counts as "GitHub
// does not know it" only while GitHub still lets us see the scope, since that
// is also its word for a token that lost its rights.
package github

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// Options configure a Client.
type Options struct {
	// URL is what a person calls GitHub: https://github.com, the address of a
	// GitHub Enterprise Server, or of an emulator. Empty: https://github.com.
	// Plain http is for this very machine only.
	URL string
	// Scope is "owner/repository", "organisation" or "enterprises/name".
	Scope string
	// Token gives the credential. It is asked again after a minute, or when
	// GitHub refuses the one before. Nil: none, as an emulator may allow.
	Token func(context.Context) (secret.String, error)
	// HTTP carries the requests; nil: http.DefaultTransport.
	HTTP http.RoundTripper
	// UserAgent names us to GitHub; empty: "tasuki".
	UserAgent string
	Log       *slog.Logger     // nil: slog.Default
	Now       func() time.Time // nil: time.Now
}

// Client is one scope of GitHub. Its methods may be called at the same time;
// each request ends after 30 s. Errors: runner.ErrDenied where our credential
// or its rights do not suffice, with the permission that does; an error with a
// method RetryAfter() time.Duration where GitHub wants to be left alone.
type Client struct {
	api   *github.Client
	scope scope
	log   *slog.Logger
	now   func() time.Time

	mu     sync.Mutex
	groups map[string]int64 // id by name in lower case
	found  map[string]place // where a runner's job is, by the runner's name
}

// New checks the options and sends nothing.
func New(opt Options) (*Client, error) {
	s, err := parseScope(opt.Scope)
	if err != nil {
		return nil, err
	}
	base, err := apiURL(opt.URL)
	if err != nil {
		return nil, err
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
	api := github.NewClient(&http.Client{Transport: &transport{
		next: opt.HTTP, source: opt.Token, host: base.Host, scheme: base.Scheme, now: opt.Now,
	}})
	api.BaseURL = base
	api.UserAgent = "tasuki"
	if opt.UserAgent != "" {
		api.UserAgent = opt.UserAgent
	}
	return &Client{
		api: api, scope: s, log: opt.Log, now: opt.Now,
		groups: map[string]int64{}, found: map[string]place{},
	}, nil
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

// call sends one request below the scope and decodes the reply into v; path
// begins with a slash. The error is go-github's own.
func (c *Client) call(ctx context.Context, method, path string, body, v any) (*github.Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errors.New("GitHub does not answer in time"))
	defer cancel()
	req, err := c.api.NewRequest(method, c.scope.path+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.api.Do(ctx, req, v)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return res, err
}
