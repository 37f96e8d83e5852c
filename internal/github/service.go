package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
)

// Service is GitHub's Actions service, which keeps scale sets, as one scope
// may use it.
type Service struct {
	URL     *url.URL
	Token   secret.String
	Expires time.Time
}

// A registration token that was made just now may not be known everywhere yet:
// then the service answers 401 or 403. Source: actions/scaleset, client.go.
const registrationTries = 5

var registrationPace = backoff.Policy{First: time.Second, Most: 8 * time.Second}

// Service logs in to the Actions service. Each call does so anew, with two or
// more requests; the caller keeps the answer until it expires.
func (c *Client) Service(ctx context.Context) (Service, error) {
	const doing = "log in to the Actions service"
	var registration struct {
		Token secret.String `json:"token"`
	}
	_, err := c.call(ctx, http.MethodPost, "/actions/runners/registration-token", nil, &registration)
	if err == nil && registration.Token.Empty() {
		err = errNoAnswer
	}
	if err != nil {
		return Service{}, c.explain(doing, err)
	}
	var got admission
	for try := 1; ; try++ {
		if got, err = c.admit(ctx, registration.Token); err == nil {
			break
		}
		s := status(err)
		if try == registrationTries || s != http.StatusUnauthorized && s != http.StatusForbidden {
			return Service{}, c.explain(doing, err)
		}
		if err := backoff.Sleep(ctx, registrationPace.Delay(try, c.account.opt.Random)); err != nil {
			return Service{}, c.explain(doing, err)
		}
	}
	u, err := Confidential(got.URL)
	if err == nil && got.Token.Empty() {
		err = errNoAnswer
	}
	if err != nil {
		return Service{}, c.explain(doing, err)
	}
	return Service{URL: u, Token: got.Token, Expires: expiryOf(got.Token, c.now())}, nil
}

// admission is what a registration token opens.
type admission struct {
	URL   string        `json:"url"`
	Token secret.String `json:"token"`
}

// admit shows a registration token, which is no token of the API's.
func (c *Client) admit(ctx context.Context, token secret.String) (got admission, err error) {
	r := request{http.MethodPost, "actions/runner-registration", map[string]string{
		"url": c.account.web() + "/" + c.scope.name, "runner_event": "register",
	}}
	if err := c.id.gate.pass(r, c.now()); err != nil {
		return got, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errors.New("GitHub does not answer in time"))
	defer cancel()
	api := c.account.client(nil)
	req, err := api.NewRequest(r.method, r.path, r.body)
	if err != nil {
		return got, err
	}
	req.Header.Set("Authorization", "RemoteAuth "+token.Reveal())
	res, err := api.Do(ctx, req, &got)
	if err != nil && ctx.Err() != nil {
		return got, context.Cause(ctx)
	}
	return got, c.id.gate.observe(r, res, err, c.now())
}

// expiryOf reads when a token expires. The service's are JWTs; one that does
// not say it is renewed after a while. We cannot check its signature, and do
// not rely on what it says.
func expiryOf(token secret.String, now time.Time) time.Time {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token.Reveal(), &claims); err != nil || claims.ExpiresAt == nil {
		return now.Add(unsaidLife)
	}
	return claims.ExpiresAt.Time
}

// Confidential reads an address that GitHub gave us, which a token is to be
// sent to: plain http is for this very machine only. Such an address may hold a
// secret of its own, so errors show no more than its host.
func Confidential(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("GitHub named a service without a usable address")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("the token could be read on its way to %s: it is not https", u.Host)
	}
	return u, nil
}

// HTTP carries requests over the account's network, without a token.
func (c *Client) HTTP() http.RoundTripper { return c.account.opt.HTTP }

// UserAgent is how we name ourselves.
func (c *Client) UserAgent() string { return c.account.opt.UserAgent }

// Scope is where the client's runners register, as people write it.
func (c *Client) Scope() string { return c.scope.name }

// Web is the address of this GitHub for people, without a slash at its end.
func (c *Client) Web() string { return c.account.web() }
