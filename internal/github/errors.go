package github

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/runner"
)

// unsaidPause is how long to leave GitHub alone when it says that we ask too
// much and not for how long. Source: docs.github.com, "Best practices for using
// the REST API".
const unsaidPause = time.Minute

// explain turns an error of a request into one of ours, about what was to be
// done ("list the runners").
func (c *Client) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot %s of %s: %w", doing, c.scope.name, c.meaning(err))
}

func (c *Client) meaning(err error) error {
	if limit, ok := errors.AsType[*LimitError](err); ok {
		return limit // without the address of a call that only wanted a token
	}
	if ours, ok := errors.AsType[*credentialError](err); ok {
		if errors.Is(ours, runner.ErrDenied) {
			return ours
		}
		return fmt.Errorf("cannot get a token for GitHub: %w", ours)
	}
	res := reply(err)
	if res == nil {
		if hint := networkHint(err); hint != "" {
			return fmt.Errorf("%w: %s", err, hint)
		}
		return err
	}
	what := words(err, res)
	switch res.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: %s: the token is wrong, has expired or was revoked", runner.ErrDenied, what)
	case http.StatusForbidden, http.StatusNotFound:
		if sso := res.Header.Get("X-GitHub-SSO"); sso != "" {
			return fmt.Errorf("%w: %s: the token is not authorised for single sign-on: %s", runner.ErrDenied, what, sso)
		}
		return fmt.Errorf("%w: %s: either there is no %s or the token may not manage its runners: %s",
			runner.ErrDenied, what, c.scope.name, c.scope.needs)
	}
	return errors.New(what)
}

// status returns the HTTP status of an error's reply; 0: there was none.
func status(err error) int {
	if res := reply(err); res != nil {
		return res.StatusCode
	}
	return 0
}

func reply(err error) *http.Response {
	if e, ok := errors.AsType[*github.ErrorResponse](err); ok {
		return e.Response
	}
	if e, ok := errors.AsType[*github.TwoFactorAuthError](err); ok {
		return e.Response
	}
	return nil
}

// words is what GitHub said: its status and message. A page that is not of its
// API is not repeated.
func words(err error, res *http.Response) string {
	said := fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode))
	e, ok := errors.AsType[*github.ErrorResponse](err)
	if !ok || e.Message == "" || e.Message == http.StatusText(res.StatusCode) {
		return said
	}
	said += ": " + strings.TrimSuffix(e.Message, ".")
	for _, detail := range e.Errors {
		if detail.Message != "" {
			said += "; " + detail.Message
		}
	}
	return said
}
