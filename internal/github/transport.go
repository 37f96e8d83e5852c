package github

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/secret"
)

const (
	// tokenLife is how long a token that does not say when it expires is used
	// before its source is asked again.
	tokenLife = time.Minute
	// renewBefore is how long before it expires a token is replaced, so that none
	// expires on its way; a token of an App lives an hour.
	renewBefore = 5 * time.Minute
	// tokenTimeout bounds getting a token, which does not count as GitHub's time
	// to answer: a command that prints one has 30 s of its own.
	tokenTimeout = 40 * time.Second
	// renewPause is how long an old token goes on when there is no new one.
	renewPause = 30 * time.Second
)

// lease is a token and how long it may be used.
type lease struct {
	token   secret.String
	expires time.Time // zero: it does not say
}

// identity is who we are to GitHub in some scopes: where its tokens come from,
// and the limits that they share.
type identity struct {
	// fetch gets a token; nil: there is none, as an emulator may allow.
	fetch func(context.Context) (lease, error)
	app   *installation // what fetch asks, if we are an App
	gate  *gate
	log   *slog.Logger
	now   func() time.Time

	turn  chan struct{} // holds one value while somebody gets a token
	lease lease         // guarded by turn
	taken time.Time
	renew time.Time
}

// identityOf returns the identity for a scope. An App has one for each owner:
// its installations have tokens and limits of their own.
func (a *Account) identityOf(s scope) *identity {
	key := ""
	if a.opt.App != nil {
		key = s.owner()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id, ok := a.identities[key]; ok {
		return id
	}
	id := &identity{gate: newGate(a.opt.Random), log: a.log, now: a.now, turn: make(chan struct{}, 1)}
	switch {
	case a.opt.App != nil:
		id.app = newInstallation(a, s, id.gate)
		id.fetch = id.app.fetch
	case a.opt.Token != nil:
		id.fetch = func(ctx context.Context) (lease, error) {
			token, err := a.opt.Token(ctx)
			if err != nil {
				err = &credentialError{err}
			}
			return lease{token: token}, err
		}
	}
	a.identities[key] = id
	return id
}

// get returns a token that can be used now. While one asks the source the
// others wait: they would only ask the same. A source that fails costs nothing
// while the token before can be used.
func (id *identity) get(ctx context.Context) (secret.String, error) {
	select {
	case id.turn <- struct{}{}:
		defer func() { <-id.turn }()
	case <-ctx.Done():
		return secret.String{}, context.Cause(ctx)
	}
	now := id.now()
	if !id.lease.token.Empty() && now.Before(id.renew) {
		return id.lease.token, nil
	}
	next, err := id.fetch(ctx)
	if err == nil {
		if bad := checkToken(next.token.Reveal()); bad != nil {
			err = &credentialError{bad}
		}
	}
	if err != nil {
		if !id.lease.token.Empty() && (id.lease.expires.IsZero() || now.Before(id.lease.expires)) && ctx.Err() == nil {
			id.log.Warn("no new token for GitHub; the one before is used", "err", err)
			id.renew = now.Add(renewPause)
			return id.lease.token, nil
		}
		return secret.String{}, err
	}
	id.lease, id.taken, id.renew = next, now, now.Add(tokenLife)
	if !next.expires.IsZero() {
		id.renew = later(now.Add(renewPause), next.expires.Add(-renewBefore))
	}
	return next.token, nil
}

// replace returns another token than the one that GitHub refused, false if
// there is none. A token that was minted just now is not replaced: whatever
// GitHub dislikes is not its age.
func (id *identity) replace(ctx context.Context, refused secret.String) (secret.String, bool) {
	select {
	case id.turn <- struct{}{}:
	case <-ctx.Done():
		return secret.String{}, false
	}
	if id.lease.token.Reveal() == refused.Reveal() {
		if !id.lease.expires.IsZero() && id.now().Sub(id.taken) < tokenLife {
			<-id.turn
			return secret.String{}, false
		}
		id.lease = lease{}
	}
	<-id.turn
	next, err := id.get(ctx)
	if err != nil {
		id.log.Warn("GitHub refuses the token, and there is no other", "err", err)
		return secret.String{}, false
	}
	return next, next.Reveal() != refused.Reveal()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// request is one call of the API; the path is below its root.
type request struct {
	method, path string
	body         any
}

// send sends one request, unless the gate is shut, and decodes the reply into v.
func (id *identity) send(caller context.Context, api *github.Client, r request, v any) (*github.Response, error) {
	if err := id.gate.pass(r, id.now()); err != nil {
		return nil, err
	}
	if err := id.prepare(caller); err != nil {
		if caller.Err() != nil {
			return nil, context.Cause(caller)
		}
		return nil, id.gate.observe(r, nil, err, id.now())
	}
	ctx, cancel := context.WithTimeoutCause(caller, callTimeout, errors.New("GitHub does not answer in time"))
	defer cancel()
	req, err := api.NewRequest(r.method, r.path, r.body)
	if err != nil {
		return nil, err
	}
	res, err := api.Do(ctx, req, v)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if errors.Is(caller.Err(), context.Canceled) {
		return res, err // which says nothing about GitHub
	}
	return res, id.gate.observe(r, res, err, id.now())
}

// prepare gets a token, so that the request after it has one.
func (id *identity) prepare(ctx context.Context) error {
	if id.fetch == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tokenTimeout, errors.New("there is none in time"))
	defer cancel()
	_, err := id.get(ctx)
	if err == nil {
		return nil
	}
	if _, ours := errors.AsType[*credentialError](err); !ours && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("cannot get a token for GitHub: %w", err)
}

// transport adds the token to requests for the API's own host, and to no
// other: a redirect must not carry it away.
type transport struct {
	next         http.RoundTripper
	id           *identity // nil: no token
	scheme, host string
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.id == nil || t.id.fetch == nil || req.URL.Host != t.host || req.URL.Scheme != t.scheme {
		return t.next.RoundTrip(req)
	}
	token, err := t.id.get(req.Context())
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, fmt.Errorf("cannot get a token for GitHub: %w", err)
	}
	res, err := t.next.RoundTrip(withToken(req, token))
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return res, err
	}
	next, another := t.id.replace(req.Context(), token)
	if !another {
		return res, nil
	}
	again := withToken(req, next)
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return res, nil
		}
	} else if req.Body != nil && req.Body != http.NoBody {
		return res, nil
	}
	_ = res.Body.Close()
	return t.next.RoundTrip(again)
}

func withToken(req *http.Request, token secret.String) *http.Request {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	return req
}

// checkToken refuses what cannot be a token without saying what it is: an
// error page, several lines. The length of one is not bounded: those of Apps
// grew from 40 to some 520 characters.
func checkToken(token string) error {
	if token == "" {
		return errors.New("its source gave nothing")
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("its source gave %d characters that are no token: a token has no space or line break", len(token))
		}
	}
	return nil
}
